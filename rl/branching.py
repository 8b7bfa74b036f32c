"""Branching rollouts: some rollouts of a problem, the roots, are continued anew from the end of one of their steps.

What shares a prefix is a group of its own, as if the prefix belonged to the problem: its branches, and for pairs the
root's own continuation. So no token of a prefix is trained by a branch, siblings are compared with siblings, and the
roots, which alone are independent samples of the problem, keep their group, their baseline and their figures. On the
policy-gradient route the root's continuation stays out of the siblings' mean: where it was left was chosen by looking
at it. T generated tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import Any

import torch

from prm_kit.batching import micro_batches
from prm_kit.errors import UsageError
from rl.algorithms import Algorithm
from rl.parts import name_of
from rl.policy_model import Rows, log_probabilities_and_entropies
from rl.rollouts import Sampled
from rl.train_settings import Branching

_POOLING = ("whitened",)
"""Estimators whose baseline is the mean over all groups."""


def check_branching(branching: Branching, algorithm: Algorithm, *, group_size: int | None, scored: bool) -> None:
    """Refuse what branches are no good for.

    Args:
        branching: How many.
        algorithm: What learns from them.
        group_size: Rollouts of a problem as asked for; None: not asked for.
        scored: Whether a scorer judges steps.

    Raises:
        UsageError: The numbers do not add up, a part of the algorithm cannot use branches, or nobody values steps.
    """
    who = f"branching: algorithm {algorithm.name}"
    roots, branches = branching.roots, branching.branches
    if group_size is not None and group_size != branching.rollouts:
        raise UsageError(
            f"branching: {roots} roots with {branches} branches each are {branching.rollouts} rollouts of a problem; "
            f"group_size is {group_size}"
        )
    if branching.at == "value" and not scored:
        raise UsageError("branching.at: value: nobody values the steps; name a PRM, or branch at random or entropy")
    if compared := algorithm.needs & {"greedy rollout", "reference rollout"}:
        raise UsageError(f"{who} compares with a {', '.join(compared)} of the problem; a branch answers a prefix")
    if name_of(algorithm.estimator) in _POOLING:
        raise UsageError(
            f"{who}: {name_of(algorithm.estimator)} centres over all rollouts of the update, and branches start where "
            "roots went wrong: take an estimator that centres within a group"
        )
    alone = algorithm.critic is not None or name_of(algorithm.estimator) == "uncentred"
    if algorithm.estimator is not None and not alone and min(roots, branches) < 2:
        raise UsageError(
            f"{who} compares roots with roots and siblings with siblings: at least 2 roots and 2 branches are needed, "
            f"not {roots} and {branches}"
        )


def places(root: Sampled) -> list[tuple[int, int]]:
    """Where a rollout can be left: (step, tokens before it) of every step but the first that owns a token."""
    steps = root.step_of_token
    return [(steps[token], token) for token in range(1, len(steps)) if steps[token] != steps[token - 1]]


def left_at_random(root: Sampled, seed: int) -> int:
    """How many tokens to keep: the end of any step but the last, by seed and rollout; 0 where there is but one."""
    found = places(root)
    if not found:
        return 0
    return Random(f"branch {seed} {root.prompt} {root.rollout.ids}").choice(found)[1]  # noqa: S311


def left_before_lowest(root: Sampled, values: Sequence[float | None], seed: int) -> int:
    """How many tokens to keep: all before the step of the lowest value, the first of several; never the first step.

    Args:
        root: The rollout.
        values: Of its steps; None where the scorer abstained. Where it always did, the place is drawn.
        seed: Of the draw.
    """
    judged = [(value, token) for step, token in places(root) if (value := values[step]) is not None]
    return min(judged)[1] if judged else left_at_random(root, seed)


def left_before_uncertain(root: Sampled, entropies_T: Sequence[float]) -> int:
    """How many tokens to keep: all before the step that holds the token of the highest entropy; never the first step.

    The highest and not the mean: a step is uncertain by its one decision, however many words it is wrapped in.
    """
    bounds = [*(token for _, token in places(root)), len(root.step_of_token)]
    return min(((-max(entropies_T[start:end]), start) for start, end in pairwise(bounds)), default=(0.0, 0))[1]


def entropies_of(policy: Any, rollouts: Sequence[Sampled], micro_batch_tokens: int) -> list[list[float]]:
    """The policy's entropy in nats where it chose each token of each rollout: one pass over what is written."""
    found: list[list[float]] = [[] for _ in rollouts]
    lengths = [len(one.prompt) + len(one.rollout.ids) for one in rollouts]
    was_training = policy.training
    policy.eval()
    try:
        with torch.no_grad():
            for members in micro_batches(range(len(rollouts)), lengths, micro_batch_tokens):
                chosen = [rollouts[i] for i in members]
                width = max(len(one.rollout.ids) for one in chosen)
                _, entropy_BT = log_probabilities_and_entropies(policy, Rows(chosen, width, policy.device))
                for i, one, entropy_T in zip(members, chosen, entropy_BT.tolist(), strict=True):
                    found[i] = entropy_T[: len(one.rollout.ids)]
    finally:
        policy.train(was_training)
    return found
