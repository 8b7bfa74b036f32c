"""What a training run starts with: the device, the number format, and what activations cost."""

from __future__ import annotations

from typing import Literal

import torch
from transformers import PreTrainedModel

from prm_kit.distributed import World, local_rank
from prm_kit.errors import UsageError

Precision = Literal["auto", "float32", "bfloat16"]


def chosen_device(name: str, world: World | None = None) -> torch.device:
    """The device that a setting names; "auto" is CUDA if there is one, else the CPU.

    Args:
        name: The setting.
        world: The processes of the run, each of which takes a CUDA device of its own.

    Raises:
        UsageError: CUDA is asked for and there is none, not that one, or not one for every process.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device: {name}: there is no CUDA device; say cpu or auto")
    if world is not None and world.size > 1 and name != "cpu" and torch.cuda.is_available():
        if ":" in name or local_rank() >= torch.cuda.device_count():
            raise UsageError(
                f"device: {name}: each of {world.size} processes takes a CUDA device of its own, and there are "
                f"{torch.cuda.device_count()} here; say cuda and start as many processes as devices"
            )
        return torch.device("cuda", local_rank())
    if ":" in name and int(name.partition(":")[2]) >= torch.cuda.device_count():
        raise UsageError(f"device: {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether the forward pass is autocast to bfloat16; "auto": on CUDA only."""
    return precision == "bfloat16" or (precision == "auto" and device.type == "cuda")


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context that the forward pass runs in."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bfloat16(precision, device))


def compute_activations_twice(model: PreTrainedModel) -> None:
    """Gradient checkpointing: keep the layers' inputs only and compute the rest again on the way back.

    Raises:
        UsageError: The model's family has no support for it.
    """
    # transformers 5.2x renamed the method
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise UsageError(f"gradient_checkpointing: {error}") from None
