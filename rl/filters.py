"""What of the rollouts trains: whole groups, rows of a group, and problems for the next epoch.

Filters of groups and problems look at raw correctness, never at the shaped reward: a length penalty or a format reward
makes an all-wrong group look mixed. Names end in dimensions: B sequences, S steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from prm_kit.errors import UsageError
from rl.batch import Batch
from rl.groups import group_means, group_rows, row_means

GroupFilter = Callable[[Batch], Tensor]
"""Batch of whole groups -> keep_B bool, the same for all rows of a group. The loop samples on until it has enough."""

RowFilter = Callable[[Batch, Sequence[float]], Tensor]
"""(batch, mean rewards of earlier groups) -> keep_B bool.

Rows left out have advantage 0 and are in no group mean, but their tokens still count in the loss reduction.
"""

ProblemFilter = Callable[[Mapping[int, Sequence[float]]], set[int]]
"""Correctness (1 or 0) of each problem's rollouts in the epoch that ends -> problems of the next one."""


def mixed_outcomes(batch: Batch) -> Tensor:
    """Groups with both right and wrong rollouts: dynamic sampling of DAPO (2503.14476). Unknown ones are absent."""
    return accuracy_within(batch, low=0.0, high=1.0, strict=True)


def accuracy_within(batch: Batch, *, low: float = 0.2, high: float = 0.8, strict: bool = False) -> Tensor:
    """Groups whose share of right rollouts is in [low, high]: PRIME's online filter (2502.01456).

    Strictly between the two with `strict`.
    """
    correct_B = batch.need("correct_B", "accuracy_within")
    share_B, rows_B = group_means(correct_B, ~torch.isnan(correct_B) & batch.trained_B, batch.group_B)
    inside_B = (share_B > low) & (share_B < high) if strict else (share_B >= low) & (share_B <= high)
    return inside_B & (rows_B > 0)


def shortest(batch: Batch, history: Sequence[float], *, k: int = 8) -> Tensor:
    """The k shortest rollouts of each group: GFPO (2508.09726)."""
    return _best(batch, -batch.lengths_B.double(), k)


def reward_per_token(batch: Batch, history: Sequence[float], *, k: int = 8) -> Tensor:
    """The k rollouts with the most reward per token: GFPO's token efficiency (2508.09726).

    Rewards are first shifted to start at the group's least: with negative ones the longest failures would win.
    """
    index_B, groups = group_rows(batch.group_B)
    start_G = torch.full((groups,), torch.inf, dtype=torch.float64, device=index_B.device)
    least_B = start_G.scatter_reduce(0, index_B, batch.reward_B.double(), "amin")[index_B]
    return _best(batch, (batch.reward_B.double() - least_B) / batch.lengths_B.clamp(min=1), k)


def step_quality_per_token(batch: Batch, history: Sequence[float], *, k: int = 8) -> Tensor:
    """The k rollouts with the highest mean step value (mapped from [-1, 1] to [0, 1]) per token.

    The mean and not the sum, so that cutting a solution into more steps gains nothing. Without a scored step: last.
    """
    rewards_BS = batch.need("step_rewards_BS", "step_quality_per_token")
    mean_B, count_B = row_means(rewards_BS, ~torch.isnan(rewards_BS))
    quality_B = (mean_B + 1) / 2 / batch.lengths_B.clamp(min=1)
    return _best(batch, torch.where(count_B > 0, quality_B, -torch.inf), k)


def adaptive_difficulty(
    batch: Batch,
    history: Sequence[float],
    *,
    sizes: tuple[int, int, int] = (8, 6, 4),
    warm_up: int = 100,
) -> Tensor:
    """The k shortest rollouts, k by how hard the problem is for the policy: adaptive-difficulty GFPO (2508.09726).

    k is sizes[0] where the group's mean reward is below the median of earlier groups, sizes[1] below their upper
    quartile, sizes[2] above; sizes[0] everywhere while fewer than `warm_up` groups were seen.
    """
    mean_B, _ = group_means(batch.reward_B, batch.trained_B, batch.group_B)
    k_B = torch.full_like(batch.group_B, sizes[0])
    if len(history) >= max(warm_up, 1):
        seen = torch.tensor(history, dtype=torch.float64, device=mean_B.device)
        k_B = torch.where(mean_B < torch.quantile(seen, 0.5), sizes[0], k_B)
        k_B = torch.where(mean_B >= torch.quantile(seen, 0.5), sizes[1], k_B)
        k_B = torch.where(mean_B >= torch.quantile(seen, 0.75), sizes[2], k_B)
    return _rank(batch, -batch.lengths_B.double()) < k_B


def not_solved(outcomes: Mapping[int, Sequence[float]], *, solved_at: float = 1.0) -> set[int]:
    """Problems that not all rollouts solved: history resampling of SRPO (2504.14286); all-wrong ones stay.

    `solved_at` below 1 also drops problems with that share of right rollouts (0.9: 2510.13786).
    """
    for problem, correct in outcomes.items():
        if not correct or not set(correct) <= {0, 1}:
            raise UsageError(f"problem {problem}: outcomes {list(correct)} are not one or more of 0 and 1")
    return {problem for problem, correct in outcomes.items() if sum(correct) / len(correct) < solved_at}


def _best(batch: Batch, score_B: Tensor, k: int) -> Tensor:
    if k < 1:
        raise UsageError(f"a group filter keeps k = {k} rollouts; at least 1 is needed")
    return _rank(batch, score_B) < k


def _rank(batch: Batch, score_B: Tensor) -> Tensor:
    """Place of each row in its group, 0 the highest score; ties go to the shorter row, then to the earlier one."""
    by_length = torch.argsort(batch.lengths_B, stable=True)
    order = by_length[torch.argsort(score_B[by_length], descending=True, stable=True)]
    order = order[torch.argsort((~batch.trained_B[order]).to(torch.uint8), stable=True)]
    index_B, _ = group_rows(batch.group_B)
    by_group = order[torch.argsort(index_B[order], stable=True)]
    sorted_index = index_B[by_group]
    position = torch.arange(len(by_group), device=by_group.device)
    starts = torch.searchsorted(sorted_index, sorted_index, right=False)
    return torch.empty_like(position).scatter(0, by_group, position - starts)


GROUP_FILTERS: dict[str, GroupFilter] = {"mixed_outcomes": mixed_outcomes, "accuracy_within": accuracy_within}

ROW_FILTERS: dict[str, RowFilter] = {
    "shortest": shortest,
    "reward_per_token": reward_per_token,
    "step_quality_per_token": step_quality_per_token,
    "adaptive_difficulty": adaptive_difficulty,
}

PROBLEM_FILTERS: dict[str, ProblemFilter] = {"not_solved": not_solved}
