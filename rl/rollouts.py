"""Problems in, groups of rollouts out: sampled, split into steps, every token told which step it belongs to."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prm_kit.answer_text import extract_final_answer
from prm_kit.engines.engine import Engine, Limits, Rollout, generate_anew
from prm_kit.errors import InputError, UsageError
from prm_kit.records import Problem, Solution
from prm_kit.split import split, split_solution

if TYPE_CHECKING:
    from prm_kit.policy import Policy


@dataclass(frozen=True)
class Sampled:
    """One rollout of a problem.

    Attributes:
        group: Number of its problem within the update.
        problem: The problem.
        prompt: Token ids that it was asked with.
        rollout: What the policy wrote.
        solution: The same as text, split into steps; it may have none.
        step_of_token: Per token of the rollout the 0-based step that it belongs to.
    """

    group: int
    problem: Problem
    prompt: tuple[int, ...]
    rollout: Rollout
    solution: Solution
    step_of_token: tuple[int, ...]


class NotFiniteError(InputError):
    """A reward, a loss or a gradient is not finite.

    Attributes:
        rollouts: What it was computed from.
    """

    def __init__(self, reason: str, rollouts: Sequence[Sampled]) -> None:
        super().__init__(reason)
        self.rollouts = rollouts


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

    def groups(self, problems: Sequence[Problem], n: int, *, round: int, greedy: bool = False) -> list[list[Sampled]]:
        """Sample `n` rollouts of every problem.

        Args:
            problems: One group each; a problem that stands there twice is sampled anew each time.
            n: Rollouts of a group.
            round: Number of the update, so that a problem that comes again is answered anew.
            greedy: Take the likeliest tokens instead of sampling.
        """
        prompts = self.policy.prompt_ids([problem.text for problem in problems])
        # A round has random numbers of its own, whatever was sampled before: a resumed run samples the same.
        seed = self.seed * 1_000_003 + round
        limits = Limits(self.max_new_tokens, self.policy.stop_ids, 0.0 if greedy else self.temperature, seed)
        found = generate_anew(self.engine, prompts, n, limits)
        return [
            [self._sampled(group, problem, tuple(prompt), rollout) for rollout in rollouts]
            for group, (problem, prompt, rollouts) in enumerate(zip(problems, prompts, found, strict=True))
        ]

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
