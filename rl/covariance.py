"""Tokens on which advantage and log-probability go together: they are what drives the entropy of the policy down.

Clip-Cov and KL-Cov (2505.22617). Cov_t = (A_t - mean A) (log pi_old_t - mean log pi_old), the means over all tokens of
the update. The papers' code takes the log-probabilities of the policy that learns, micro-batch by micro-batch; here
they are the old ones, which are the same at the first step, so that how an update is cut changes nothing.
B sequences, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prm_kit.errors import UsageError
from rl.batch import Batch


@dataclass(frozen=True)
class Hold:
    """KL-Cov: the tokens that are held back, and how much.

    Attributes:
        share: Of all tokens, those of the largest covariance; at least one.
        weight: Of |log pi - log pi_old| in their loss.
    """

    share: float = 2e-3
    weight: float = 1.0


def covariances(advantage_BT: Tensor, counted_BT: Tensor, batch: Batch) -> Tensor:
    """Cov_t, float64 (B, T), 0 where not counted."""
    old_BT = batch.need("old_BT", "covariance")
    trained_BT = counted_BT & batch.trained_B[:, None]
    count = trained_BT.sum().clamp(min=1)
    centred = []
    for values_BT in (advantage_BT, old_BT):
        values_BT = torch.where(trained_BT, values_BT, 0.0).double()
        centred.append(torch.where(trained_BT, values_BT - values_BT.sum() / count, 0.0))
    return centred[0] * centred[1]


def clip_cov(
    advantage_BT: Tensor,
    counted_BT: Tensor,
    batch: Batch,
    *,
    low: float = 1.0,
    high: float = 5.0,
    share: float = 2e-4,
    seed: int = 0,
) -> Tensor:
    """The advantages, 0 for `share` of all tokens (at least one), drawn among those with low < Cov < high: Clip-Cov.

    A token without advantage has no gradient, and at the start of an update no token is clipped.
    """
    if low >= high:
        raise UsageError(f"clip_cov: low is {low}; it must be below high, {high}")
    found_BT = covariances(advantage_BT, counted_BT, batch)
    place_N = torch.nonzero(((found_BT > low) & (found_BT < high)).flatten()).flatten()
    n = _number(share, counted_BT & batch.trained_B[:, None])
    drawn = torch.randperm(len(place_N), generator=torch.Generator().manual_seed(seed))[:n]
    kept = advantage_BT.clone().flatten()
    kept[place_N[drawn.to(place_N.device)]] = 0.0
    return kept.view_as(advantage_BT)


def held_back(hold: Hold, advantage_BT: Tensor, counted_BT: Tensor, batch: Batch) -> Tensor:
    """Bool (B, T): the tokens of the largest covariance, which KL-Cov holds back."""
    trained_BT = counted_BT & batch.trained_B[:, None]
    found_BT = covariances(advantage_BT, counted_BT, batch).masked_fill(~trained_BT, -torch.inf)
    n = min(_number(hold.share, trained_BT), int(trained_BT.sum()))
    held = torch.zeros(found_BT.numel(), dtype=torch.bool, device=found_BT.device)
    held[torch.topk(found_BT.flatten(), n).indices] = True
    return held.view_as(trained_BT)


def _number(share: float, counted_BT: Tensor) -> int:
    return max(1, int(share * int(counted_BT.sum())))
