"""Rewards and returns along a row: sums to go, generalised advantage estimation, what a critic learns.

Holes are skipped: the successor of a token is the next token that the policy wrote. B sequences, T tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Packed(NamedTuple):
    """Values moved to the left over the marked positions, so that neighbours are neighbours.

    Attributes:
        values: (B, N), 0 where not marked.
        marked: (B, N) bool, a run of True from the left.
        order: (B, N) int64, where each came from.
    """

    values: Tensor
    marked: Tensor
    order: Tensor


def packed(values: Tensor, marked: Tensor) -> Packed:
    """Pack (B, N) values over the marked positions, in float64."""
    order = torch.argsort((~marked).to(torch.uint8), dim=1, stable=True)
    marked_left = marked.gather(1, order)
    return Packed(torch.where(marked_left, values.gather(1, order), 0.0).double(), marked_left, order)


def unpacked(values: Tensor, like: Packed) -> Tensor:
    """Put (B, N) values back to where they came from; 0 where nothing was marked."""
    return torch.zeros_like(values).scatter(1, like.order, torch.where(like.marked, values, 0.0))


def sums_to_go(values: Tensor, gamma: float = 1.0) -> Tensor:
    """G_k = sum_{j >= k} gamma^(j - k) values_j along the second dimension."""
    if gamma == 1.0:
        return values.flip(1).cumsum(1).flip(1)
    out = torch.empty_like(values)
    following = torch.zeros_like(values[:, 0])
    for k in range(values.shape[1] - 1, -1, -1):
        following = out[:, k] = values[:, k] + gamma * following
    return out


def increments(to_go: Tensor) -> Tensor:
    """The values whose (undiscounted) sum to go is `to_go`: G_k - G_{k+1}, with 0 after the end."""
    return to_go - torch.cat([to_go[:, 1:], torch.zeros_like(to_go[:, :1])], dim=1)


def gae(rewards: Tensor, values: Tensor, gamma: float, lam_B: Tensor) -> Tensor:
    """A_k = delta_k + gamma lambda A_{k+1}, delta_k = r_k + gamma V_{k+1} - V_k, V = 0 after the end (1506.02438).

    Args:
        rewards: (B, N), packed to the left, 0 after the end.
        values: (B, N) value before each position, packed alike.
        gamma: Discount of one position.
        lam_B: Lambda of each row.
    """
    out = torch.empty_like(rewards)
    following_value = torch.zeros_like(rewards[:, 0])
    following = torch.zeros_like(rewards[:, 0])
    for k in range(rewards.shape[1] - 1, -1, -1):
        delta = rewards[:, k] + gamma * following_value - values[:, k]
        following = out[:, k] = delta + gamma * lam_B * following
        following_value = values[:, k]
    return out


def generalised_advantages(
    credit_BT: Tensor, values_BT: Tensor, counted_BT: Tensor, gamma: float, lam_B: Tensor
) -> Tensor:
    """GAE over the counted tokens of rewards whose sum to go is the credit: float64 (B, T), 0 elsewhere."""
    credit = packed(credit_BT, counted_BT)
    values = packed(values_BT, counted_BT)
    return unpacked(gae(increments(credit.values), values.values, gamma, lam_B), credit)


def critic_targets(
    credit_BT: Tensor, values_BT: Tensor, counted_BT: Tensor, *, gamma: float = 1.0, lam: float = 1.0
) -> Tensor:
    """What the critic regresses on: the lambda-return A + V, before any whitening; float32, 0 where not counted.

    Lambda 1 without discount is the credit itself (Monte Carlo), the unbiased target of decoupled GAE (2504.05118).
    """
    lam_B = torch.full((len(credit_BT),), lam, dtype=torch.float64, device=credit_BT.device)
    advantage_BT = generalised_advantages(credit_BT, values_BT, counted_BT, gamma, lam_B)
    return torch.where(counted_BT, advantage_BT + values_BT.double(), 0.0).float().detach()
