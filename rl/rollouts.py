"""Problems in, groups of rollouts out: sampled, split into steps, every token told which step it belongs to."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prm_kit.answer_text import extract_final_answer
from prm_kit.engines.engine import Engine, Limits, Rollout, generate_anew
from prm_kit.errors import InputError, UsageError
from prm_kit.records import Problem, Solution
from prm_kit.split import split, split_solution

if TYPE_CHECKING:
    from prm_kit.policy import Policy

_BRANCH_SEED = 2**39
"""A branch from the very beginning would else say what the root says."""


@dataclass(frozen=True)
class Sampled:
    """One rollout of a problem, or of a prefix of another rollout: a branch.

    Attributes:
        group: Number of its problem (or prefix) within the update.
        problem: The problem.
        prompt: Token ids that it was asked with, the prefix included.
        rollout: What the policy wrote.
        solution: The whole completion as text, split into steps; it may have none.
        step_of_token: Per token of the rollout the 0-based step of the solution that it belongs to.
        prefix: How many of the prompt's last tokens belong to the completion already; None: it is no branch.
    """

    group: int
    problem: Problem
    prompt: tuple[int, ...]
    rollout: Rollout
    solution: Solution
    step_of_token: tuple[int, ...]
    prefix: int | None = None

    @property
    def length(self) -> int:
        """Tokens of the whole completion."""
        return len(self.rollout.ids) + (self.prefix or 0)

    def tail(self, start: int) -> Sampled:
        """The same completion as a continuation of its own first `start` tokens."""
        rest = Rollout(self.rollout.ids[start:], self.rollout.log_probabilities[start:], self.rollout.finish)
        prompt = (*self.prompt, *self.rollout.ids[:start])
        return replace(self, prompt=prompt, rollout=rest, step_of_token=self.step_of_token[start:], prefix=start)


class NotFiniteError(InputError):
    """A reward, a loss or a gradient is not finite.

    Attributes:
        rollouts: What it was computed from.
    """

    def __init__(self, reason: str, rollouts: Sequence[Sampled]) -> None:
        super().__init__(reason)
        self.rollouts = rollouts

    def __reduce__(self) -> tuple[type[NotFiniteError], tuple[str, list[Sampled]]]:
        return type(self), (str(self), list(self.rollouts))  # to be told to other processes


def check_finite(rollouts: Sequence[Sampled]) -> None:
    """Refuse rollouts of a policy whose weights are no numbers any more.

    Raises:
        NotFiniteError: A log-probability that was sampled with is not finite.
    """
    bad = [one for one in rollouts if not all(map(math.isfinite, one.rollout.log_probabilities))]
    if bad:
        raise NotFiniteError(
            f"the policy's log-probabilities are not finite in {len(bad)} of {len(rollouts)} rollouts", bad
        )


@dataclass(frozen=True)
class Sampler:
    """Samples groups of one policy.

    Attributes:
        policy: Encodes problems and reads rollouts; training it changes what is sampled.
        engine: Samples from it.
        split: How completions are split into steps: a name of `prm_kit.split`.
        max_new_tokens: Most tokens of a rollout.
        temperature: Of the sampling.
        seed: Of the run.
    """

    policy: Policy
    engine: Engine
    split: str
    max_new_tokens: int
    temperature: float = 1.0
    seed: int = 0

    def check(self, problems: Sequence[Problem]) -> None:
        """Refuse, before a run, problems that the policy has no room for, and a way to split that does not exist.

        Raises:
            UsageError: Naming the problem, or the ways to split.
        """
        split("", self.split)
        context = getattr(self.policy.model.config, "max_position_embeddings", None)
        for problem, prompt in zip(problems, self.policy.prompt_ids([one.text for one in problems]), strict=True):
            if context is not None and len(prompt) + self.max_new_tokens > context:
                raise UsageError(
                    f"problem {problem.text[:60]!r} has {len(prompt)} tokens; with max_new_tokens "
                    f"{self.max_new_tokens} that is more than the policy's context of {context}"
                )

    def groups(
        self,
        problems: Sequence[Problem],
        n: int,
        *,
        round: int,
        greedy: bool = False,
        turns: Sequence[int] | None = None,
    ) -> list[list[Sampled]]:
        """Sample `n` rollouts of every problem.

        Args:
            problems: One group each; a problem that stands there twice is sampled anew each time.
            n: Rollouts of a group.
            round: Number of the update, so that a problem that comes again is answered anew.
            greedy: Take the likeliest tokens instead of sampling.
            turns: How often each problem was asked in this round before, where others of the round are asked apart.
        """
        prompts = self.policy.prompt_ids([problem.text for problem in problems])
        limits = self._limits(self.max_new_tokens, round, greedy)
        found = generate_anew(self.engine, prompts, n, limits, turns)
        return [
            [self._sampled(group, problem, tuple(prompt), rollout) for rollout in rollouts]
            for group, (problem, prompt, rollouts) in enumerate(zip(problems, prompts, found, strict=True))
        ]

    def continued(
        self, roots: Sequence[Sampled], starts: Sequence[int], n: int, *, round: int, turns: Sequence[int]
    ) -> list[list[Sampled]]:
        """Sample `n` branches of every root: other continuations of its first tokens, none longer than it may be.

        Args:
            roots: Rollouts of problems.
            starts: How many tokens of each root its branches keep, less than it has; 0 is the problem anew.
            n: Branches of a root.
            round: Number of the update; branches have random numbers of their own.
            turns: How often each (prompt, prefix) was continued in this round before.
        """
        prefixes = [(*root.prompt, *root.rollout.ids[:start]) for root, start in zip(roots, starts, strict=True)]
        left = [self.max_new_tokens - start for start in starts]
        context = getattr(self.policy.model.config, "max_position_embeddings", None) or math.inf
        # Prefixes are continued together as far as the longest continuation among them leaves all in the context.
        parts: list[list[int]] = []
        for place in sorted(range(len(roots)), key=lambda place: -left[place]):
            if parts and len(prefixes[place]) + left[parts[-1][0]] <= context:
                parts[-1].append(place)
            else:
                parts.append([place])
        found: list[list[Sampled]] = [[] for _ in roots]
        for part in parts:
            limits = self._limits(left[part[0]], round, greedy=False)
            limits = replace(limits, seed=limits.seed + _BRANCH_SEED)
            asked = [prefixes[place] for place in part]
            continued = generate_anew(self.engine, asked, n, limits, [turns[place] for place in part])
            for place, rollouts in zip(part, continued, strict=True):
                root, start = roots[place], starts[place]
                found[place] = [self._branch(root, start, _cut(one, left[place])) for one in rollouts]
        return found

    def _limits(self, tokens: int, round: int, greedy: bool) -> Limits:
        # A round has random numbers of its own, whatever was sampled before: a resumed run samples the same.
        seed = self.seed * 1_000_003 + round
        return Limits(tokens, self.policy.stop_ids, 0.0 if greedy else self.temperature, seed)

    def _branch(self, root: Sampled, start: int, own: Rollout) -> Sampled:
        ids = (*root.rollout.ids[:start], *own.ids)
        log_probabilities = (*root.rollout.log_probabilities[:start], *own.log_probabilities)
        whole = Rollout(ids, log_probabilities, own.finish)
        return self._sampled(root.group, root.problem, root.prompt, whole).tail(start)

    def _sampled(self, group: int, problem: Problem, prompt: tuple[int, ...], rollout: Rollout) -> Sampled:
        completion = self.policy.text(rollout)
        solution = split_solution(
            problem.text,
            completion,
            self.split,
            attached=False,
            final_answer=extract_final_answer(completion),
            reference_answer=problem.reference_answer,
            generator="policy",
        )
        written = rollout.ids[:-1] if rollout.finish == "stop" else rollout.ids
        ends = self.policy.token_ends(written)
        steps = steps_of_tokens(solution, ends)
        if rollout.finish == "stop":
            steps.append(steps[-1] if steps else 0)
        return Sampled(group, problem, prompt, rollout, solution, tuple(steps))


def _cut(rollout: Rollout, most: int) -> Rollout:
    """The first `most` tokens: what the limit would have left of it."""
    if len(rollout.ids) <= most:
        return rollout
    return Rollout(rollout.ids[:most], rollout.log_probabilities[:most], "length")


def steps_of_tokens(solution: Solution, ends: Sequence[int]) -> list[int]:
    """The step that each token belongs to.

    A token belongs to the last step that has begun once the token is written: what stands between two steps belongs to
    the one before it, a token that reaches into the next step to the next, and what precedes the first to the first.

    Args:
        solution: The completion with its steps.
        ends: Characters of the completion that are written after each token.
    """
    starts = [start for start, _ in solution.spans[1:]]
    return [bisect_left(starts, end) for end in ends]
