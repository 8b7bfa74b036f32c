"""Loss reduction: token losses to one number, by weights that the whole update fixes beforehand.

The loss of any part of an update is the sum of weight x token loss over its rows; the parts add up to the same loss
and gradient however the update was cut, into micro-batches or over ranks, because the weights know all of it. They need
no more than every row's length and group, which ranks exchange cheaply. A row without tokens is in no count.

B sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prm_kit.errors import InputError
from rl.groups import group_sums

Reduction = Callable[[Tensor, Tensor, int], Tensor]
"""(lengths_B, group_B, max_tokens) of the whole update -> weight_B float32, the weight of each token of a row."""


def sequence_mean(lengths_B: Tensor, group_B: Tensor, max_tokens: int) -> Tensor:
    """1 / (N |o_i|): mean over tokens, then over rows: GRPO (2402.03300), GSPO, SAPO."""
    return _weights(1 / _rows(lengths_B) / lengths_B.clamp(min=1).double(), lengths_B)


def token_mean(lengths_B: Tensor, group_B: Tensor, max_tokens: int) -> Tensor:
    """1 / sum_i |o_i|: mean over all tokens of the update: DAPO's released code (2503.14476), VAPO, GFPO."""
    return _weights(1 / lengths_B.sum().clamp(min=1).double().expand(len(lengths_B)), lengths_B)


def prompt_mean(lengths_B: Tensor, group_B: Tensor, max_tokens: int) -> Tensor:
    """Mean over problems of the mean over the group's tokens: DAPO and VAPO as printed (2503.14476, 2504.05118)."""
    tokens_B = group_sums(lengths_B, group_B)
    groups = len(torch.unique(group_B[lengths_B > 0]))
    return _weights(1 / (tokens_B.clamp(min=1) * max(groups, 1)), lengths_B)


def sequence_sum(lengths_B: Tensor, group_B: Tensor, max_tokens: int) -> Tensor:
    """1 / N: sum over tokens, mean over rows: RLOO, ReMax, the handbook's presets."""
    return _weights((1 / _rows(lengths_B)).expand(len(lengths_B)), lengths_B)


def constant_length(lengths_B: Tensor, group_B: Tensor, max_tokens: int) -> Tensor:
    """1 / (N max_tokens): sum over tokens over a constant of the run, mean over rows: Dr.GRPO (2503.20783)."""
    return _weights((1 / _rows(lengths_B) / max_tokens).expand(len(lengths_B)), lengths_B)


def reduced(loss_BT: Tensor, weight_B: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum of weight x token loss over a part of an update: a scalar; the parts of an update are added up.

    Raises:
        InputError: A loss is not finite; names row and token.
    """
    loss_BT = torch.where(mask_BT, loss_BT, 0.0)
    if not torch.isfinite(loss_BT).all():
        row, token = torch.nonzero(~torch.isfinite(loss_BT))[0].tolist()
        raise InputError(f"row {row}, token {token}: the loss is {float(loss_BT[row, token].detach())}")
    return (loss_BT * weight_B[:, None]).sum()


def _rows(lengths_B: Tensor) -> Tensor:
    return (lengths_B > 0).sum().clamp(min=1).double()


def _weights(weight_B: Tensor, lengths_B: Tensor) -> Tensor:
    return torch.where(lengths_B > 0, weight_B, 0.0).float()


REDUCTIONS: dict[str, Reduction] = {
    "sequence_mean": sequence_mean,
    "token_mean": token_mean,
    "prompt_mean": prompt_mean,
    "sequence_sum": sequence_sum,
    "constant_length": constant_length,
}
