"""An algorithm applied: the advantages of a whole update, and the loss of any part of it.

The loop branches on nothing but the route: `advantages` and `policy_loss` where `algorithm.surrogate` is there, pairs
where `algorithm.pairs` is. B sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prm_kit.errors import UsageError
from rl.algorithms import Algorithm
from rl.batch import Batch
from rl.covariance import held_back
from rl.credit import to_tokens
from rl.loss_reduction import reduced, token_mean
from rl.pair_losses import PairTensors
from rl.returns import critic_targets
from rl.surrogates import log_ratio


@dataclass(frozen=True)
class Update:
    """What an update fixes before its first gradient; rows as in the batch.

    Attributes:
        advantage_BT: float32, 0 where nothing trains.
        outcome_BT: The part that comes from the composed reward.
        process_BT: The part that comes from crediting steps, already weighed.
        mask_BT: bool, tokens that the loss runs over: all of trained rows.
        weight_B: float32, weight of each token of a row in the loss.
        likelihood_B: float32, weight of -log pi of each token of a row.
        target_BT: What the critic regresses on; None without one.
        held_BT: bool, tokens that are held back; None without `algorithm.hold`.
    """

    advantage_BT: Tensor
    outcome_BT: Tensor
    process_BT: Tensor
    mask_BT: Tensor
    weight_B: Tensor
    likelihood_B: Tensor
    target_BT: Tensor | None
    held_BT: Tensor | None = None

    def select(self, rows: Tensor) -> Update:
        """The same of some rows; their losses add up to the update's."""
        target_BT = None if self.target_BT is None else self.target_BT[rows]
        held_BT = None if self.held_BT is None else self.held_BT[rows]
        return Update(
            self.advantage_BT[rows],
            self.outcome_BT[rows],
            self.process_BT[rows],
            self.mask_BT[rows],
            self.weight_B[rows],
            self.likelihood_B[rows],
            target_BT,
            held_BT,
        )


@dataclass(frozen=True)
class Loss:
    """A part's share of an update's loss.

    Attributes:
        total: Scalar with a gradient.
        parts: Each term, weighed, without a gradient: policy, divergence, entropy, likelihood.
    """

    total: Tensor
    parts: dict[str, float]


def update_of(algorithm: Algorithm, batch: Batch, history: Sequence[float] = ()) -> Update:
    """Advantages and weights of a whole update.

    Completions that were cut off gain nothing by their steps and keep what they lose by them: were they let off, a
    wrong solution would be the better for running on to the limit. `batch.reward_B` was composed with
    `algorithm.composed_weights`.

    Args:
        algorithm: On the policy-gradient route.
        batch: All rows of the update, groups whole.
        history: Mean rewards of earlier groups, for filters of rows that adapt.

    Raises:
        UsageError: The batch lacks what a part needs.
    """
    if algorithm.estimator is None:
        raise UsageError(f"algorithm {algorithm.name} has no advantages: it is on the pair route")
    mask_BT = batch.mask_BT & batch.trained_B[:, None]
    counted_BT = batch.mask_BT
    if algorithm.row_filter is not None:
        counted_BT = counted_BT & (algorithm.row_filter(batch, history) | ~batch.trained_B)[:, None]
    credit_BT = torch.where(batch.mask_BT, batch.reward_B[:, None].float(), 0.0)
    if algorithm.reward_penalty is not None:
        old_BT, reference_BT = batch.need("old_BT", "reward_penalty"), batch.need("reference_BT", "reward_penalty")
        penalty_BT = algorithm.reward_penalty.estimate(old_BT, reference_BT, batch.mask_BT)
        credit_BT = credit_BT - algorithm.reward_penalty.weight * penalty_BT
    outcome_BT = algorithm.estimator(credit_BT, counted_BT, batch)
    process_BT = torch.zeros_like(outcome_BT)
    if algorithm.credit is not None and algorithm.process_estimator is not None:
        step_BT, credited_BT = to_tokens(algorithm.credit(batch), batch)
        credited_BT = credited_BT & counted_BT
        process_BT = algorithm.weights.process * algorithm.process_estimator(step_BT, credited_BT, batch)
        if batch.truncated_B is not None:
            process_BT = torch.where(batch.truncated_B[:, None], process_BT.clamp(max=0.0), process_BT)
        credit_BT = credit_BT + algorithm.weights.process * torch.where(credited_BT, step_BT, 0.0)
    advantage_BT = outcome_BT + process_BT
    if algorithm.finish is not None:
        advantage_BT = algorithm.finish(advantage_BT, counted_BT, batch)
    lengths_B = mask_BT.sum(1)
    right_B = torch.zeros_like(lengths_B)
    if algorithm.likelihood_weight > 0:
        right_B = torch.where(batch.need("correct_B", "likelihood_weight") == 1, lengths_B, 0)
    target_BT = None
    if algorithm.critic is not None:
        values_BT = batch.need("values_BT", "critic")
        target_BT = critic_targets(credit_BT, values_BT, mask_BT, lam=algorithm.critic.lam)
    return Update(
        advantage_BT,
        outcome_BT,
        process_BT,
        mask_BT,
        algorithm.reduction(lengths_B, batch.group_B, batch.max_tokens),
        algorithm.likelihood_weight * token_mean(right_B, batch.group_B, batch.max_tokens),
        target_BT,
        None if algorithm.hold is None else held_back(algorithm.hold, advantage_BT, counted_BT, batch),
    )


