"""The protocol of a task: problems in disjoint splits, and a verifier of completions."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from random import Random
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

from prm_kit.errors import UsageError, unknown_name
from prm_kit.records import LabelValue, Problem, Rater, Solution

Split = Literal["train", "dev", "test"]
SPLITS: tuple[str, ...] = get_args(Split)

_TENTHS: dict[str, tuple[int, ...]] = {"train": (0, 1, 2, 3, 4, 5, 6, 7), "dev": (8,), "test": (9,)}


class Demonstration(NamedTuple):
    """A problem with a completion to imitate, as text. It need not be right."""

    problem: str
    completion: str


class Task(Protocol):
    """Problems and whoever knows when they are solved."""

    @property
    def name(self) -> str:
        """What reports and records call this task."""
        ...

    def problems(self, split: Split, n: int | None, seed: int) -> list[Problem]:
        """Draw `n` different problems of one split; the same arguments give the same problems.

        A problem belongs to one split by its text alone, so splits are disjoint whatever the seeds. `None` asks for
        all there are, where their number is finite.

        Raises:
            UsageError: The split does not exist, or it has fewer than `n` problems.
        """
        ...

    def verify(self, problem: Problem, completion: str) -> bool | None:
        """Whether the final answer of `completion` is right; None where that cannot be decided.

        A completion that states no final answer is wrong (False). None: no reference answer, or no verdict in time.
        """
        ...


@runtime_checkable
class DemonstratedTask(Task, Protocol):
    """A task that also has completions to imitate."""

    def demonstrations(self, split: Split, n: int | None, seed: int) -> list[Demonstration]:
        """Worked completions of `problems(split, n, seed)`, in that order."""
        ...


@runtime_checkable
class StepLabelledTask(Task, Protocol):
    """A task whose program can label every step exactly."""

    @property
    def rater(self) -> Rater:
        """The program as a rater, of kind "rule"."""
        ...

    def label_steps(self, solution: Solution) -> tuple[LabelValue, ...]:
        """One exact label a step, given the steps before it as written."""
        ...


def split_of(text: str) -> Split:
    """The one split that a problem text belongs to: eight tenths train, one dev, one test."""
    tenth = int(hashlib.sha256(text.encode("utf-8")).hexdigest()[:12], 16) % 10
    if tenth in _TENTHS["dev"]:
        return "dev"
    return "test" if tenth in _TENTHS["test"] else "train"


def folded(text: str) -> str:
    """A problem's text without its looks (case, white space, width of letters), to find it again elsewhere."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def check_split(split: str) -> None:
    """Refuse a split that does not exist.

    Raises:
        UsageError: It lists the splits.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)


def draw(problems: Sequence[Problem], n: int | None, seed: int, where: str) -> list[Problem]:
    """Draw `n` of the problems at random, in random order; all of them, in their own order, for None.

    Raises:
        UsageError: There are fewer than `n`.
    """
    if n is None:
        return list(problems)
    if n > len(problems):
        raise UsageError(f"{where}: {n} problems were asked for, and there are {len(problems)}")
    return Random(f"draw {seed}").sample(list(problems), n)  # noqa: S311
