"""From a batch of rollouts to steps of the optimiser: minibatches of whole groups, portions that fit into memory.

B rollouts, T generated tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

import torch
from torch import Tensor

from prm_kit.errors import InputError
from prm_kit.train_start import autocast
from rl.algorithms import Algorithm
from rl.batch import Batch
from rl.drift import Drift
from rl.gathering import Earned
from rl.models import Models
from rl.objective import Update, pair_loss, policy_loss, value_loss
from rl.pair_losses import PairTensors
from rl.pairs import Candidates, Pair
from rl.passes import Passes, lengths_of, shortest
from rl.portions import pair_batches, portions
from rl.rollouts import NotFiniteError, Sampled
from rl.train_settings import RlSettings


@dataclass
class Material:
    """What an update learns from, rows alike in all of it and in all processes.

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
class _Told:
    """What this process finds in an optimiser step.

    Attributes:
        losses: Its share of every loss.
        drift: Of the rows that it computed.
        refused: Why a loss is none.
        first: Nothing was learnt from these rollouts before this step.
    """

    first: bool
    losses: dict[str, float] = field(default_factory=dict)
    drift: Drift = field(default_factory=Drift)
    refused: list[str] = field(default_factory=list)


@dataclass
class Learner:
    """The models that learn, and how.

    Attributes:
        algorithm: Its losses.
        settings: Minibatches, passes, precision, memory.
        models: Policy and value model.
        optimizer: Over both; its groups have their rates already.
    """

    algorithm: Algorithm
    settings: RlSettings
    models: Models
    optimizer: torch.optim.Optimizer

    def __post_init__(self) -> None:
        self.passes = Passes(self.settings, self.models)

    def learn(self, material: Material, number: int) -> dict[str, float]:
        """Go through the rollouts of update `number`, all processes together.

        Returns:
            Means over the optimiser steps, and the figures of `Drift`.

        Raises:
            NotFiniteError: Nothing was changed by the step that failed.
        """
        told: dict[str, list[float]] = {}
        drift: list[Drift] = []
        for turn in range(self.settings.passes):
            parts = self._minibatches(material, number * self.settings.passes + turn)
            for groups in parts:
                with self.passes.checkpointing(), self.passes.attention(self.models.trained.values()):
                    found, moved = self._step(material, groups, len(parts), number, first=not drift)
                drift.append(moved)
                for name, value in found.items():
                    told.setdefault(name, []).append(value)
        self.models.sync()
        return {name: sum(values) / len(values) for name, values in told.items()} | Drift.joined(drift).figures()

    def _step(
        self, material: Material, groups: set[int], n_parts: int, number: int, *, first: bool
    ) -> tuple[dict[str, float], Drift]:
        """One step of the optimiser; a part's loss is its share of the whole update's, so it counts `n_parts` times."""
        rows, models = material.rows, self.models
        members = [i for i, row in enumerate(rows) if row.sampled.group in groups and not row.is_reference]
        critic = self.algorithm.critic
        learns = critic is None or number >= critic.warm_up
        passes = self._passes(material, members, groups, learns)
        mine = _Told(first)
        self.optimizer.zero_grad(set_to_none=True)
        of_value = sum(is_row for is_row, _ in passes)
        for place, (_, losses_of) in enumerate(passes):
            models.expect(models.learner, place == len(passes) - 1)
            if models.value is not None:
                models.expect(models.value, place == of_value - 1)
            loss = n_parts * torch.stack(losses_of(mine)).sum()
            (loss * models.gradient_share).backward()  # type: ignore[no-untyped-call]
        models.add_gradients()
        all_told = models.world.gather(mine)
        told = {"loss": 0.0}
        for name in dict.fromkeys(name for one in all_told for name in one.losses):
            told[name] = n_parts * sum(one.losses.get(name, 0.0) for one in all_told)
        # Each model's gradient has a length of its own: a value model that is far off must not silence the policy.
        told["gradient_norm"] = self.passes.cut_gradient(models.learner)
        if models.value is not None:
            told["gradient_norm_value"] = self.passes.cut_gradient(models.value)
        refused = [reason for one in all_told for reason in one.refused]
        refused += [f"{name} is {value}" for name, value in told.items() if not math.isfinite(value)]
        if refused:
            raise NotFiniteError(f"not finite: {', '.join(refused)}", [rows[i].sampled for i in members])
        self.optimizer.step()
        return told, Drift.joined([one.drift for one in all_told])

    def _passes(
        self, material: Material, members: list[int], groups: set[int], learns: bool
    ) -> list[tuple[bool, Callable[[_Told], list[Tensor]]]]:
        """This process's passes through the models: whether each is one of rows (else of pairs), and what computes it.

        A process with less to do than another passes its shortest rollout with weight 0.
        """
        rollouts = material.rollouts
        found: list[tuple[bool, Callable[[_Told], list[Tensor]]]] = []
        if material.update is not None:
            for chosen in self.passes.portions(members, rollouts):
                found.append((True, partial(self._losses, material, chosen, members, learns)))
        if learns:
            pairs = [pair for pair in material.pairs if material.rows[pair.better].sampled.group in groups]
            lengths, budget = lengths_of(rollouts), self.settings.micro_batch_tokens
            tokens = [lengths[pair.better] + lengths[pair.worse] for pair in pairs]
            for some in portions(pairs, tokens, self.models.world, lambda mine: pair_batches(mine, lengths, budget)):
                found.append((False, partial(self._pair_losses, material, some, pairs)))
        return found

    def _losses(
        self, material: Material, chosen: list[int], members: list[int], learns: bool, mine: _Told
    ) -> list[Tensor]:
        """Losses of the policy (where it learns) and of the value model on some rows."""
        assert material.update is not None
        weight, device = float(bool(chosen)), material.batch.mask_BT.device
        chosen = chosen or [shortest(members, material.rollouts)]
        part = torch.tensor(chosen, device=device)
        batch, update = material.batch.select(part), material.update.select(part)
        rows = self.passes.rows([material.rows[i].sampled for i in chosen], batch.mask_BT.shape[1])
        losses = []
        if learns:
            with autocast(self.settings.precision, device):
                new_BT, entropy_BT = self.models.learner(rows, entropies=self.algorithm.entropy_weight != 0)
            self._look(mine, batch, new_BT, update.mask_BT, weight)
            losses.append(
                _counted(
                    mine, "loss", weight, new_BT,
                    lambda: policy_loss(self.algorithm, update, batch, new_BT, entropy_BT).total,
                )
            )  # fmt: skip
        if self.models.value is not None:
            with autocast(self.settings.precision, device):
                values_BT = self.models.value(rows)
            losses.append(
                _counted(
                    mine, "loss_value", weight, values_BT, lambda: value_loss(self.algorithm, update, batch, values_BT)
                )
            )
        return losses

    def _pair_losses(
        self, material: Material, pairs: Sequence[Pair], all_pairs: Sequence[Pair], mine: _Told
    ) -> list[Tensor]:
        weight, device = float(bool(pairs)), material.batch.mask_BT.device
        pairs = pairs or all_pairs[:1]
        members = sorted({row for pair in pairs for row in (pair.better, pair.worse)})
        place = {member: i for i, member in enumerate(members)}
        moved = [replace(pair, better=place[pair.better], worse=place[pair.worse]) for pair in pairs]
        batch = material.batch.select(torch.tensor(members, device=device))
        rows = self.passes.rows([material.rows[i].sampled for i in members], batch.mask_BT.shape[1])
        with autocast(self.settings.precision, device):
            new_BT, _ = self.models.learner(rows)
        # A row counts once for each of its pairs: how often pairs go through the model together must not show.
        seen = torch.tensor([row for pair in moved for row in (pair.better, pair.worse)], device=device)
        of_pairs = batch.select(seen)
        self._look(mine, of_pairs, new_BT[seen], of_pairs.mask_BT, weight)
        tensors = PairTensors.of(moved, device)
        return [_counted(mine, "loss_pairs", weight, new_BT, lambda: pair_loss(self.algorithm, batch, tensors, new_BT))]

    def _look(self, mine: _Told, batch: Batch, new_BT: Tensor, mask_BT: Tensor, weight: float) -> None:
        if weight and batch.old_BT is not None:
            mine.drift.add(
                self.algorithm.surrogate, new_BT, batch.old_BT, mask_BT, batch.rollout_BT if mine.first else None
            )

    def _minibatches(self, material: Material, number: int) -> list[set[int]]:
        """The groups, whole and shuffled, dealt into as many parts as asked; an update of fewer groups has fewer."""
        groups = list(dict.fromkeys(row.sampled.group for row in material.rows))
        Random(f"minibatches {self.settings.seed} {number}").shuffle(groups)  # noqa: S311
        parts = min(self.settings.minibatches, len(groups))
        return [set(groups[start::parts]) for start in range(parts)]


