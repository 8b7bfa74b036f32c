"""Masked means over rows and over the groups of rows: what every group-relative estimator is made of.

In float64 throughout, so that a group of equal rewards is centred to nothing and not to rounding noise that a division
by its own spread would blow up. B sequences, T tokens, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor


def row_means(values_BT: Tensor, counted_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the counted tokens of each row (0 where there is none), and how many there are.

    Returns:
        float64 (B,), int64 (B,).
    """
    count_B = counted_BT.sum(1)
    total_B = torch.where(counted_BT, values_BT, 0.0).double().sum(1)
    return total_B / count_B.clamp(min=1), count_B


def group_rows(group_B: Tensor) -> tuple[Tensor, int]:
    """Number the groups: int64 (B,) in 0..G-1, and G."""
    names, index_B = torch.unique(group_B, return_inverse=True)
    return index_B, len(names)


def group_sums(values_B: Tensor, group_B: Tensor) -> Tensor:
    """Each row's group's sum, float64 (B,)."""
    index_B, groups = group_rows(group_B)
    sums_G = torch.zeros(groups, dtype=torch.float64, device=values_B.device)
    return sums_G.index_add(0, index_B, values_B.double())[index_B]


def group_means(values_B: Tensor, counted_B: Tensor, group_B: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's group's mean over the counted rows (0 where there is none), and how many rows those are.

    Returns:
        float64 (B,), float64 (B,).
    """
    count_B = group_sums(counted_B, group_B)
    total_B = group_sums(torch.where(counted_B, values_B, 0.0), group_B)
    return total_B / count_B.clamp(min=1), count_B
