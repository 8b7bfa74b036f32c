"""The named algorithms, and what a name that several papers use means here.

A bare acronym that the handbook uses (dapo, vapo, srpo, gfpo) is the handbook's; the paper of the same acronym carries
its mechanism. Every other name is its paper's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from prm_kit.errors import unknown_name
from rl import (
    advantages,
    covariance,
    credit,
    filters,
    loss_reduction,
    regularizers,
    rewards,
    surrogates,
)
from rl.algorithms import Algorithm, Critic, Divergence, OnlinePrm, RewardPenalty, with_parts
from rl.handbook import HANDBOOK
from rl.rewards import RewardWeights

_CLIP_HIGHER = partial(surrogates.ppo_clip, high=0.28)
_GRPO: dict[str, Any] = {"estimator": advantages.group_zscore, "surrogate": surrogates.ppo_clip}


def algorithm(name: str, parts: Mapping[str, Any] | None = None) -> Algorithm:
    """A preset, with some parts replaced; see `rl.algorithms.with_parts`.

    Raises:
        UsageError: Unknown preset, part or name, or parts that do not go together.
    """
    if name not in ALGORITHMS:
        raise unknown_name("algorithm", name, ALGORITHMS)
    return with_parts(ALGORITHMS[name], parts or {})


_PRESETS = (
    *HANDBOOK,
    Algorithm(
        "grpo",
        "group z-score of the outcome, token clip, KL to the reference in the loss",
        "2402.03300",
        **_GRPO,
        reduction=loss_reduction.sequence_mean,
        divergence=Divergence(regularizers.k3, 0.04),
        group_size=16,
    ),
    Algorithm(
        "grpo-process",
        "GRPO with process supervision: z-score over all steps of the group, summed to go; length-hackable",
        "2402.03300, section 4.1.3",
        **_GRPO,
        weights=RewardWeights(final=0.0, process=1.0, format=0.0),
        credit=credit.process_supervision,
        process_estimator=advantages.uncentred,
        reduction=loss_reduction.sequence_mean,
        divergence=Divergence(regularizers.k3, 0.04),
        group_size=16,
    ),
    Algorithm(
        "dapo-dynamic",
        "GRPO with clip-higher, dynamic sampling, token-mean loss, soft overlong punishment, no KL",
        "2503.14476",
        estimator=advantages.group_zscore,
        surrogate=_CLIP_HIGHER,
        wrong=-1.0,
        length_penalty=rewards.soft_overlong,
        group_filter=filters.mixed_outcomes,
        group_size=16,
    ),
    Algorithm(
        "vapo-gae",
        "PPO with a pre-trained critic, decoupled length-adaptive GAE, clip-higher, likelihood of right rollouts",
        "2504.05118",
        estimator=advantages.gae_length_adaptive,
        surrogate=_CLIP_HIGHER,
        wrong=-1.0,
        critic=Critic(surrogates.clipped_value_loss, lam=1.0, warm_up=50),
        likelihood_weight=0.1,
        group_size=16,
    ),
    Algorithm(
        "srpo-resample",
        "GRPO without KL, token-mean loss, 0 for cut-off rollouts, problems that all rollouts solved left out",
        "2504.14286",
        **_GRPO,
        finish=advantages.zero_truncated,
        problem_filter=filters.not_solved,
        group_size=32,
    ),
    Algorithm(
        "gfpo-filter",
        "GRPO, with dual clip, on the k shortest rollouts of each group",
        "2508.09726",
        estimator=partial(advantages.group_zscore, ddof=0),
        surrogate=partial(surrogates.ppo_clip, dual=3.0),
        row_filter=filters.shortest,
        divergence=Divergence(regularizers.k3, 0.001),
        entropy_weight=0.001,
        group_size=16,
    ),
    Algorithm(
        "ppo",
        "GAE over tokens with a critic, clip, KL per token in the reward",
        "1707.06347",
        estimator=advantages.gae_tokens,
        finish=advantages.whitened,
        surrogate=surrogates.ppo_clip,
        reward_penalty=RewardPenalty(regularizers.token_k1_reward, 0.05),
        critic=Critic(surrogates.clipped_value_loss, lam=0.95),
        group_size=1,
    ),
    Algorithm(
        "dr-grpo",
        "GRPO without the two biases: no std, a constant for the length, no KL",
        "2503.20783",
        estimator=advantages.group_mean,
        surrogate=surrogates.ppo_clip,
        reduction=loss_reduction.constant_length,
    ),
    Algorithm(
        "rloo",
        "leave-one-out baseline, REINFORCE on whole completions, KL in the reward",
        "2402.14740",
        estimator=advantages.leave_one_out,
        surrogate=surrogates.reinforce,
        reduction=loss_reduction.sequence_sum,
        reward_penalty=RewardPenalty(regularizers.sequence_k1_reward, 0.03),
        group_size=4,
    ),
    Algorithm(
        "reinforce++",
        "no baseline, KL per token in the reward, whitened over the batch's tokens, clip",
        "2501.03262",
        estimator=advantages.whitened,
        surrogate=surrogates.ppo_clip,
        reward_penalty=RewardPenalty(regularizers.token_k1_reward, 0.01),
        group_size=1,
    ),
    Algorithm(
        "reinforce++-baseline",
        "group mean, then whitened over the batch's tokens, clip, k2 in the loss",
        "2501.03262",
        estimator=advantages.group_mean_whitened,
        surrogate=surrogates.ppo_clip,
        divergence=Divergence(regularizers.k2, 0.01),
    ),
    Algorithm(
        "remax",
        "reward minus that of the greedy rollout, REINFORCE",
        "2310.10505",
        estimator=advantages.against_greedy,
        surrogate=surrogates.reinforce,
        reduction=loss_reduction.sequence_sum,
        group_size=1,
    ),
    Algorithm(
        "gspo",
        "GRPO with the geometric mean of a completion's ratios, clipped as a whole",
        "2507.18071",
        estimator=advantages.group_zscore,
        surrogate=surrogates.gspo,
        reduction=loss_reduction.sequence_mean,
    ),
    Algorithm(
        "gmpo",
        "GRPO with the geometric mean of the clipped ratios",
        "2507.20673",
        estimator=advantages.group_zscore,
        surrogate=surrogates.gmpo,
        reduction=loss_reduction.sequence_mean,
    ),
    Algorithm(
        "cispo",
        "GRPO with a capped ratio as a constant weight: every token keeps a gradient",
        "2506.13585",
        estimator=advantages.group_zscore,
        surrogate=surrogates.cispo,
    ),
    Algorithm(
        "sapo",
        "GRPO with a sigmoid gate instead of a clip",
        "2511.20347",
        estimator=advantages.group_zscore,
        surrogate=surrogates.sapo,
        reduction=loss_reduction.sequence_mean,
    ),
    Algorithm(
        "clip-cov",
        "GRPO without KL; some of the tokens on which advantage and log-probability go together do not train",
        "2505.22617",
        **_GRPO,
        finish=covariance.clip_cov,
    ),
    Algorithm(
        "kl-cov",
        "GRPO without clip; the tokens on which advantage and log-probability go together most are held back",
        "2505.22617",
        estimator=advantages.group_zscore,
        surrogate=partial(surrogates.ppo_clip, low=1.0, high=math.inf),
        hold=covariance.Hold(),
    ),
    Algorithm(
        "opo",
        "reward minus the group's mean weighed by length, times log pi, exactly on policy",
        "2505.23585",
        estimator=advantages.length_weighted_mean,
        surrogate=surrogates.reinforce,
        reduction=loss_reduction.sequence_sum,
    ),
    Algorithm(
        "prime",
        "leave-one-out outcome plus implicit process rewards to go, whitened; the PRM learns along",
        "2502.01456",
        weights=RewardWeights(final=1.0, process=1.0, format=0.0),
        estimator=advantages.leave_one_out,
        credit=credit.prime,
        process_estimator=advantages.uncentred,
        finish=advantages.whitened,
        group_filter=filters.accuracy_within,
        surrogate=surrogates.ppo_clip,
        online_prm=OnlinePrm(),
        group_size=4,
    ),
    Algorithm(
        "pure",
        "leave-one-out outcome plus the soft minimum of the step rewards, as its paper has it",
        "2504.15275",
        weights=RewardWeights(final=1.0, process=1.0, format=0.0),
        estimator=advantages.leave_one_out,
        credit=partial(credit.min_form, temperature=0.1),
        process_estimator=advantages.leave_one_out_constant,
        surrogate=surrogates.ppo_clip,
        divergence=Divergence(regularizers.k3, 0.001),
    ),
    Algorithm(
        "rloo-min",
        "leave-one-out outcome plus half of the minimum of the step rewards: the dense preset to start from",
        "2402.14740 and 2504.15275 at temperature 0",
        weights=RewardWeights(final=1.0, process=0.5, format=0.0),
        estimator=advantages.leave_one_out,
        credit=credit.min_form,
        process_estimator=advantages.leave_one_out_constant,
        surrogate=surrogates.ppo_clip,
    ),
)

ALGORITHMS: dict[str, Algorithm] = {preset.name: preset for preset in _PRESETS}

CONTESTED: dict[str, str] = {
    "dapo": "dapo = the handbook's (reward minus group mean); ByteDance's (2503.14476) is dapo-dynamic",
    "vapo": "vapo = the handbook's (mixed baseline of group mean and value); ByteDance's (2504.05118) is vapo-gae",
    "srpo": "srpo = the handbook's (against the reference policy's rollout); Kwai's (2504.14286) is srpo-resample",
    "gfpo": "gfpo = the handbook's fine-grained pairs as printed, gfpo-anchored mended, gfpo-gated for a learned PRM; "
    "Microsoft's filter (2508.09726) is gfpo-filter",
    "prime": "prime = implicit process rewards (2502.01456); prime-rl, the trainer, is something else",
    "grpo": "grpo = 2402.03300 with std and per-token ratio; some libraries call leave-one-out forms grpo",
}
"""Names that mean several things elsewhere -> what they mean here; a run with one of them says so."""
