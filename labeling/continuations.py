"""Continue prefixes of solutions with a policy, and count how many continuations reach the right answer."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from labeling.rollout_settings import RolloutSettings
from prm_kit.answers import AnswerChecker, extract_final_answer
from prm_kit.engines.engine import Engine, Limits, Rollout
from prm_kit.records import Solution
from prm_kit.split import split

if TYPE_CHECKING:
    from prm_kit.policy import Policy

Judge = Callable[[Solution, str], bool | None]
"""Whether a completion of the solution's problem ends in the right answer; None where that cannot be decided."""


@dataclass(frozen=True)
class Tally:
    """What became of the rollouts of one prefix.

    Attributes:
        reached: Rollouts that ended in the right answer.
        missed: Rollouts that ended in another answer, or in none.
        truncated: Rollouts that the length limit ended.
        undecided: Rollouts whose answer nobody could judge; they count nowhere.
        tokens: New tokens sampled.
    """

    reached: int = 0
    missed: int = 0
    truncated: int = 0
    undecided: int = 0
    tokens: int = 0

    def count(self, settings: RolloutSettings) -> int:
        """Rollouts that the share is of."""
        return self.reached + self.missed + (self.truncated if settings.truncated == "missed" else 0)

    @property
    def sampled(self) -> int:
        """All rollouts."""
        return self.reached + self.missed + self.truncated + self.undecided


class Prefix(NamedTuple):
    """A problem and the first `steps` steps of a solution of it, as token ids."""

    solution: Solution
    steps: int
    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """What an engine continues."""
        return self.prompt + self.completion

    @property
    def key(self) -> bytes:
        """Equal for the same prefix with the same reference answer, whichever solution it comes from."""
        ids = hashlib.sha256(np.asarray(self.ids, dtype="<i8").tobytes())
        ids.update(f"{self.solution.problem}\0{self.solution.reference_answer}".encode())
        return ids.digest()[:16]


@dataclass
class Spent:
    """What an object of `Continuations` has sampled so far, shared prefixes once."""

    prefixes: int = 0
    rollouts: int = 0
    tokens: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


