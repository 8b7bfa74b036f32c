"""The algorithms of the source handbook, and `gfpo-anchored`, the form of its pair loss that is to be used.

Their rewards are its R = 1.0 final + 0.5 process + 0.2 format, with the process reward mapped to [0, 1].
"""

from __future__ import annotations

from functools import partial

from rl import advantages, loss_reduction, pair_losses, pairs, surrogates
from rl.algorithms import Algorithm, Critic, Pairs
from rl.rewards import RewardWeights

_WEIGHTS = RewardWeights()

HANDBOOK = (
    Algorithm(
        "dapo",
        "reward minus the group's mean, times log pi",
        "handbook",
        weights=_WEIGHTS,
        estimator=advantages.group_mean,
        surrogate=surrogates.reinforce,
        reduction=loss_reduction.sequence_sum,
    ),
    Algorithm(
        "vapo",
        "reward minus a blend of the group's mean and the value of the problem, times log pi",
        "handbook",
        weights=_WEIGHTS,
        estimator=advantages.mixed_baseline,
        surrogate=surrogates.reinforce,
        reduction=loss_reduction.sequence_sum,
        critic=Critic(partial(surrogates.clipped_value_loss, limit=None)),
    ),
    Algorithm(
        "srpo",
        "reward minus that of the reference policy's own rollout, times log pi",
        "handbook",
        weights=_WEIGHTS,
        estimator=advantages.against_reference,
        surrogate=surrogates.reinforce,
        reduction=loss_reduction.sequence_sum,
    ),
    Algorithm(
        "srpo-pairs",
        "right against wrong completions, -log sigmoid of the difference of their log-ratios to the reference",
        "handbook",
        weights=_WEIGHTS,
        pairs=Pairs(pairs.success_failure, pair_losses.srpo),
    ),
    Algorithm(
        "gfpo",
        "all ranked pairs, -log sigmoid of the difference of their log-probabilities, as printed",
        "handbook",
        weights=_WEIGHTS,
        pairs=Pairs(pairs.ranked, pair_losses.gfpo),
    ),
    Algorithm(
        "gfpo-anchored",
        "pairs that begin alike; per token after the fork, against the old policy, weighed by the gap of rewards",
        "handbook, corrected",
        weights=_WEIGHTS,
        pairs=Pairs(partial(pairs.prefix_sharing, eps=0.05), pair_losses.gfpo_anchored),
    ),
    Algorithm(
        "gfpo-gated",
        "right against wrong where the PRM agrees with both; the wrong one is lowered only at its first wrong step",
        "handbook, with outcome and PRM as gates",
        weights=RewardWeights(final=1.0, process=0.5, format=0.0),
        pairs=Pairs(pairs.first_wrong_step, pair_losses.gfpo_gated),
    ),
)
