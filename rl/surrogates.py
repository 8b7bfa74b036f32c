"""Surrogates: the loss of each token, whose gradient is the policy gradient, and how far it may go from the old policy.

At the old policy every one of them has the gradient of -A log pi. Names end in dimensions: B sequences, T tokens.
rho_t = exp(new_t - old_t) is the importance ratio; log-ratios are cut to +-20 before exp.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prm_kit.errors import InputError, UsageError

Surrogate = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(new_BT, old_BT, advantage_BT, mask_BT) -> loss_BT float32, to be minimised, 0 where the mask is False.

`new_BT` carries the gradient; nothing else does. What stands in masked cells changes nothing, be it NaN.
"""

RolloutWeight = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(old_BT, rollout_BT, mask_BT) -> weight_BT float32 >= 0, a constant that the token losses are multiplied with."""

LOG_RATIO_LIMIT = 20.0


def log_ratio(new_BT: Tensor, old_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The log of rho, float32 (B, T), 0 where the mask is False."""
    both_BT = torch.where(mask_BT, new_BT, 0.0).float() - torch.where(mask_BT, old_BT, 0.0).float().detach()
    return both_BT.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def sequence_log_ratio(new_BT: Tensor, old_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the row's tokens of log rho, the log of the geometric-mean ratio of GSPO: (B,)."""
    return log_ratio(new_BT, old_BT, mask_BT).sum(1) / mask_BT.sum(1).clamp(min=1)


def reinforce(new_BT: Tensor, old_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """-A log pi: on policy, one update per rollout; `old_BT` is not looked at."""
    return -_advantage(advantage_BT, mask_BT) * torch.where(mask_BT, new_BT, 0.0).float()


def ppo_clip(
    new_BT: Tensor,
    old_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    low: float = 0.2,
    high: float = 0.2,
    dual: float | None = None,
) -> Tensor:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A): PPO (1707.06347); high 0.28 is clip-higher (DAPO, 2503.14476).

    Args:
        new_BT: New log-probabilities.
        old_BT: Old log-probabilities.
        advantage_BT: Advantages.
        mask_BT: Tokens that count.
        low: How far below 1 a ratio may go.
        high: How far above 1.
        dual: Dual clip (1912.09729): where A < 0 the loss is at most -dual A; above 1, 3 is usual; None: without.
    """
    if dual is not None and dual <= 1:
        raise UsageError(f"ppo_clip: dual is {dual}; it must be above 1")
    advantage_BT = _advantage(advantage_BT, mask_BT)
    ratio_BT = log_ratio(new_BT, old_BT, mask_BT).exp()
    loss_BT = -torch.minimum(ratio_BT * advantage_BT, ratio_BT.clamp(1 - low, 1 + high) * advantage_BT)
    if dual is not None:
        loss_BT = torch.where(advantage_BT < 0, torch.minimum(loss_BT, -dual * advantage_BT), loss_BT)
    return torch.where(mask_BT, loss_BT, 0.0)


def gspo(
    new_BT: Tensor,
    old_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    low: float = 3e-4,
    high: float = 4e-4,
) -> Tensor:
    """-min(s_t A_t, clip(s_t, 1 - low, 1 + high) A_t), s_t = sg[s] rho_t / sg[rho_t]: GSPO-token (2507.18071).

    s is the geometric mean of the row's ratios. With one advantage per row, averaged over tokens and then rows, value
    and gradient are those of GSPO. Reduce it with `sequence_mean`.
    """
    advantage_BT = _advantage(advantage_BT, mask_BT)
    token_BT = log_ratio(new_BT, old_BT, mask_BT)
    sequence_B1 = sequence_log_ratio(new_BT, old_BT, mask_BT).detach()[:, None]
    ratio_BT = (sequence_B1 + token_BT - token_BT.detach()).exp()
    loss_BT = -torch.minimum(ratio_BT * advantage_BT, ratio_BT.clamp(1 - low, 1 + high) * advantage_BT)
    return torch.where(mask_BT, loss_BT, 0.0)


def gmpo(new_BT: Tensor, old_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor, *, limit: float = 0.4) -> Tensor:
    """-A exp(mean_t c_t), the same at every token of a row: GMPO (2507.20673).

    c_t is the log-ratio, cut one-sidedly in log space: at most `limit` where A > 0, at least -limit where A < 0.
    Reduce it with `sequence_mean`.

    Raises:
        UsageError: A row has several advantages; the product of ratios has one.
    """
    advantage_BT = _advantage(advantage_BT, mask_BT)
    rows_B1 = advantage_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)
    spread_BT = torch.where(mask_BT, (advantage_BT - rows_B1).abs(), 0.0)
    if (spread_BT > 1e-5 * (1 + rows_B1.abs())).any():
        row = int((spread_BT > 1e-5 * (1 + rows_B1.abs())).any(1).nonzero()[0])
        raise UsageError(f"gmpo wants one advantage per completion; row {row} has several: use a token surrogate")
    token_BT = log_ratio(new_BT, old_BT, mask_BT)
    cut_BT = torch.where(rows_B1 > 0, token_BT.clamp(max=limit), token_BT.clamp(min=-limit))
    mean_B1 = torch.where(mask_BT, cut_BT, 0.0).sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)
    return torch.where(mask_BT, -rows_B1 * mean_B1.exp(), 0.0)


def cispo(
    new_BT: Tensor,
    old_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    floor: float = 0.0,
    cap: float = 5.0,
) -> Tensor:
    """-sg[clip(rho, floor, cap)] A log pi: CISPO (2506.13585); every token keeps a gradient.

    The bounds are ratios, not distances from 1. The paper sets no lower one; its upper one is tuned, 5 is a
    library's default and not the paper's.
    """
    weight_BT = log_ratio(new_BT, old_BT, mask_BT).exp().clamp(floor, cap).detach()
    return -weight_BT * _advantage(advantage_BT, mask_BT) * torch.where(mask_BT, new_BT, 0.0).float()


def sapo(
    new_BT: Tensor,
    old_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    positive: float = 1.0,
    negative: float = 1.05,
) -> Tensor:
    """-A (4 / tau) sigmoid(tau (rho - 1)), tau `positive` where A > 0 and `negative` elsewhere: SAPO (2511.20347)."""
    advantage_BT = _advantage(advantage_BT, mask_BT)
    tau_BT = torch.where(advantage_BT > 0, positive, negative)
    ratio_BT = log_ratio(new_BT, old_BT, mask_BT).exp()
    loss_BT = -advantage_BT * 4 / tau_BT * torch.sigmoid(tau_BT * (ratio_BT - 1))
    return torch.where(mask_BT, loss_BT, 0.0)


def truncated_tokens(old_BT: Tensor, rollout_BT: Tensor, mask_BT: Tensor, *, cap: float = 2.0) -> Tensor:
    """min(pi_old / pi_rollout, cap) per token: truncated importance sampling for an engine that is not the trainer."""
    weight_BT = log_ratio(old_BT, rollout_BT, mask_BT).exp().clamp(max=cap)
    return torch.where(mask_BT, weight_BT, 0.0).detach()


def truncated_sequences(old_BT: Tensor, rollout_BT: Tensor, mask_BT: Tensor, *, cap: float = 3.0) -> Tensor:
    """min(product of the row's ratios, cap) at every token: unbiased up to the cap, hard on long rows."""
    total_B1 = log_ratio(old_BT, rollout_BT, mask_BT).sum(1, keepdim=True)
    weight_B1 = total_B1.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp().clamp(max=cap)
    return torch.where(mask_BT, weight_B1, 0.0).detach()


def masked_tokens(
    old_BT: Tensor, rollout_BT: Tensor, mask_BT: Tensor, *, low: float = 0.5, high: float = 5.0
) -> Tensor:
    """The ratio where it lies in [low, high], else 0 (IcePop): tokens that the engine saw otherwise do not train."""
    ratio_BT = log_ratio(old_BT, rollout_BT, mask_BT).exp()
    inside_BT = mask_BT & (ratio_BT >= low) & (ratio_BT <= high)
    return torch.where(inside_BT, ratio_BT, 0.0).detach()


def clipped_value_loss(
    values_BT: Tensor, old_values_BT: Tensor, target_BT: Tensor, mask_BT: Tensor, *, limit: float | None = 0.2
) -> Tensor:
    """0.5 max((V - R)^2, (clip(V, V_old +- limit) - R)^2) per token: PPO's critic (1707.06347); None: plain squares."""
    values_BT, old_BT, target_BT = (
        torch.where(mask_BT, x, 0.0).float() for x in (values_BT, old_values_BT.detach(), target_BT.detach())
    )
    square_BT = (values_BT - target_BT) ** 2
    if limit is not None:
        near_BT = values_BT.clamp(old_BT - limit, old_BT + limit)
        square_BT = torch.maximum(square_BT, (near_BT - target_BT) ** 2)
    return 0.5 * square_BT


def _advantage(advantage_BT: Tensor, mask_BT: Tensor) -> Tensor:
    advantage_BT = torch.where(mask_BT, advantage_BT, 0.0).float().detach()
    if not torch.isfinite(advantage_BT).all():
        row, token = torch.nonzero(~torch.isfinite(advantage_BT))[0].tolist()
        raise InputError(f"row {row}, token {token}: the advantage is {float(advantage_BT[row, token])}")
    return advantage_BT


SURROGATES: dict[str, Surrogate] = {
    "reinforce": reinforce,
    "ppo_clip": ppo_clip,
    "gspo": gspo,
    "gmpo": gmpo,
    "cispo": cispo,
    "sapo": sapo,
}

ROLLOUT_WEIGHTS: dict[str, RolloutWeight] = {
    "truncated_tokens": truncated_tokens,
    "truncated_sequences": truncated_sequences,
    "masked_tokens": masked_tokens,
}