class Continuations:
    """Samples continuations of prefixes, each distinct prefix once, and remembers what became of them.

    A rollout depends on the seed, its prefix and its number alone, so what is remembered is what would be sampled
    again: labels do not depend on the order of the solutions, and a run that goes on after a kill gives the same ones.

    Args:
        policy: Encodes problems and prefixes, and reads rollouts.
        engine: Samples from that policy.
        judge: Knows right answers.
        settings: How many, how long, how.
        context: Most tokens of a prefix and its continuation together; None: no limit known.

    Attributes:
        spent: What was sampled.
    """

    def __init__(
        self, policy: Policy, engine: Engine, judge: Judge, settings: RolloutSettings, context: int | None = None
    ) -> None:
        self.settings = settings
        self.judge = judge
        self.spent = Spent()
        self._policy = policy
        self._engine = engine
        self._context = context
        self._limits = Limits(settings.max_new_tokens, policy.stop_ids, settings.temperature, settings.seed)
        self._known: dict[bytes, Tally] = {}
        self._missed: dict[bytes, list[Rollout]] = {}  # kept only where somebody explores

    def prefixes(self, solutions: Sequence[Solution]) -> list[list[Prefix]]:
        """Per solution its prefixes of 0, 1, ... all steps."""
        prompts = self._policy.prompt_ids([solution.problem for solution in solutions])
        completions = self._policy.prefix_ids(solutions)
        return [
            [Prefix(solution, steps, tuple(prompt), tuple(ids)) for steps, ids in enumerate(lists)]
            for solution, prompt, lists in zip(solutions, prompts, completions, strict=True)
        ]

    def tally(self, prefixes: Iterable[Prefix]) -> list[Tally | None]:
        """What became of the rollouts of each prefix; None for one that leaves no room for a whole rollout.

        All prefixes that were not asked for before go to the engine in one call.
        """
        keys: list[bytes | None] = []
        new: dict[bytes, Prefix] = {}
        for prefix in prefixes:
            fits = self._context is None or len(prefix.ids) + self.settings.max_new_tokens <= self._context
            keys.append(key := prefix.key if fits else None)
            if key is not None and key not in self._known:
                new[key] = prefix
        if new:
            groups = self._engine.generate([p.ids for p in new.values()], self.settings.samples, self._limits)
            for (key, prefix), rollouts in zip(new.items(), groups, strict=True):
                self._known[key] = self._count(prefix, rollouts)
        return [None if key is None else self._known[key] for key in keys]

    def missed(self, prefix: Prefix) -> list[Rollout]:
        """The rollouts of a prefix that ended in a wrong answer, as sampled; kept only with `settings.explore`."""
        return self._missed.get(prefix.key, [])

    def completed(self, prefix: Prefix, rollout: Rollout, generator: str) -> Solution | None:
        """The solution that a prefix and one of its rollouts that missed make together.

        The steps of the prefix stay as they are; the rest is split by the method that its solution was split by. None
        where that cannot be read back as it was written, or nothing was added.
        """
        old = prefix.solution
        start = len(self._policy.text(Rollout(prefix.completion, (), "length")))
        text = self._policy.text(Rollout((*prefix.completion, *rollout.ids), (), rollout.finish))
        method = str(old.meta.get("split_method", "auto"))
        if text[:start] != old.completion[:start] or "+" in method or method == "token":
            return None
        added = split(text[start:], method, attached=method == "auto").spans
        if not added:
            return None
        return Solution(
            old.problem,
            text,
            (*old.spans[: prefix.steps], *((a + start, b + start) for a, b in added)),
            final_answer=extract_final_answer(text),
            reference_answer=old.reference_answer,
            is_correct=False,
            generator=generator,
            source=old.source,
            licence=old.licence,
            meta={"split_method": method, "parent": old.id, "branch_step": prefix.steps},
        )

    def forget(self) -> None:
        """Forget every rollout; what was spent stays spent."""
        self._known.clear()
        self._missed.clear()

    def reaches(self, tally: Tally) -> bool | None:
        """Whether the answer can be reached from a prefix, by the settings' threshold; None where nothing says so."""
        count = tally.count(self.settings)
        return tally.reached / count > self.settings.threshold if count else None

    def _count(self, prefix: Prefix, rollouts: Sequence[Rollout]) -> Tally:
        said = [self._outcome(prefix, rollout) for rollout in rollouts]
        outcomes = Counter(said)
        tally = Tally(**outcomes, tokens=sum(len(rollout.ids) for rollout in rollouts))
        if self.settings.explore:
            missed = [rollout for rollout, outcome in zip(rollouts, said, strict=True) if outcome == "missed"]
            self._missed[prefix.key] = missed
        self.spent.prefixes += 1
        self.spent.rollouts += tally.sampled
        self.spent.tokens += tally.tokens
        self.spent.outcomes.update(outcomes)
        return tally

    def _outcome(self, prefix: Prefix, rollout: Rollout) -> str:
        if rollout.finish == "length":
            return "truncated"
        # prefix and rollout are decoded together: a token may hold a part of a character, or a space that opens a text
        whole = Rollout((*prefix.completion, *rollout.ids), (), rollout.finish)
        verdict = self.judge(prefix.solution, self._policy.text(whole))
        return "undecided" if verdict is None else "reached" if verdict else "missed"


def judge_by(checker: AnswerChecker) -> Judge:
    """A judge that compares the final answer that a completion states with the reference; stating none is a miss."""

    def judge(solution: Solution, completion: str) -> bool | None:
        stated = extract_final_answer(completion)
        return False if stated is None else checker.equal(stated, solution.reference_answer).equal

    return judge


def share_stderr(reached: int, count: int) -> float:
    """Standard error of a share that was estimated from `count` rollouts: never 0, also where none or all reached.

    It is the standard deviation of the share's posterior under a uniform prior, Beta(reached + 1, count - reached + 1).
    """
    a, b = reached + 1, count - reached + 1
    return sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
