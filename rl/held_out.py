"""Accuracy on problems that are not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prm_kit.records import Problem
from rl.rewarding import Verify
from rl.rollouts import Sampler

_OTHER_SEED = 7_919
"""Held-out problems are sampled with random numbers of their own, the same at every evaluation."""


def held_out_accuracy(
    sampler: Sampler, verify: Verify, problems: Sequence[Problem], samples: int
) -> dict[str, list[float]]:
    """Share of right rollouts of each problem, in the order given: "greedy" (0 or 1), and "sampled" of `samples`.

    A rollout that was cut off is wrong, and so is one that nobody can judge.
    """
    sampler = replace(sampler, seed=sampler.seed + _OTHER_SEED)
    found = {}
    for name, n, greedy in (("greedy", 1, True), ("sampled", samples, False)):
        found[name] = [
            sum(one.rollout.finish == "stop" and verify(one.problem, one.solution.completion) is True for one in group)
            / n
            for group in sampler.groups(problems, n, round=0, greedy=greedy)
        ]
    return found
