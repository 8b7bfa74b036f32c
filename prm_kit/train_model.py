"""The PRM that a run trains: made ready to learn, and made a plain checkpoint again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from prm_kit.checkpoints import starting_prm
from prm_kit.cuda_extras import to_four_bit, use_liger
from prm_kit.distributed import World
from prm_kit.model import Prm
from prm_kit.optimization import choose_trained, merge_adapters
from prm_kit.serve.golden import write_golden
from prm_kit.sharding import Shards, whole_weights
from prm_kit.train_settings import TrainSettings
from prm_kit.train_start import compute_activations_twice, uses_bfloat16
from prm_kit.training_state import set_trained_weights


class TrainedModel:
    """A PRM as it is trained: some of it frozen, with adapters, in 4 bits or in slices, as the settings ask.

    Args:
        settings: Of the run.
        prm: Changed in place.
        world: The processes.
        device: That it is trained on.

    Attributes:
        parameters: Their number before any were added.
        liger: Whether it computes with Liger's kernels.
        bfloat16: Whether the forward pass is autocast.
        shards: Of the model.
    """

    def __init__(self, settings: TrainSettings, prm: Prm, world: World, device: torch.device) -> None:
        self.settings, self.prm, self.world = settings, prm, world
        self.parameters = sum(p.numel() for p in prm.model.parameters())
        four_bit = settings.lora is not None and settings.lora.four_bit
        if four_bit:
            to_four_bit(prm.model, prm.trunk)
            for part in prm.computed_parts:
                part.to(device)
        self._rebuilds = four_bit or world.size > 1
        self.liger = use_liger(settings.liger, prm.model, device)
        self._adapters = _choose_trained(prm, settings)
        if settings.gradient_checkpointing:
            compute_activations_twice(prm.model)
        self.bfloat16 = uses_bfloat16(settings.precision, device)
        self.shards = Shards(*prm.computed_parts, world, device, bfloat16=self.bfloat16, thrifty=settings.reshard)

    @property
    def trained_parameters(self) -> int:
        """How many of them learn."""
        return sum(p.numel() for p in self.prm.model.parameters() if p.requires_grad)

    def save(self, path: Path) -> None:
        """Leave the PRM as one plain directory. What is in slices or in 4 bits is put into a whole model first."""
        prm, adapters = self.prm, self._adapters
        if self._rebuilds:
            weights = whole_weights(prm.model, self.world)
            if not self.world.is_first:
                return
            prm = starting_prm(self.settings, torch.device("cpu"))
            adapters = _choose_trained(prm, self.settings)
            set_trained_weights(prm.model, weights)
            prm.card = self.prm.card
        if adapters is not None:
            merge_adapters(adapters)
        prm.model.requires_grad_(True).train(mode=False)
        prm.save(path)
        if type(prm) is Prm:  # what other servers can serve
            write_golden(prm, path)


def _choose_trained(prm: Prm, settings: TrainSettings) -> Any:
    return choose_trained(
        prm.model, prm.head, train_layers=settings.train_layers, lora=settings.lora, fresh_head=prm.fresh_head
    )
