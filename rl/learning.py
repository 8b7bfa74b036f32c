"""From a batch of rollouts to steps of the optimiser: minibatches of whole groups, micro-batches that fit into memory.

B rollouts, T generated tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from torch import Tensor

from prm_kit.batching import micro_batches
from prm_kit.errors import InputError
from prm_kit.train_start import autocast
from rl.algorithms import Algorithm
from rl.batch import Batch
from rl.gathering import Earned
from rl.objective import Update, pair_loss, policy_loss, value_loss
from rl.pair_losses import PairTensors
from rl.pairs import Candidates, Pair
from rl.policy_model import Rows, ValueModel, log_probabilities, log_probabilities_and_entropies
from rl.rollouts import NotFiniteError, Sampled
from rl.train_settings import RlSettings


@dataclass
class Material:
    """What an update learns from, rows alike in all of it.

    Attributes:
        rows: The rollouts, those that are only compared with among them.
        batch: The same as tensors.
        update: Advantages and weights; None on the pure pair route.
        pairs: Pairs of rows.
    """

    rows: Sequence[Earned]
    batch: Batch
    update: Update | None
    pairs: Sequence[Pair]

    @property
    def rollouts(self) -> list[Sampled]:
        """The rollouts themselves."""
        return [row.sampled for row in self.rows]


@dataclass
class Learner:
    """The models that learn, and how.

    Attributes:
        algorithm: Its losses.
        settings: Minibatches, passes, precision, memory.
        policy: A causal language model.
        value: The value model; None without a critic.
        optimizer: Over both; its groups have their rates already.
    """

    algorithm: Algorithm
    settings: RlSettings
    policy: Any
    value: ValueModel | None
    optimizer: torch.optim.Optimizer

    def learn(self, material: Material, number: int) -> dict[str, float]:
        """Go through the rollouts of update `number`; return means over the optimiser steps.

        Raises:
            NotFiniteError: Nothing was changed by the step that failed.
        """
        told: dict[str, list[float]] = {}
        for turn in range(self.settings.passes):
            parts = self._minibatches(material, number * self.settings.passes + turn)
            for groups in parts:
                with self._checkpointing():
                    found = self._step(material, groups, len(parts), number)
                for name, value in found.items():
                    told.setdefault(name, []).append(value)
        return {name: sum(values) / len(values) for name, values in told.items()}

    @contextmanager
    def _checkpointing(self) -> Iterator[None]:
        """Layers that are to compute their activations twice do so in training mode only.

        What they hold stays in evaluation mode: dropout would make another policy of the one that sampled.
        """
        models = [self.policy] if self.value is None else [self.policy, self.value]
        layers = [one for model in models for one in model.modules() if getattr(one, "gradient_checkpointing", False)]
        for layer in layers:
            layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.training = False

    def frozen(self, model: Any, rollouts: Sequence[Sampled]) -> Tensor:
        """Log-probabilities under a policy, or what the value model says, [B, T] float32, without a gradient."""
        width = max(len(one.rollout.ids) for one in rollouts)
        device = next(model.parameters()).device
        found_BT = torch.zeros(len(rollouts), width, device=device)
        with torch.no_grad(), autocast(self.settings.precision, device):
            for members in self._micro_batches(range(len(rollouts)), rollouts):
                rows = Rows([rollouts[i] for i in members], width, device)
                found_BT[members] = model(rows) if isinstance(model, ValueModel) else log_probabilities(model, rows)
        return found_BT

    def _step(self, material: Material, groups: set[int], n_parts: int, number: int) -> dict[str, float]:
        """One step of the optimiser; a part's loss is its share of the whole update's, so it counts `n_parts` times."""
        rows = material.rows
        members = [i for i, row in enumerate(rows) if row.sampled.group in groups and not row.is_reference]
        pairs = [pair for pair in material.pairs if rows[pair.better].sampled.group in groups]
        rollouts = material.rollouts
        critic = self.algorithm.critic
        learns = critic is None or number >= critic.warm_up
        told: dict[str, float] = {"loss": 0.0}
        self.optimizer.zero_grad(set_to_none=True)
        try:
            for chosen in self._micro_batches(members, rollouts) if material.update is not None else ():
                losses = self._losses(material, chosen, learns)
                (n_parts * torch.stack(list(losses.values())).sum()).backward()  # type: ignore[no-untyped-call]
                _add(told, losses, n_parts)
            for some in self._pair_batches(pairs, rollouts) if learns else ():
                losses = {"loss_pairs": self._pair_loss(material, some)}
                (n_parts * losses["loss_pairs"]).backward()  # type: ignore[no-untyped-call]
                _add(told, losses, n_parts)
        except InputError as error:
            raise NotFiniteError(str(error), [rollouts[i] for i in members]) from None
        # Each model's gradient has a length of its own: a value model that is far off must not silence the policy.
        limit = self.settings.max_gradient_norm or math.inf
        norms = {"gradient_norm": torch.nn.utils.clip_grad_norm_(self.policy.parameters(), limit)}
        if self.value is not None:
            norms["gradient_norm_value"] = torch.nn.utils.clip_grad_norm_(self.value.parameters(), limit)
        told |= {name: float(norm) for name, norm in norms.items()}
        if bad := [f"{name} {value}" for name, value in told.items() if not math.isfinite(value)]:
            raise NotFiniteError(f"not finite: {', '.join(bad)}", [rollouts[i] for i in members])
        self.optimizer.step()
        return told

    def _losses(self, material: Material, chosen: list[int], learns: bool) -> dict[str, Tensor]:
        """Losses of the policy (where it learns) and of the value model on some rows."""
        assert material.update is not None
        device = material.batch.mask_BT.device
        part = torch.tensor(chosen, device=device)
        batch, update = material.batch.select(part), material.update.select(part)
        rows = Rows([material.rows[i].sampled for i in chosen], batch.mask_BT.shape[1], device)
        losses = {}
        if learns:
            with autocast(self.settings.precision, device):
                if self.algorithm.entropy_weight != 0:
                    new_BT, entropy_BT = log_probabilities_and_entropies(self.policy, rows)
                else:
                    new_BT, entropy_BT = log_probabilities(self.policy, rows), None
            losses["loss"] = policy_loss(self.algorithm, update, batch, new_BT, entropy_BT).total
        if self.value is not None:
            with autocast(self.settings.precision, device):
                values_BT = self.value(rows)
            losses["loss_value"] = value_loss(self.algorithm, update, batch, values_BT)
        return losses

    def _pair_loss(self, material: Material, pairs: Sequence[Pair]) -> Tensor:
        members = sorted({row for pair in pairs for row in (pair.better, pair.worse)})
        place = {member: i for i, member in enumerate(members)}
        moved = [replace(pair, better=place[pair.better], worse=place[pair.worse]) for pair in pairs]
        device = material.batch.mask_BT.device
        batch = material.batch.select(torch.tensor(members, device=device))
        rows = Rows([material.rows[i].sampled for i in members], batch.mask_BT.shape[1], device)
        with autocast(self.settings.precision, device):
            new_BT = log_probabilities(self.policy, rows)
        return pair_loss(self.algorithm, batch, PairTensors.of(moved, device), new_BT)

    def _minibatches(self, material: Material, number: int) -> list[set[int]]:
        """The groups, whole and shuffled, dealt into as many parts as asked; an update of fewer groups has fewer."""
        groups = list(dict.fromkeys(row.sampled.group for row in material.rows))
        Random(f"minibatches {self.settings.seed} {number}").shuffle(groups)  # noqa: S311
        parts = min(self.settings.minibatches, len(groups))
        return [set(groups[start::parts]) for start in range(parts)]

    def _micro_batches(self, members: Sequence[int], rollouts: Sequence[Sampled]) -> list[list[int]]:
        lengths = [len(one.prompt) + len(one.rollout.ids) for one in rollouts]
        return micro_batches(members, lengths, self.settings.micro_batch_tokens)

    def _pair_batches(self, pairs: Sequence[Pair], rollouts: Sequence[Sampled]) -> Iterator[list[Pair]]:
        """Pairs, in their order, in parts whose rollouts fit into a micro-batch."""
        part: list[Pair] = []
        members: set[int] = set()
        for pair in pairs:
            grown = members | {pair.better, pair.worse}
            longest = max(len(rollouts[i].prompt) + len(rollouts[i].rollout.ids) for i in grown)
            if part and longest * len(grown) > self.settings.micro_batch_tokens:
                yield part
                part, grown = [], {pair.better, pair.worse}
            part.append(pair)
            members = grown
        if part:
            yield part


def pairs_of(algorithm: Algorithm, rows: Sequence[Earned], seed: int) -> list[Pair]:
    """The pairs that the algorithm's builder makes of the rows that train; none without a builder."""
    if algorithm.pairs is None:
        return []
    trained = [place for place, row in enumerate(rows) if not row.is_reference]
    of = [rows[place] for place in trained]
    candidates = Candidates(
        group=[row.sampled.group for row in of],
        reward=[row.reward for row in of],
        ids=[row.sampled.rollout.ids for row in of],
        correct=[row.correct for row in of],
        steps=[row.sampled.solution.steps for row in of],
        truncated=[row.sampled.rollout.finish == "length" for row in of],
    )
    found = algorithm.pairs.builder(candidates, seed)
    return [replace(pair, better=trained[pair.better], worse=trained[pair.worse]) for pair in found]


def _add(told: dict[str, float], losses: dict[str, Tensor], times: int) -> None:
    for name, loss in losses.items():
        told[name] = told.get(name, 0.0) + times * float(loss.detach())
