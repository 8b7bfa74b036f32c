"""Log-probabilities of tokens from hidden states, without ever holding a (tokens x vocabulary) tensor.

The vocabulary is walked in tiles: the forward pass keeps one log-sum-exp per token, the backward pass computes each
tile's logits again, but for the few tiles that were kept, and writes that tile's rows of the head's gradient once. That
is nearly four products of tokens x vocabulary x hidden where the plain way has three, and far fewer passes over memory.

N tokens, V vocabulary, D hidden, W the width of a tile.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from prm_kit.errors import InputError

TILE_ELEMENTS = 2**21
"""Logits held at a time: 8 MB in float32, what a cache holds."""

KEPT = 0.15
"""Share of the tiles whose logits are kept for the backward pass."""

_LOG2_E = math.log2(math.e)


def token_log_probabilities(
    hidden_ND: Tensor, lm_head_VD: Tensor, ids_N: Tensor, *, tile_elements: int = TILE_ELEMENTS
) -> Tensor:
    """Log softmax(hidden lm_head^T) at `ids`: (N,) float32, differentiable in the hidden states and the head.

    Leave the prompt's tokens out beforehand: rows cost what they cost.

    Args:
        hidden_ND: Last hidden states at the positions that predict, float32 or bfloat16; any leading dimensions.
        lm_head_VD: Weight of the output layer (no bias).
        ids_N: int64 tokens that were predicted, of the leading dimensions of the hidden states.
        tile_elements: Logits to hold at a time.

    Raises:
        InputError: The shapes do not fit, or an id is not in the vocabulary.
    """
    log_probabilities, _ = _call(hidden_ND, lm_head_VD, ids_N, tile_elements, False)
    return log_probabilities


def token_log_probabilities_and_entropies(
    hidden_ND: Tensor, lm_head_VD: Tensor, ids_N: Tensor, *, tile_elements: int = TILE_ELEMENTS
) -> tuple[Tensor, Tensor]:
    """`token_log_probabilities`, and the entropy of each prediction in nats: (N,) and (N,) float32, differentiable."""
    return _call(hidden_ND, lm_head_VD, ids_N, tile_elements, True)


def _call(
    hidden_ND: Tensor, lm_head_VD: Tensor, ids_N: Tensor, tile_elements: int, entropies: bool
) -> tuple[Tensor, Tensor]:
    shape = hidden_ND.shape[:-1]
    if ids_N.shape != shape or lm_head_VD.dim() != 2 or hidden_ND.shape[-1] != lm_head_VD.shape[1]:
        raise InputError(
            f"hidden states {tuple(hidden_ND.shape)}, head {tuple(lm_head_VD.shape)} and ids {tuple(ids_N.shape)} "
            "do not fit together"
        )
    if ids_N.numel() and bool(((ids_N < 0) | (ids_N >= len(lm_head_VD))).any()):
        raise InputError(f"an id lies outside of the vocabulary of {len(lm_head_VD)}")
    flat_ND, flat_N = hidden_ND.reshape(-1, hidden_ND.shape[-1]), ids_N.reshape(-1)
    width = max(1, tile_elements // max(1, len(flat_ND)))
    device = hidden_ND.device.type
    if torch.is_autocast_enabled(device):  # once and here, since the backward pass runs outside of it
        number_format = torch.get_autocast_dtype(device)
        flat_ND, lm_head_VD = flat_ND.to(number_format), lm_head_VD.to(number_format)
    with torch.autocast(device, enabled=False):
        found_N, entropy_N = _Tiled.apply(  # type: ignore[no-untyped-call]
            flat_ND, lm_head_VD, flat_N, width, entropies
        )
    return found_N.reshape(shape), entropy_N.reshape(shape)


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, lm_head_VD: Tensor, ids_N: Tensor, width: int, entropies: bool
    ) -> tuple[Tensor, Tensor]:
        most_N = torch.full((len(hidden_ND),), -torch.inf, device=hidden_ND.device)
        mass_N = torch.zeros_like(most_N)
        energy_N = torch.zeros_like(most_N)  # sum of exp(logit - most) (logit - most)
        tiles = torch.split(lm_head_VD, width)
        keeps = int(KEPT * len(tiles)) if any(ctx.needs_input_grad) else 0
        kept = []
        for number, tile_WD in enumerate(tiles):
            logits_NW = _product(hidden_ND, tile_WD).float()
            if number < keeps:
                kept.append(logits_NW.clone())
            above_N = torch.maximum(most_N, logits_NW.amax(1))
            shift_N = most_N - above_N
            scale_N = shift_N.exp()
            logits_NW -= above_N[:, None]
            if entropies:
                energy_N = scale_N * (energy_N + torch.where(mass_N > 0, shift_N, 0.0) * mass_N)
                weights_NW = _exp_(logits_NW.clone())
                energy_N += torch.einsum("nw,nw->n", weights_NW, logits_NW)
            else:
                weights_NW = _exp_(logits_NW)
            mass_N = mass_N * scale_N + weights_NW.sum(1)
            most_N = above_N
        log_mass_N = most_N + mass_N.log()
        chosen_N = (hidden_ND.float() * lm_head_VD[ids_N].float()).sum(1)
        chosen_N = chosen_N.to(hidden_ND.dtype).float()  # rounded as in its tile: else a sure token is not at 0
        entropy_N = mass_N.log() - energy_N / mass_N if entropies else torch.zeros_like(most_N)
        ctx.save_for_backward(hidden_ND, lm_head_VD, ids_N, log_mass_N, entropy_N)
        ctx.width, ctx.entropies, ctx.kept = width, entropies, kept
        if not entropies:
            ctx.mark_non_differentiable(entropy_N)
        return chosen_N - log_mass_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, lm_head_VD, ids_N, log_mass_N, entropy_N = ctx.saved_tensors
        slope_N, entropy_slope_N = (output.float() for output in outputs)
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        of_hidden_ND = (slope_N[:, None] * lm_head_VD[ids_N]).float() if wants_hidden else None
        of_head_VD = torch.empty_like(lm_head_VD) if wants_head else None
        for number, tile_WD in enumerate(torch.split(lm_head_VD, ctx.width)):
            keeps = number < len(ctx.kept)
            logits_NW = ctx.kept[number].clone() if keeps else _product(hidden_ND, tile_WD).float()
            log_p_NW = logits_NW.sub_(log_mass_N[:, None])
            if ctx.entropies:  # d entropy / d logit = -p (log p + entropy)
                constant_N = -entropy_slope_N * entropy_N - slope_N
                slope_NW = torch.addcmul(constant_N[:, None], log_p_NW, -entropy_slope_N[:, None])
                slope_NW.mul_(_exp_(log_p_NW))
            else:
                slope_NW = _exp_(log_p_NW).mul_(-slope_N[:, None])
            slope_NW = slope_NW.to(hidden_ND.dtype)
            if of_hidden_ND is not None:
                of_hidden_ND += _product(slope_NW, tile_WD.T)
            if of_head_VD is not None:
                start = number * ctx.width
                torch.mm(slope_NW.T, hidden_ND, out=of_head_VD[start : start + len(tile_WD)])
        if of_head_VD is not None:
            of_head_VD.index_add_(0, ids_N, (slope_N[:, None] * hidden_ND).to(of_head_VD.dtype))
        of_hidden = None if of_hidden_ND is None else of_hidden_ND.to(hidden_ND.dtype)
        return of_hidden, of_head_VD, None, None, None


def _product(one_NK: Tensor, other_MK: Tensor) -> Tensor:
    """One times the other transposed [N, M]."""
    if one_NK.device.type == "cpu" and one_NK.dtype == torch.float32 and _ONE_DNN is not None:
        product_NM: Tensor = _ONE_DNN(one_NK, other_MK, None, "none", [], "")
        return product_NM
    return one_NK @ other_MK.T


def _exp_(one: Tensor) -> Tensor:
    """Exponentiate in place: by exp2, which on a CPU takes half of the time of exp."""
    return one.mul_(_LOG2_E).exp2_()


_ONE_DNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
"""The same product by oneDNN, where torch has it: on processors that are not Intel's a fifth faster than torch.mm."""
