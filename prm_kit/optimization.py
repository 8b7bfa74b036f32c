"""The optimiser, the learning rate as a function of the update, and low-rank adapters."""

from __future__ import annotations

import importlib.util
import math
import warnings
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from prm_kit.errors import UsageError
from prm_kit.train_settings import LoraSettings


def learning_rate_share(
    update: int,
    updates: int,
    *,
    warmup: float,
    schedule: Literal["linear", "cosine", "constant"],
    final: float,
) -> float:
    """Share of the peak learning rate that an update is made with, in (0, 1].

    It rises in equal steps over the first `warmup` share of the updates, the last of which has the peak; then it goes
    down to `final`, which the update after the last would have.

    Args:
        update: 0-based.
        updates: Of the whole run.
        warmup: Share in [0, 1].
        schedule: Form of the way down; "constant" stays at the peak.
        final: Share of the peak in [0, 1].
    """
    rising = round(warmup * updates)
    if update < rising:
        return (update + 1) / rising
    if schedule == "constant":
        return 1.0
    done = (update - rising) / (updates - rising)
    left = 1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return final + (1 - final) * left


def stage_of(update: int, updates: int, head_updates: int) -> tuple[int, int]:
    """Where an update stands in its stage, and how many that stage has: the head alone first, then everything.

    Each stage has a warm-up and a way down of its own: what joins in late starts with an empty optimiser state.
    """
    if update < head_updates:
        return update, head_updates
    return update - head_updates, updates - head_updates


def adamw(
    model: nn.Module,
    head: nn.Module,
    *,
    learning_rate: float,
    head_learning_rate: float,
    weight_decay: float,
    beta2: float,
) -> torch.optim.AdamW:
    """AdamW over the parameters that require a gradient; each group holds its peak as "peak".

    Args:
        model: Backbone and head.
        head: The part of it that has a learning rate of its own.
        learning_rate: Peak of the rest.
        head_learning_rate: Peak of the head.
        weight_decay: Of matrices; vectors have none.
        beta2: Memory of the squared gradients.
    """
    in_head = {id(parameter) for parameter in head.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in in_head, parameter.ndim >= 2), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": head_learning_rate if is_head else learning_rate,
                "weight_decay": weight_decay if is_matrix else 0.0,
            }
            for (is_head, is_matrix), parameters in groups.items()
        ],
        lr=0.0,
        betas=(0.9, beta2),
        fused=True,
    )


def choose_trained(
    model: PreTrainedModel,
    head: nn.Linear,
    *,
    train_layers: int | None,
    lora: LoraSettings | None,
    fresh_head: bool = True,
) -> Any:
    """Say which weights are trained, beside the head. Changes the model in place.

    Args:
        model: The whole model.
        head: Its head.
        train_layers: As many upper layers, with what stands above them; None: all weights.
        lora: Adapters instead.
        fresh_head: The head knows nothing yet and is trained in any case; else only where all weights are.

    Returns:
        The adapters, to be given to `merge_adapters` after training; None without `lora`.

    Raises:
        UsageError: There are fewer layers, peft is not installed, or a name in `lora.targets` is in no layer's.
    """
    adapters = None if lora is None else _add_adapters(model, head, lora)
    if lora is None:
        model.requires_grad_(train_layers is None)
        for part in _upper_parts(model, train_layers or 0):
            part.requires_grad_(True)
    head.requires_grad_(False)  # its bias stays 0, as the checkpoint promises
    head.weight.requires_grad_(fresh_head or (train_layers is None and lora is None))
    return adapters


def _upper_parts(model: PreTrainedModel, n_layers: int) -> list[nn.Module]:
    """The last `n_layers` layers of the trunk and the modules that come after them (the final norm); none of 0."""
    if n_layers == 0:
        return []
    trunk: nn.Module = getattr(model, model.base_model_prefix)
    children = list(trunk.children())
    stacks = [number for number, child in enumerate(children) if isinstance(child, nn.ModuleList)]
    layers = [] if not stacks else list(children[stacks[-1]].children())
    if n_layers > len(layers):
        raise UsageError(f"train_layers: {n_layers}: the backbone has {len(layers)} layers")
    return [*layers[-n_layers:], *children[stacks[-1] + 1 :]]


def merge_adapters(adapters: Any) -> None:
    """Add the adapters into the weights and take them out of the model, which is then what it was before them."""
    adapters.merge_and_unload()


def need_package(package: str, what: str, extra: str) -> None:
    """Refuse early what an optional package is missing for.

    Raises:
        UsageError: With the command that mends it.
    """
    if importlib.util.find_spec(package) is None:
        raise UsageError(f"{what} needs the package {package}: pip install 'prm-kit[{extra}]'")


def _add_adapters(model: nn.Module, head: nn.Module, lora: LoraSettings) -> Any:
    need_package("peft", "lora", "lora")
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer is not head]
    if lora.targets == "all-linear":
        chosen = linear
    else:
        lost = [target for target in lora.targets if not any(n.split(".")[-1] == target for n in linear)]
        if lost:
            known = sorted({name.split(".")[-1] for name in linear})
            raise UsageError(f"lora.targets: no linear layer is called {', '.join(lost)}. Known: {', '.join(known)}.")
        chosen = [name for name in linear if name.split(".")[-1] in lora.targets]
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LoraModel(model, config, "default")
