"""What the rollouts of an update earned: verified outcome, process, format, and whatever else the caller adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from prm_kit.errors import UsageError, unknown_name
from prm_kit.records import Problem
from prm_kit.score import StepScorer, check_scores
from rl.algorithms import Algorithm
from rl.idle_steps import valued
from rl.parts import name_of
from rl.rewards import (
    FORMAT_CHECKS,
    AnswersEqual,
    Composed,
    FormatCheck,
    compose,
    final_rewards,
    format_reward,
    process_reward,
    self_consistency,
)
from rl.rollouts import NotFiniteError, Sampled

Verify = Callable[[Problem, str], bool | None]
"""Whether a completion's final answer is right; None where that cannot be decided."""

Reward = Callable[[Sequence[Sampled]], Sequence[float | None]]
"""A reward of the caller's own: one number a rollout, None where it failed."""

Known = Mapping[str, tuple[float | None, ...]]
"""The scorer's value of each step, by the id of the solution."""


_TAKEN = {
    "final", "process", "format", "length", "update", "part", "alarms", "skipped", "reward", "accuracy",
    "no_signal", "entropy", "kl", "advantage_size", "process_share", "pairs", "sampled", "sampled_tokens",
    "failed", "filtered", "tokens", "steps", "step_tokens", "one_step", "repetition", "self_correction",
    "learning_rate", "loss", "loss_value", "loss_pairs", "gradient_norm", "gradient_norm_value",
    "loss_prm", "accuracy_prm", "gradient_norm_prm",
    "errors", "process_gap", "process_weight", "clip_share", "kl_update",
}  # fmt: skip


SELF_CONSISTENCY = "self-consistency"
"""The process reward that needs no scorer: whether a path is one of the most that end alike."""


def wants_scorer(algorithm: Algorithm, process: str) -> bool:
    """Whether an algorithm is lost without somebody who values steps.

    Raises:
        UsageError: Self-consistency where it says nothing: of single steps, or of a rollout without siblings.
    """
    wanted = "step rewards" in algorithm.needs
    if process != SELF_CONSISTENCY:
        return wanted
    compared = algorithm.needs & {"greedy rollout", "reference rollout"}
    if algorithm.composed_weights.process == 0 or compared:
        why = "compares with a rollout that has no siblings" if compared else "has no reward of whole paths"
        raise UsageError(f"process: {SELF_CONSISTENCY}: algorithm {algorithm.name} {why}")
    return name_of(algorithm.row_filter) == "step_quality_per_token"


