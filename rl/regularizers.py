"""Divergence from the reference policy, and entropy.

As a reward (a constant that the credit loses) k1 is right. In the loss k2 has the gradient of KL(pi || reference) on
policy; k1 has none in expectation, and k3 as GRPO has it descends the other KL.
B sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rl.returns import packed, sums_to_go, unpacked
from rl.surrogates import log_ratio

Divergence = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(new_BT, reference_BT, mask_BT) -> estimate of KL(pi || reference) per token, 0 where the mask is False."""

RewardPenalty = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(old_BT, reference_BT, mask_BT) -> what the credit of each token loses per unit of weight; a constant."""


def k1(new_BT: Tensor, reference_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Log pi - log reference: unbiased; its gradient in a loss is 0 in expectation."""
    return log_ratio(new_BT, reference_BT, mask_BT)


def k2(new_BT: Tensor, reference_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """(log pi - log reference)^2 / 2: biased, but its gradient on policy is that of KL(pi || reference)."""
    return log_ratio(new_BT, reference_BT, mask_BT) ** 2 / 2


def k3(new_BT: Tensor, reference_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The excess r - log r - 1, r = reference / pi: unbiased and never negative; GRPO (2402.03300)."""
    difference_BT = log_ratio(new_BT, reference_BT, mask_BT)
    return torch.expm1(-difference_BT) + difference_BT


def sequence_k1_reward(old_BT: Tensor, reference_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum of the row's k1 at every token: the penalty inside the reward of RLOO (2402.14740)."""
    total_B1 = k1(old_BT, reference_BT, mask_BT).sum(1, keepdim=True)
    return torch.where(mask_BT, total_B1, 0.0).detach()


def token_k1_reward(old_BT: Tensor, reference_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum of k1 from the token on: a penalty per token, as credit (PPO; REINFORCE++, 2501.03262)."""
    tokens = packed(k1(old_BT, reference_BT, mask_BT), mask_BT)
    return unpacked(sums_to_go(tokens.values), tokens).float().detach()


DIVERGENCES: dict[str, Divergence] = {"k1": k1, "k2": k2, "k3": k3}

REWARD_PENALTIES: dict[str, RewardPenalty] = {
    "sequence_k1_reward": sequence_k1_reward,
    "token_k1_reward": token_k1_reward,
}
