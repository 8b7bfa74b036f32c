"""Evaluations during a run: accuracy on problems that are not trained on, and how much the PRM likes what it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from statistics import fmean, stdev
from typing import Any

from prm_kit.records import Problem
from rl.rewarding import Rewarding
from rl.rewards import process_reward
from rl.rollouts import Sampler

_OTHER_SEED = 7_919
"""Held-out problems are sampled with random numbers of their own, the same at every evaluation."""

Figures = dict[str, list[float | None]]
"""Per figure one number for each problem, in the order given."""


def held_out_figures(
    sampler: Sampler,
    rewarding: Rewarding,
    problems: Sequence[Problem],
    samples: int,
    turns: Sequence[int] | None = None,
) -> Figures:
    """Measure a policy.

    Args:
        sampler: Asks the policy.
        rewarding: Verifies, and where it has a scorer judges steps.
        problems: P of them.
        samples: Sampled rollouts of each, beside a greedy one.
        turns: How often each was asked before, where others are asked apart; see `Sampler.groups`.

    Returns:
        Lists of P numbers in [0, 1]: "greedy" (0 or 1), "sampled" (share of right rollouts) and, with a scorer,
        "process": mean process reward of the sampled rollouts that it judges, None where it judges none. A rollout that
        was cut off is wrong, and so is one that nobody can judge.
    """
    sampler = replace(sampler, seed=sampler.seed + _OTHER_SEED)
    found: Figures = {}
    for name, n, greedy in (("greedy", 1, True), ("sampled", samples, False)):
        groups = sampler.groups(problems, n, round=0, greedy=greedy, turns=turns)
        found[name] = [
            sum(
                one.rollout.finish == "stop" and rewarding.verify(one.problem, one.solution.completion) is True
                for one in group
            )
            / n
            for group in groups
        ]
    if rewarding.scorer is not None:  # of the sampled ones, which came last
        how = "min" if rewarding.process == "min" else "mean"
        rewards = (process_reward(values, how) for values in rewarding.step_values([*chain(*groups)]))
        found["process"] = [_mean([next(rewards) for _ in group]) for group in groups]
    return found


def held_out_line(found: Mapping[str, Sequence[float | None]], best: Mapping[str, Any] | None) -> dict[str, Any]:
    """A line of metrics.jsonl about an evaluation.

    Args:
        found: What `held_out_figures` returned.
        best: What it returned of the evaluation that was best so far; None: this is the first.

    Returns:
        A mean of each figure, sampled_error (its standard error over problems), and, against the best so far,
        sampled_fall (positive: it was better) with sampled_fall_error, each problem compared with itself. The spread of
        the falls is taken as if two problems more had gone half the way, one up and one down: a few that fell alike by
        chance are no certainty.
    """
    line: dict[str, Any] = {name: _mean(values) for name, values in found.items()}
    sampled = [value for value in found["sampled"] if value is not None]
    line["sampled_error"] = _error(sampled)
    if best is not None:
        falls = [before - now for before, now in zip(best["sampled"], sampled, strict=True)]
        n, fall = len(falls), fmean(falls)
        squares = sum((one - fall) ** 2 for one in falls) + 2 * 0.5**2
        line["sampled_fall"], line["sampled_fall_error"] = fall, (squares / (n + 1) / n) ** 0.5 if n > 1 else None
    return line


def better(found: Mapping[str, Any], best: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Of two evaluations the one with the higher sampled accuracy."""
    return found if best is None or fmean(found["sampled"]) > fmean(best["sampled"]) else best


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _error(values: Sequence[float]) -> float | None:
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
