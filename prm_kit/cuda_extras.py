"""What two optional packages add on CUDA: Liger's fused kernels, and 4-bit weights from bitsandbytes.

Written without a CUDA device at hand. Liger has not been run: the call follows the sources of liger-kernel 0.8.5, and
what is tested is when it is made. 4-bit layers of bitsandbytes 0.50 with peft's adapters have computed and learnt on
the CPU, which that package can do slowly; a whole run with them on CUDA has not been made.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from prm_kit.distributed import World
from prm_kit.errors import UsageError


def use_liger(asked: Literal["auto", "off"], model: PreTrainedModel, device: torch.device) -> bool:
    """Let a model's norms and gated MLPs compute with Liger's kernels, where they are installed and there is CUDA.

    Only this model is changed: what Liger changes for all models of the family is changed back, so that one on the CPU
    still computes. Rotary embeddings, which it could change for all only, stay as they are.

    Args:
        asked: The setting.
        model: Changed in place.
        device: That it is trained on.

    Returns:
        Whether it does so now.
    """
    if asked == "off" or device.type != "cuda" or importlib.util.find_spec("liger_kernel") is None:
        return False
    from liger_kernel.transformers.monkey_patch import (
        MODEL_TYPE_TO_APPLY_LIGER_FN,
        _apply_liger_kernel_to_instance,
    )

    if model.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        logging.getLogger(__name__).warning("Liger has no kernels for %s models", model.config.model_type)
        return False
    family = sys.modules[type(model).__module__]
    before = dict(vars(family))
    _apply_liger_kernel_to_instance(model, rope=False, cross_entropy=False, fused_linear_cross_entropy=False)
    vars(family).update(before)
    return True


def check_four_bit(world: World, device: torch.device) -> None:
    """Refuse `lora.four_bit` where it cannot be.

    Raises:
        UsageError: No CUDA, no bitsandbytes, or several processes.
    """
    reasons = {
        "it needs CUDA, and this run is on the CPU": device.type != "cuda",
        "it needs the package bitsandbytes: pip install 'prm-kit[four-bit]'": (
            importlib.util.find_spec("bitsandbytes") is None
        ),
        "4-bit weights cannot be spread over several processes; start one": world.size > 1,
    }
    for reason, holds in reasons.items():
        if holds:
            raise UsageError(f"lora.four_bit: {reason}")


def to_four_bit(model: PreTrainedModel, trunk: nn.Module, layer: Any = None, weight: Any = None) -> None:
    """Put 4-bit layers (NF4, arXiv 2305.14314) where the trunk has linear ones; they are packed on the way to CUDA.

    Args:
        model: On the CPU; changed in place.
        trunk: Its part without the head.
        layer: Class of the new layers; None: bitsandbytes' Linear4bit.
        weight: Class of their weights; None: its Params4bit.
    """
    if layer is None:
        import bitsandbytes

        layer, weight = bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Params4bit
    for parent in list(trunk.modules()):
        for name, linear in list(parent.named_children()):
            if type(linear) is nn.Linear:
                packed = layer(
                    linear.in_features,
                    linear.out_features,
                    bias=linear.bias is not None,
                    compute_dtype=torch.bfloat16,
                    quant_type="nf4",
                )
                packed.weight = weight(linear.weight.data, requires_grad=False, quant_type="nf4")
                packed.bias = linear.bias
                setattr(parent, name, packed)
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # how peft knows which adapters to put there
