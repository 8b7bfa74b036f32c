"""Losses of pairs: what makes the better completion of a pair likelier than the worse one.

Names end in dimensions: B sequences, T tokens, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prm_kit.errors import UsageError
from rl.pairs import Pair

_NO_END = 2**62


class PairTensors(NamedTuple):
    """Pairs of rows of a batch.

    Attributes:
        better_P: int64 rows.
        worse_P: int64 rows.
        fork_P: int64, generated tokens that both share.
        gap_P: float32, difference of the rewards, above 0.
        weight_P: float32; of a whole update they add up to 1.
        wrong_P2: int64, first and end of the generated tokens at which the worse one went wrong; where nobody said,
            the fork and beyond every end.
    """

    better_P: Tensor
    worse_P: Tensor
    fork_P: Tensor
    gap_P: Tensor
    weight_P: Tensor
    wrong_P2: Tensor

    @classmethod
    def of(cls, pairs: Sequence[Pair], device: torch.device | str = "cpu") -> PairTensors:
        """Put pairs into tensors."""
        whole = torch.tensor([(p.better, p.worse, p.fork) for p in pairs], dtype=torch.int64, device=device)
        real = torch.tensor([(p.gap, p.weight) for p in pairs], dtype=torch.float32, device=device)
        wrong = [p.wrong or (p.fork, _NO_END) for p in pairs]
        wrong_P2 = torch.tensor(wrong, dtype=torch.int64, device=device).reshape(-1, 2)
        better_P, worse_P, fork_P = whole.reshape(-1, 3).unbind(1)
        gap_P, weight_P = real.reshape(-1, 2).unbind(1)
        return cls(better_P, worse_P, fork_P, gap_P, weight_P, wrong_P2)


PairLoss = Callable[[Tensor, Tensor | None, Tensor | None, Tensor, PairTensors], Tensor]
"""(new_BT, old_BT, reference_BT, mask_BT, pairs) -> loss_P float32; an update's loss is the sum of weight x loss.