def policy_loss(
    algorithm: Algorithm, update: Update, batch: Batch, new_BT: Tensor, entropy_BT: Tensor | None = None
) -> Loss:
    """Loss of some rows of an update.

    Args:
        algorithm: The algorithm.
        update: Of the same rows as the batch (`Update.select`).
        batch: The rows.
        new_BT: Log-probabilities under the policy, with a gradient.
        entropy_BT: Entropy at each token; needed where the algorithm has an entropy weight.

    Raises:
        UsageError: The batch lacks what a part needs.
        InputError: A loss is not finite.
    """
    if algorithm.surrogate is None:
        raise UsageError(f"algorithm {algorithm.name} has no surrogate: it is on the pair route")
    mask_BT = update.mask_BT
    old_BT = new_BT.detach() if algorithm.on_policy_only else batch.need("old_BT", "the surrogate")
    loss_BT = algorithm.surrogate(new_BT, old_BT, update.advantage_BT, mask_BT)
    if algorithm.hold is not None and update.held_BT is not None:
        away_BT = algorithm.hold.weight * log_ratio(new_BT, old_BT, mask_BT).abs()
        loss_BT = loss_BT + torch.where(update.held_BT, away_BT, 0.0)
    if algorithm.rollout_weight is not None:
        engine_BT = batch.need("rollout_BT", "rollout_weight")
        loss_BT = loss_BT * algorithm.rollout_weight(batch.need("old_BT", "rollout_weight"), engine_BT, mask_BT)
    terms = {"policy": reduced(loss_BT, update.weight_B, mask_BT)}
    if algorithm.divergence is not None:
        divergence_BT = algorithm.divergence.estimate(new_BT, batch.need("reference_BT", "divergence"), mask_BT)
        terms["divergence"] = algorithm.divergence.weight * reduced(divergence_BT, update.weight_B, mask_BT)
    if algorithm.entropy_weight != 0:
        if entropy_BT is None:
            raise UsageError(f"algorithm {algorithm.name} has an entropy weight and was given no entropies")
        terms["entropy"] = -algorithm.entropy_weight * reduced(entropy_BT, update.weight_B, mask_BT)
    if algorithm.likelihood_weight != 0:
        terms["likelihood"] = reduced(-new_BT, update.likelihood_B, mask_BT)
    total = torch.stack(list(terms.values())).sum()
    return Loss(total, {name: float(term.detach()) for name, term in terms.items()})


def value_loss(algorithm: Algorithm, update: Update, batch: Batch, values_BT: Tensor) -> Tensor:
    """The critic's share of an update's loss, a scalar; `values_BT` carries the gradient, the batch's are the old."""
    if algorithm.critic is None or update.target_BT is None:
        raise UsageError(f"algorithm {algorithm.name} has no critic")
    old_BT = batch.need("values_BT", "critic")
    loss_BT = algorithm.critic.loss(values_BT, old_BT, update.target_BT, update.mask_BT)
    return reduced(loss_BT, update.weight_B, update.mask_BT)


def pair_loss(algorithm: Algorithm, batch: Batch, pairs: PairTensors, new_BT: Tensor) -> Tensor:
    """Loss of some of an update's pairs, a scalar, weighed."""
    if algorithm.pairs is None:
        raise UsageError(f"algorithm {algorithm.name} has no pairs")
    loss_P = algorithm.pairs.loss(new_BT, batch.old_BT, batch.reference_BT, batch.mask_BT, pairs)
    return algorithm.pairs.weight * (loss_P * pairs.weight_P).sum()
