"""Passes of rollouts through the models of a run: what goes through at once, in which process, with which attention.

B rollouts, T generated tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prm_kit.batching import micro_batches
from prm_kit.sharding import whole
from prm_kit.train_start import autocast
from rl.models import Models
from rl.policy_model import Rows
from rl.portions import portions as dealt_portions
from rl.rollouts import Sampled
from rl.shared_prompts import batches_of_like, shared_prompt_attention, shares_prompts
from rl.train_settings import RlSettings


@dataclass
class Passes:
    """How rollouts pass through models.

    Attributes:
        settings: Precision, memory, longest gradient.
        models: Of the run.
        share: Whether the rollouts of one problem share its prompt in a pass.
    """

    settings: RlSettings
    models: Models

    def __post_init__(self) -> None:
        self.share = shares_prompts(self.settings.share_prompts, self.models.policy.model, self.models.device)

    @contextmanager
    def checkpointing(self) -> Iterator[None]:
        """Layers that are to compute their activations twice do so in training mode only.

        What they hold stays in evaluation mode: dropout would make another policy of the one that sampled.
        """
        layers = [one for one in self.models.trained.modules() if getattr(one, "gradient_checkpointing", False)]
        for layer in layers:
            layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.training = False

    def attention(self, models: Iterable[nn.Module]) -> AbstractContextManager[None]:
        """What passes through models run in, forward and backward."""
        configs = [one.config for model in models for one in model.modules() if isinstance(one, PreTrainedModel)]
        return shared_prompt_attention(configs) if self.share else nullcontext()

    def rows(self, rollouts: Sequence[Sampled], width: int) -> Rows:
        """Rollouts as a batch of ids, `width` generated tokens wide."""
        return Rows(rollouts, width, self.models.device, share=self.share)

    def frozen(self, model: nn.Module, rollouts: Sequence[Sampled]) -> Tensor:
        """Log-probabilities under a policy, or what the value model says, [B, T] float32, without a gradient."""
        width = max(len(one.rollout.ids) for one in rollouts)
        device = self.models.device
        found_BT = torch.zeros(len(rollouts), width, device=device)
        with torch.no_grad(), autocast(self.settings.precision, device), self.attention([model]):
            for members in self.portions(range(len(rollouts)), rollouts):
                chosen = members or [shortest(range(len(rollouts)), rollouts)]
                said = model(self.rows([rollouts[i] for i in chosen], width))
                if members:
                    found_BT[members] = said[0] if isinstance(said, tuple) else said
        self.models.release(model)
        self.models.world.add([found_BT])
        return found_BT

    def cut_gradient(self, model: nn.Module) -> float:
        """Cut a model's gradient to its greatest length; its length before."""
        limit = self.settings.max_gradient_norm or math.inf
        return float(whole(torch.nn.utils.clip_grad_norm_(model.parameters(), limit)))

    def portions(self, members: Sequence[int], rollouts: Sequence[Sampled]) -> list[list[int]]:
        """This process's part of some rollouts, in what goes through at once; see `rl.portions.portions`."""
        lengths, budget = lengths_of(rollouts), self.settings.micro_batch_tokens
        tokens = [lengths[member] for member in members]
        if not self.share:
            return dealt_portions(members, tokens, self.models.world, lambda mine: micro_batches(mine, lengths, budget))
        ids = [(*one.prompt, *one.rollout.ids) for one in rollouts]
        return dealt_portions(members, tokens, self.models.world, lambda mine: batches_of_like(mine, ids, budget))


def lengths_of(rollouts: Sequence[Sampled]) -> list[int]:
    """Tokens of each rollout with its prompt."""
    return [len(one.prompt) + len(one.rollout.ids) for one in rollouts]


def shortest(members: Sequence[int], rollouts: Sequence[Sampled]) -> int:
    """Of some rollouts the one with the fewest tokens."""
    lengths = lengths_of(rollouts)
    return min(members, key=lambda member: lengths[member])