The parts of an update add up however its pairs were dealt out, because the weights know the whole update.
"""


def gfpo(
    new_BT: Tensor, old_BT: Tensor | None, reference_BT: Tensor | None, mask_BT: Tensor, pairs: PairTensors
) -> Tensor:
    """-log sigmoid(log pi(better) - log pi(worse)) over whole completions: the handbook's GFPO as printed.

    Sums over tokens: a longer worse completion is beaten for nothing, nothing holds the policy where it was, and the
    better completion may fall too. `gfpo_anchored` is the form to use.
    """
    total_B = torch.where(mask_BT, new_BT, 0.0).float().sum(1)
    return -logsigmoid(total_B[pairs.better_P] - total_B[pairs.worse_P])


def gfpo_anchored(
    new_BT: Tensor,
    old_BT: Tensor | None,
    reference_BT: Tensor | None,
    mask_BT: Tensor,
    pairs: PairTensors,
    *,
    beta: float = 1.0,
    likelihood: float = 0.1,
) -> Tensor:
    """Gap x -log sigmoid(beta (d(better) - d(worse))) + likelihood x NLL(better), per token after the fork.

    d is the mean over the tokens after the fork of log pi - log pi_old, and NLL the mean of -log pi over them. Before
    the fork both sides are the same prediction and would cancel.
    """
    if old_BT is None:
        raise UsageError("gfpo_anchored needs the old log-probabilities as its anchor")
    moved_BT = torch.where(mask_BT, new_BT, 0.0).float() - torch.where(mask_BT, old_BT, 0.0).float().detach()
    better_P = _mean_after_fork(moved_BT, mask_BT, pairs.better_P, pairs.fork_P)
    worse_P = _mean_after_fork(moved_BT, mask_BT, pairs.worse_P, pairs.fork_P)
    chosen_P = _mean_after_fork(torch.where(mask_BT, new_BT, 0.0).float(), mask_BT, pairs.better_P, pairs.fork_P)
    return -pairs.gap_P * logsigmoid(beta * (better_P - worse_P)) - likelihood * chosen_P


def gfpo_gated(
    new_BT: Tensor,
    old_BT: Tensor | None,
    reference_BT: Tensor | None,
    mask_BT: Tensor,
    pairs: PairTensors,
    *,
    beta: float = 1.0,
    likelihood: float = 0.1,
) -> Tensor:
    """Gap x -log sigmoid(beta (d(better) - d(worse))) + likelihood x NLL(better), as sums over tokens.

    d is the sum of log pi - log pi_old: of the better one over the tokens after the fork, of the worse one over those
    of `wrong_P2` after the fork only, so that what it did right, before its error, is not unlearnt. Sums, unlike in
    `gfpo_anchored`: a decision weighs the same in a long completion. The anchor keeps them from growing with length:
    at the old policy every d is 0.
    """
    if old_BT is None:
        raise UsageError("gfpo_gated needs the old log-probabilities as its anchor")
    chosen_BT = torch.where(mask_BT, new_BT, 0.0).float()
    moved_BT = chosen_BT - torch.where(mask_BT, old_BT, 0.0).float().detach()
    after_P2 = torch.stack([pairs.fork_P, torch.full_like(pairs.fork_P, _NO_END)], dim=1)
    wrong_P2 = torch.stack([pairs.wrong_P2[:, 0].maximum(pairs.fork_P), pairs.wrong_P2[:, 1]], dim=1)
    better_P = _sum_within(moved_BT, mask_BT, pairs.better_P, after_P2)
    worse_P = _sum_within(moved_BT, mask_BT, pairs.worse_P, wrong_P2)
    likely_P = _sum_within(chosen_BT, mask_BT, pairs.better_P, after_P2)
    return -pairs.gap_P * logsigmoid(beta * (better_P - worse_P)) - likelihood * likely_P


def srpo(
    new_BT: Tensor,
    old_BT: Tensor | None,
    reference_BT: Tensor | None,
    mask_BT: Tensor,
    pairs: PairTensors,
    *,
    beta: float = 0.1,
) -> Tensor:
    """-log sigmoid(beta (d(better) - d(worse))), d = log pi - log pi_reference over whole completions (2305.18290).

    With success against failure as pairs, the handbook's SRPO on pairs.
    """
    if reference_BT is None:
        raise UsageError("srpo needs the log-probabilities of the reference policy")
    return advantage_pair_loss(implied_advantage(new_BT, reference_BT, mask_BT, beta=beta), pairs)


def advantage_pairs(
    new_BT: Tensor,
    old_BT: Tensor | None,
    reference_BT: Tensor | None,
    mask_BT: Tensor,
    pairs: PairTensors,
    *,
    beta: float = 1.0,
) -> Tensor:
    """-log sigmoid(A(better) - A(worse)) with the advantage that the policy implies against the old one."""
    if old_BT is None:
        raise UsageError("advantage_pairs needs the old log-probabilities")
    return advantage_pair_loss(implied_advantage(new_BT, old_BT, mask_BT, beta=beta), pairs)


def implied_advantage(new_BT: Tensor, anchor_BT: Tensor, mask_BT: Tensor, *, beta: float = 1.0) -> Tensor:
    """A = beta (log pi - log pi_anchor) of each completion, (B,): the one advantage that log-probabilities train."""
    moved_BT = torch.where(mask_BT, new_BT, 0.0).float() - torch.where(mask_BT, anchor_BT, 0.0).float().detach()
    return beta * moved_BT.sum(1)


def advantage_pair_loss(advantage_B: Tensor, pairs: PairTensors) -> Tensor:
    """-log sigmoid(A(better) - A(worse)) per pair, (P,).

    Raises:
        UsageError: The advantages carry no gradient, as those from rewards never do.
    """
    if torch.is_grad_enabled() and not advantage_B.requires_grad:
        raise UsageError(
            "a pair loss over advantages that come from rewards has no gradient: rewards do not depend on the policy. "
            "Use an advantage implied by log-probabilities: gfpo, gfpo_anchored, srpo or advantage_pairs"
        )
    return -logsigmoid(advantage_B[pairs.better_P] - advantage_B[pairs.worse_P])


def _sum_within(values_BT: Tensor, mask_BT: Tensor, rows_P: Tensor, tokens_P2: Tensor) -> Tensor:
    """Sum over each row's generated tokens from the first number to before the second."""
    number_PT = mask_BT[rows_P].cumsum(1) - 1
    within_PT = mask_BT[rows_P] & (number_PT >= tokens_P2[:, :1]) & (number_PT < tokens_P2[:, 1:])
    return torch.where(within_PT, values_BT[rows_P], 0.0).sum(1)


def _mean_after_fork(values_BT: Tensor, mask_BT: Tensor, rows_P: Tensor, fork_P: Tensor) -> Tensor:
    """Mean over each row's generated tokens from the fork on; 0 where there is none."""
    mask_PT = mask_BT[rows_P]
    after_PT = mask_PT & (mask_PT.cumsum(1) > fork_P[:, None])
    return torch.where(after_PT, values_BT[rows_P], 0.0).sum(1) / after_PT.sum(1).clamp(min=1)


PAIR_LOSSES: dict[str, PairLoss] = {
    "gfpo": gfpo,
    "gfpo_anchored": gfpo_anchored,
    "gfpo_gated": gfpo_gated,
    "srpo": srpo,
    "advantage_pairs": advantage_pairs,
}
