"""What a training run starts from: the device, the number format, and the model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedModel

from prm_kit.errors import UsageError
from prm_kit.model import Prm

Precision = Literal["auto", "float32", "bfloat16"]


def chosen_device(name: str) -> torch.device:
    """The device that a setting names; "auto" is CUDA if there is one, else the CPU.

    Raises:
        UsageError: CUDA is asked for and there is none.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device: {name}: there is no CUDA device; say cpu or auto")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether the forward pass is autocast to bfloat16; "auto": on CUDA only."""
    return precision == "bfloat16" or (precision == "auto" and device.type == "cuda")


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context that the forward pass runs in."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bfloat16(precision, device))


def starting_prm(source: str, seed: int, device: torch.device) -> Prm:
    """Load a PRM to go on from, or put a fresh head on a backbone. Weights are float32, so that small updates count.

    Args:
        source: Folder or hub id; a folder with a prm.json is a PRM.
        seed: Of the fresh head.
        device: Where to put it.
    """
    if (Path(source) / "prm.json").is_file():
        return Prm.load(source, device=device, dtype=torch.float32)
    return Prm.from_backbone(source, seed=seed, device=device, dtype=torch.float32)


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
