"""Rewards of whole completions: R = alpha R_final + beta R_process + gamma R_format, every part kept apart.

A part that could not be computed is None, never 0: the completion then has no reward, is left out of the update and
counted. Plain numbers, no tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from prm_kit.answers import extract_final_answer
from prm_kit.errors import InputError, UsageError, unknown_name
from prm_kit.records import Solution
from prm_kit.settings import Settings

FormatCheck = Callable[[Solution], bool]
"""Whether a completion has the form asked for."""

LengthPenalty = Callable[[Sequence[int], Sequence[bool | None], Sequence[int], int], list[float]]
"""(lengths in tokens, correct, group, max_tokens) -> what is added to each reward."""

AnswersEqual = Callable[[str, str], bool | None]
"""Whether two final answers are the same; None where that could not be decided."""


class RewardWeights(Settings):
    """The weights of the parts; the defaults are the handbook's.

    Attributes:
        final: Alpha, of the verified outcome.
        process: Beta, of the steps: of their mean inside R, or of the process advantage where steps are credited.
        format: Gamma, of the form.
    """

    final: float = Field(1.0, ge=0, allow_inf_nan=False)
    process: float = Field(0.5, ge=0, allow_inf_nan=False)
    format: float = Field(0.2, ge=0, allow_inf_nan=False)

    def inversion(self, wrong: float = 0.0, process_range: tuple[float, float] = (0.0, 1.0)) -> str | None:
        """Say how a tidy wrong answer can beat a sloppy right one, or None where it cannot.

        Args:
            wrong: R_final of a wrong answer; a right one has 1.
            process_range: Least and greatest R_process.
        """
        low, high = process_range
        worst_right = self.final + self.process * low
        best_wrong = self.final * wrong + self.process * high + self.format
        if worst_right > best_wrong:
            return None
        return (
            f"a tidy wrong answer can beat a sloppy right one: {best_wrong:g} against {worst_right:g}. It cannot where "
            f"final x {1 - wrong:g} > process x {high - low:g} + format; the weights are final {self.final:g}, "
            f"process {self.process:g}, format {self.format:g}"
        )


@dataclass(frozen=True)
class Composed:
    """Rewards of some completions.

    Attributes:
        totals: The composed reward of each; None where a part that it needs failed.
        parts: Every part of each as it was, unweighted; None where it failed.
        failed: Per part, how many completions have none.
    """

    totals: tuple[float | None, ...]
    parts: Mapping[str, tuple[float | None, ...]]
    failed: Mapping[str, int]

    @property
    def kept(self) -> list[int]:
        """Completions that have a reward."""
        return [row for row, total in enumerate(self.totals) if total is not None]


def compose(parts: Mapping[str, Sequence[float | None]], weights: Mapping[str, float]) -> Composed:
    """Weigh and add the parts.

    Args:
        parts: Per name one value for each completion; None where it could not be computed.
        weights: Per name; a part of weight 0 is kept and counted, and its failures cost nothing.

    Raises:
        UsageError: A weight without its part, or a part without a weight.
        InputError: The parts differ in length, or a value is not finite.
    """
    if missing := set(weights) ^ set(parts):
        raise UsageError(f"rewards and weights do not name the same parts: {', '.join(sorted(missing))}")
    if len({len(values) for values in parts.values()}) > 1:
        raise InputError(f"rewards differ in number: { {name: len(values) for name, values in parts.items()} }")
    for name, values in parts.items():
        for row, value in enumerate(values):
            if value is not None and not math.isfinite(value):
                raise InputError(f"completion {row}: its {name} reward is {value}")
    totals = []
    for together in zip(*parts.values(), strict=True):
        used = [(weights[name], value) for name, value in zip(parts, together, strict=True) if weights[name] != 0]
        failed = any(value is None for _, value in used)
        totals.append(None if failed else math.fsum(weight * value for weight, value in used if value is not None))
    return Composed(
        tuple(totals),
        {name: tuple(values) for name, values in parts.items()},
        {name: sum(value is None for value in values) for name, values in parts.items()},
    )


def final_rewards(correct: Sequence[bool | None], truncated: Sequence[bool], wrong: float = 0.0) -> list[float | None]:
    """1 for a right answer, `wrong` (0 or -1) for a wrong one or a completion that was cut off, None for no verdict."""
    return [
        wrong if cut else None if right is None else 1.0 if right else wrong
        for right, cut in zip(correct, truncated, strict=True)
    ]


def process_reward(values: Sequence[float | None], how: str = "mean") -> float | None:
    """One number in [0, 1] from step values in [-1, 1]; None where no step was scored.

    Args:
        values: p(+1) - p(-1) of each step, None where the scorer abstained.
        how: "mean" is the handbook's, which easy steps dilute; "min" is not moved by steps above the worst.

    Raises:
        InputError: A value outside of [-1, 1], as an unbounded scorer gives.
        UsageError: Unknown `how`.
    """
    if how not in ("mean", "min"):
        raise unknown_name("process aggregation", how, ("mean", "min"))
    scored = [value for value in values if value is not None]
    for value in scored:
        if not -1.0 - 1e-6 <= value <= 1.0 + 1e-6:
            raise InputError(f"step value {value} is outside of [-1, 1]: an unbounded score cannot stand in a reward")
    if not scored:
        return None
    number = min(scored) if how == "min" else math.fsum(scored) / len(scored)
    return min(1.0, max(0.0, (number + 1) / 2))


def self_consistency(answers: Sequence[str | None], equal: AnswersEqual) -> list[float | None]:
    """1 for completions in the largest cluster of equal answers, 0 for the others: a process signal without labels.

    m clusters of the same size share it: 1 / m each. A completion without an answer is in no cluster and has 0. Where
    an answer could not be compared with a cluster, and is in none, it has None: not decided.

    Args:
        answers: Final answers of one problem's completions.
        equal: See `AnswersEqual`; `lambda a, b: checker.equal(a, b).equal` with an `AnswerChecker`.
    """
    clusters: list[list[int]] = []
    undecided = set()
    for row, answer in enumerate(answers):
        if answer is None:
            continue
        unclear = False
        for cluster in clusters:
            same = equal(answer, str(answers[cluster[0]]))
            unclear |= same is None
            if same:
                cluster.append(row)
                break
        else:
            if unclear:
                undecided.add(row)
            else:
                clusters.append([row])
    size = max((len(cluster) for cluster in clusters), default=0)
    largest = [cluster for cluster in clusters if len(cluster) == size]
    member = {row: 1 / len(largest) for cluster in largest for row in cluster}
    return [None if row in undecided else member.get(row, 0.0) for row in range(len(answers))]


def format_reward(solution: Solution, checks: Sequence[FormatCheck]) -> float:
    """Share of the checks that the completion passes, in [0, 1].

    Raises:
        UsageError: No check.
    """
    if not checks:
        raise UsageError(f"a format reward needs checks: {', '.join(FORMAT_CHECKS)}")
    return sum(check(solution) for check in checks) / len(checks)


_THINK = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)


def think_tags(solution: Solution) -> bool:
    """One `<think>` section that says something, at the start, and something after it."""
    match = _THINK.fullmatch(solution.completion)
    once = solution.completion.count("<think>") == solution.completion.count("</think>") == 1
    return once and match is not None and all(part.strip() for part in match.groups())


def step_structure(solution: Solution, *, least: int = 2, most: int = 64) -> bool:
    """`least` to `most` steps, none said twice (whitespace and case levelled) and none over nine tenths of the text."""
    steps = [" ".join(step.split()).casefold() for step in solution.steps]
    total = sum(map(len, steps))
    return least <= len(steps) <= most and len(set(steps)) == len(steps) and max(map(len, steps)) <= 0.9 * total


def reasoning_first(solution: Solution) -> bool:
    """The final answer is stated in the last step, and in none before it."""
    if len(solution.spans) < 2:
        return False
    start = solution.spans[-1][0]
    return (
        extract_final_answer(solution.completion) is not None
        and extract_final_answer(solution.completion[:start]) is None
    )


def soft_overlong(
    lengths: Sequence[int],
    correct: Sequence[bool | None],
    groups: Sequence[int],
    max_tokens: int,
    *,
    buffer: int | None = None,
) -> list[float]:
    """0 up to max - buffer, down in a line to -1 at max, -1 beyond: DAPO's soft overlong punishment (2503.14476).

    `buffer` defaults to a fifth of `max_tokens` (4096 of 20480 in the paper).
    """
    width = max(1, max_tokens // 5) if buffer is None else buffer
    if not 0 < width <= max_tokens:
        raise UsageError(f"soft_overlong: a buffer of {width} tokens does not fit into {max_tokens}")
    return [-min(1.0, max(0, length - (max_tokens - width)) / width) for length in lengths]


def relative_length(
    lengths: Sequence[int], correct: Sequence[bool | None], groups: Sequence[int], max_tokens: int
) -> list[float]:
    """0.5 - (length - shortest) / (longest - shortest) of the group if right, at most 0 if not: Kimi k1.5 (2501.12599).

    Groups of one length get 0.
    """
    added = []
    for length, right, group in zip(lengths, correct, groups, strict=True):
        beside = [other for other, name in zip(lengths, groups, strict=True) if name == group]
        low, high = min(beside), max(beside)
        bonus = 0.5 - (length - low) / (high - low) if high > low else 0.0
        added.append(bonus if right else min(0.0, bonus))
    return added


FORMAT_CHECKS: dict[str, FormatCheck] = {
    "think_tags": think_tags,
    "step_structure": step_structure,
    "reasoning_first": reasoning_first,
}

LENGTH_PENALTIES: dict[str, LengthPenalty] = {"soft_overlong": soft_overlong, "relative_length": relative_length}