@dataclass(frozen=True)
class Rewarded:
    """What some rollouts earned, one entry each.

    Attributes:
        composed: The reward and its parts.
        correct: Whether the final answer is right; False where the completion was cut off; None: no verdict.
        step_values: The scorer's value of each step, in [-1, 1]; None where it abstained. Empty without a scorer.
    """

    composed: Composed
    correct: tuple[bool | None, ...]
    step_values: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Rewarding:
    """Who rewards, and how.

    Attributes:
        algorithm: Its weights say what counts.
        verify: Judges final answers.
        max_new_tokens: For penalties of length.
        scorer: Judges steps; None: nobody does.
        process: "mean" or "min", see `process_reward`; or "self-consistency", see there.
        format_checks: Names in `FORMAT_CHECKS`.
        more: Rewards of the caller's own by name, each with its weight.
        agree: Whether two answers are the same, for self-consistency.
    """

    algorithm: Algorithm
    verify: Verify
    max_new_tokens: int
    scorer: StepScorer | None = None
    process: str = "mean"
    format_checks: Sequence[str] = ()
    more: Mapping[str, tuple[float, Reward]] = field(default_factory=dict)
    agree: AnswersEqual | None = None

    def __post_init__(self) -> None:
        if wants_scorer(self.algorithm, self.process) and self.scorer is None:
            raise UsageError(f"algorithm {self.algorithm.name} wants step rewards: name a PRM (--prm PATH|URL)")
        if self.process == SELF_CONSISTENCY and self.agree is None:
            raise UsageError(f"process: {SELF_CONSISTENCY}: needs `agree`, which says whether two answers are the same")
        for name in self.format_checks:
            if name not in FORMAT_CHECKS:
                raise unknown_name("format check", name, FORMAT_CHECKS)
        if self.algorithm.weights.format > 0 and not self.format_checks:
            raise UsageError(f"a format reward needs format_checks: {', '.join(FORMAT_CHECKS)}")
        for name in self.more:
            if name in _TAKEN:
                raise UsageError(f"a reward of your own cannot be called {name!r}: metrics.jsonl has that already")

    def inversion(self) -> str | None:
        """How a tidy wrong answer could beat a sloppy right one with these weights; None: it cannot."""
        return self.algorithm.composed_weights.inversion(self.algorithm.wrong)

    def rewards(self, rollouts: Sequence[Sampled], known: Known | None = None) -> Rewarded:
        """Reward rollouts of any number of groups; groups are whole.

        Args:
            rollouts: All of each group.
            known: Step values by solution id, so that what was scored is not scored again.

        Raises:
            InputError: The scorer's answers cannot be right, or a reward is not finite (`NotFiniteError`).
            UsageError: The scorer's answers are unbounded.
        """
        algorithm = self.algorithm
        truncated = [one.rollout.finish == "length" for one in rollouts]
        correct = [
            False if cut else self.verify(one.problem, one.solution.completion)
            for one, cut in zip(rollouts, truncated, strict=True)
        ]
        values = self.step_values(rollouts, known)
        weights = algorithm.composed_weights
        parts: dict[str, Sequence[float | None]] = {"final": final_rewards(correct, truncated, algorithm.wrong)}
        used = {"final": weights.final}
        if weights.process > 0 and self.process == SELF_CONSISTENCY:
            parts["process"], used["process"] = self._agreement(rollouts), weights.process
        elif weights.process > 0:
            # A completion that the scorer abstains from has no reward.
            parts["process"] = [process_reward(one, self.process) for one in values]
            used["process"] = weights.process
        if weights.format > 0:
            checks: list[FormatCheck] = [FORMAT_CHECKS[name] for name in self.format_checks]
            parts["format"] = [format_reward(one.solution, checks) for one in rollouts]
            used["format"] = weights.format
        if algorithm.length_penalty is not None:
            lengths, groups = [one.length for one in rollouts], [one.group for one in rollouts]
            parts["length"] = algorithm.length_penalty(lengths, correct, groups, self.max_new_tokens)
            used["length"] = 1.0
        for name, (weight, reward) in self.more.items():
            parts[name], used[name] = reward(rollouts), weight
            values_of = zip(rollouts, parts[name], strict=False)  # `compose` refuses another number of values
            if bad := [one for one, value in values_of if value is not None and not math.isfinite(value)]:
                raise NotFiniteError(f"reward {name} is not finite for {len(bad)} of {len(rollouts)} rollouts", bad)
        return Rewarded(compose(parts, used), tuple(correct), tuple(values))

    def _agreement(self, rollouts: Sequence[Sampled]) -> list[float | None]:
        """Of each rollout whether the most of its group answer as it does; one that was cut off has no answer."""
        assert self.agree is not None
        places: dict[int, list[int]] = {}
        for place, one in enumerate(rollouts):
            places.setdefault(one.group, []).append(place)
        found: list[float | None] = [None] * len(rollouts)
        for members in places.values():
            of = [rollouts[place] for place in members]
            answers = [None if one.rollout.finish == "length" else one.solution.final_answer for one in of]
            for place, agreed in zip(members, self_consistency(answers, self.agree), strict=True):
                found[place] = agreed
        return found

    def step_values(self, rollouts: Sequence[Sampled], known: Known | None = None) -> list[tuple[float | None, ...]]:
        """The scorer's value of each step of each rollout, in [-1, 1]; None where it abstained or the step is idle.

        () without a scorer, and (-1,) of a completion that says nothing: see `rl.idle_steps`.

        Raises:
            InputError: The scorer's answers cannot be right.
            UsageError: They are unbounded.
        """
        if self.scorer is None:
            return [()] * len(rollouts)
        # The same completion is scored once, however often it was sampled.
        found = dict(known or {})
        distinct = {
            one.solution.id: one.solution for one in rollouts if one.solution.spans and one.solution.id not in found
        }
        asked = list(distinct.values())
        scores = self.scorer.score(asked) if asked else []
        check_scores(asked, scores)
        if any(not one.is_bounded for one in scores):
            raise UsageError(f"{self.scorer.name} gives unbounded scores: they cannot be weighed against an outcome")
        found |= {solution.id: one.values for solution, one in zip(asked, scores, strict=True)}
        return [valued(one.solution, found.get(one.solution.id, ())) for one in rollouts]