def pairs_of(algorithm: Algorithm, rows: Sequence[Earned], seed: int) -> list[Pair]:
    """The pairs that the algorithm's builder makes of the rows that may stand in one; none without a builder."""
    if algorithm.pairs is None:
        return []
    there = [place for place, row in enumerate(rows) if row.in_pairs]
    of = [rows[place] for place in there]
    candidates = Candidates(
        group=[row.sampled.group for row in of],
        reward=[row.reward for row in of],
        ids=[row.sampled.rollout.ids for row in of],
        correct=[row.correct for row in of],
        steps=[row.sampled.solution.steps for row in of],
        truncated=[row.sampled.rollout.finish == "length" for row in of],
        prefix=[row.sampled.prefix or 0 for row in of],
        step_of_token=[row.sampled.step_of_token for row in of],
        step_values=[row.step_values for row in of],
    )
    found = algorithm.pairs.builder(candidates, seed)
    return [replace(pair, better=there[pair.better], worse=there[pair.worse]) for pair in found]


def _counted(mine: _Told, name: str, weight: float, said_BT: Tensor, loss_of: Callable[[], Tensor]) -> Tensor:
    """A loss, added to what this process tells.

    One that is refused stops all processes after the pass, not one in the middle of it: the others would wait.
    """
    try:
        loss = loss_of() * weight
    except InputError as error:
        mine.refused.append(str(error))
        return said_BT.sum() * 0.0
    mine.losses[name] = mine.losses.get(name, 0.0) + float(loss.detach())
    return loss
