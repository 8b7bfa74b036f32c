"""PRIME's PRM (arXiv 2502.01456): a language model whose log-ratio to a reference rewards tokens, learning along.

    r_t = beta * (log pi_prm(y_t | x, y_<t) - log pi_ref(y_t | x, y_<t))

It starts as the policy does, so that its first rewards are 0, and is never shown a step label: each update it learns
from which of the run's own rollouts are right, by the cross-entropy of sigmoid(sum_t r_t). The paper found that judging
an update's rollouts before learning from them ("single forward", the default) does as well as judging them afterwards.

B rollouts, T generated tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from prm_kit.implicit import implicit_from_backbone
from prm_kit.optimization import choose_trained, merge_adapters
from prm_kit.sharding import whole_weights
from prm_kit.step_reading import default_reading
from prm_kit.train_start import autocast
from prm_kit.training_state import set_trained_weights
from rl.algorithms import OnlinePrm
from rl.batch import Batch
from rl.models import Models
from rl.passes import Passes, shortest
from rl.rollouts import NotFiniteError, Sampled


def token_rewards(prm_BT: Tensor, reference_BT: Tensor, mask_BT: Tensor, beta: float) -> Tensor:
    """Implicit rewards [B, T] of the generated tokens, 0 elsewhere, from log-probabilities under PRM and reference."""
    return torch.where(mask_BT, beta * (prm_BT - reference_BT), 0.0)


def outcome_losses(rewards_BT: Tensor, correct_B: Tensor) -> Tensor:
    """Cross-entropy [B] of sigmoid(sum_t r_t) against right (1) and wrong (0); 0 where nobody knows (NaN)."""
    known_B = ~correct_B.isnan()
    losses_B = binary_cross_entropy_with_logits(
        rewards_BT.sum(1), torch.where(known_B, correct_B, 0.0), reduction="none"
    )
    return torch.where(known_B, losses_B, 0.0)


def with_token_rewards(batch: Batch, rewards_BT: Tensor) -> Batch:
    """The batch with every token as a step of its own, rewarded by itself; rollouts that do not train have none."""
    judged_BT = batch.mask_BT & batch.trained_B[:, None]
    position_BT = torch.arange(rewards_BT.shape[1], device=rewards_BT.device).expand(rewards_BT.shape)
    return replace(batch, step_BT=position_BT, step_rewards_BS=torch.where(judged_BT, rewards_BT, torch.nan))


@dataclass(frozen=True)
class OnlineJudge:
    """Judges the rollouts of an update and learns from their outcomes.

    Attributes:
        part: The algorithm's.
        passes: Through the models, among which the PRM is.
        optimizer: Of all models; its groups have their rates already. One in which the others have no gradient changes
            the PRM alone.
    """

    part: OnlinePrm
    passes: Passes
    optimizer: torch.optim.Optimizer

    def judged(self, rollouts: Sequence[Sampled], batch: Batch) -> tuple[Batch, dict[str, float]]:
        """The batch with its tokens rewarded, and what the PRM learnt; all processes together.

        Returns:
            The batch, and means over the rollouts that train and have a verdict, before this update's step: loss_prm,
            accuracy_prm (share whose outcome the sign of the whole reward tells), and gradient_norm_prm.

        Raises:
            NotFiniteError: Nothing was changed.
        """
        reference_BT = batch.need("reference_BT", "an online PRM")
        prm_BT, told = self._learn(rollouts, batch)
        if self.part.learn_first:
            assert self._models.prm is not None
            prm_BT = self.passes.frozen(self._models.prm, rollouts)
        return with_token_rewards(batch, token_rewards(prm_BT, reference_BT, batch.mask_BT, self.part.beta)), told

    @property
    def _models(self) -> Models:
        return self.passes.models

    def _learn(self, rollouts: Sequence[Sampled], batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """One step of the optimiser; the PRM's log-probabilities [B, T] before it, 0 in rows that do not train."""
        prm, models = self._models.prm, self._models
        assert prm is not None
        correct_B, reference_BT = batch.need("correct_B", "an online PRM"), batch.need("reference_BT", "an online PRM")
        members = batch.trained_B.nonzero()[:, 0].tolist()
        correct_B = torch.where(batch.trained_B, correct_B, torch.nan)
        known = max(1, int((~correct_B.isnan()).sum()))
        found_BT = torch.zeros_like(reference_BT)
        self.optimizer.zero_grad(set_to_none=True)
        portions = self.passes.portions(members, rollouts)
        with self.passes.checkpointing(), self.passes.attention([prm]):
            for place, mine in enumerate(portions):
                chosen = mine or [shortest(members, rollouts)]
                models.expect(prm, place == len(portions) - 1)
                with autocast(self.passes.settings.precision, models.device):
                    said_BT, _ = prm(self.passes.rows([rollouts[i] for i in chosen], found_BT.shape[1]))
                rewards_BT = token_rewards(said_BT, reference_BT[chosen], batch.mask_BT[chosen], self.part.beta)
                loss = outcome_losses(rewards_BT, correct_B[chosen]).sum() / known * float(bool(mine))
                (loss * models.gradient_share).backward()  # type: ignore[no-untyped-call]
                if mine:
                    found_BT[mine] = said_BT.detach()
        models.add_gradients()
        models.world.add([found_BT])
        rewards_BT = token_rewards(found_BT, reference_BT, batch.mask_BT, self.part.beta)
        right_B = (rewards_BT.sum(1) > 0) == (correct_B == 1)
        told = {
            "loss_prm": float(outcome_losses(rewards_BT, correct_B).sum()) / known,
            "accuracy_prm": float((right_B & ~correct_B.isnan()).sum()) / known,
            "gradient_norm_prm": self.passes.cut_gradient(prm),
        }
        if bad := [f"{name} is {value}" for name, value in told.items() if not math.isfinite(value)]:
            raise NotFiniteError(f"not finite: {', '.join(bad)}", [rollouts[i] for i in members])
        self.optimizer.step()
        return found_BT, told


def save_online_prm(models: Models, part: OnlinePrm, path: Path) -> None:
    """Leave the PRM and its reference as an implicit PRM, which scores steps wherever a PRM is named.

    All processes together; the first one writes.
    """
    assert models.prm is not None
    weights = whole_weights(models.prm.model, models.world)
    if not models.world.is_first:
        return
    settings, policy = models.settings, models.policy
    reading = default_reading(policy.tokenizer).model_copy(update={"template": policy.template})
    found = implicit_from_backbone(
        settings.policy, reference=settings.reference, beta=part.beta, step_score="difference", reading=reading
    )
    adapters = None
    if settings.lora is not None:
        adapters = choose_trained(found.model, found.head, train_layers=None, lora=settings.lora, fresh_head=False)
    set_trained_weights(found.model, weights)
    if adapters is not None:
        merge_adapters(adapters)
    found.save(path)
