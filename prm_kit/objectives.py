"""Losses over the outputs at read positions: pure functions, float32, each a sum that is divided by one total.

The total is known for a whole update before its parts are computed, so the parts add up to the same loss and gradient
however the update was cut into micro-batches, or dealt to processes; and every labelled step (for "pqm" every ranked
solution) weighs the same, in a long solution or a short one.

N read positions, K outputs, M members, G solutions, S steps; classes in the order (-1, 0, +1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from prm_kit.errors import InputError
from prm_kit.objective_kinds import OBJECTIVE_KINDS, ObjectiveKind, ObjectiveName
from prm_kit.readout import (
    READOUTS,
    Readout,
    at_least_float32,
    classes_log_probabilities,
)

_NOTHING = -1e30  # a logarithm of 0 whose gradient is 0 instead of undefined


class StepTargets(NamedTuple):
    """What the steps of a part of an update should become, in the order of the outputs.

    Attributes:
        target: float32 [N, 3], distributions over (-1, 0, +1); all 0 for a masked step.
        solution: int64 [N], which solution of the part a step is of: 0, 1, 2, ..., each in one run, its steps in order.
        weight: float32 [N, M], how much each member of an ensemble learns a step; None but for "ensemble".
    """

    target: Tensor
    solution: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """One objective with its settings.

    Attributes:
        name: As in `OBJECTIVES`.
        class_weights: Per class (-1, 0, +1), not negative; None: all 1.
        margin: Of "pqm".
    """

    name: ObjectiveName = "cross-entropy"
    class_weights: Sequence[float] | None = None
    margin: float = 4.0

    @property
    def kind(self) -> ObjectiveKind:
        """What it asks of data and model."""
        return OBJECTIVE_KINDS[self.name]

    @property
    def readout(self) -> Readout:
        """How probabilities follow from the outputs. An implicit PRM's outcome reward is the logit of being right."""
        return READOUTS["sigmoid" if self.name == "implicit" else self.kind.readout]

    def loss(self, logits_NK: Tensor, targets: StepTargets) -> Tensor:
        """Loss of a part, not yet divided: a scalar.

        Raises:
            InputError: The shapes differ.
        """
        if len(logits_NK) != len(targets.target):
            raise InputError(f"{len(logits_NK)} outputs for {len(targets.target)} targets: shapes differ")
        return OBJECTIVES[self.name].loss(at_least_float32(logits_NK), targets, self)

    def total(self, targets: StepTargets) -> float:
        """What the losses of all parts of an update are divided by, from the targets of the whole.

        Raises:
            InputError: A target has mass on 0 and the objective has no place for it.
        """
        if not self.kind.knows_neutral and bool((targets.target[:, 1] > 0).any()):
            raise InputError(f"objective {self.name} knows right and wrong only: fold the label 0 (neutral_policy)")
        return OBJECTIVES[self.name].total(targets, self)

    def mass(self, targets: StepTargets) -> Tensor:
        """Weight that each class of each step has in the loss: target x class weight, [N, 3] float32."""
        if self.class_weights is None:
            return targets.target
        return targets.target * targets.target.new_tensor(list(self.class_weights))


def log_score(log_probability_N3: Tensor, mass_N3: Tensor) -> Tensor:
    """Cross-entropy, summed: -sum_n sum_k mass_nk log p_nk.

    With one-hot targets and class weights, divided by the sum of the masses, it is the weighted mean that
    `torch.nn.functional.cross_entropy` gives. Targets in between stay as they are: with p = sigmoid(x) it is the
    binary cross-entropy of a Monte-Carlo value.
    """
    return -(mass_N3 * log_probability_N3.masked_fill(mass_N3 == 0, 0.0)).sum()


def squared_error(logits_N1: Tensor, mass_N3: Tensor) -> Tensor:
    """Sum over steps of weight x (sigmoid(x) - v)^2 for Monte-Carlo values v in [0, 1], the share of +1.

    The weight is what the step has on all classes: 1, or 0 for a masked one.
    """
    weight_N = mass_N3.sum(dim=-1)
    value_N = mass_N3[:, 2] / weight_N.clamp(min=1e-12)
    return (weight_N * (torch.sigmoid(logits_N1[:, 0]) - value_N) ** 2).sum()


def ranking_loss(value_N: Tensor, target_N3: Tensor, solution_N: Tensor, margin: float) -> Tensor:
    """Comparative loss of PQM (arXiv 2410.11287, equation 10), summed over solutions.

    Of one solution, with right steps c_1, c_2, ... in order, wrong steps W, and Q_0 = 0 for where it starts:

    mean over t of -log( exp(Q_ct) / ( sum_{q<=t} exp(Q_cq) + sum_{w in W} exp(Q_w + margin) ) )

    Right steps rise, and every wrong one stays `margin` below each right one and below the start. The start (t = 0)
    is one of the terms where there is a wrong step; without one it would be 0.

    The paper prints 1 / |C|, the number of right steps, before a sum that begins at t = 0. Here, as in the authors'
    released training code, it is the mean over the terms, |C| + 1 of them where a step is wrong: so a solution whose
    steps are all wrong counts too (1 / |C| is then no number), and no solution weighs more than another. What differs
    is a factor |C| / (|C| + 1) for each solution with a wrong step: one with a single right step weighs half as much
    as printed, one with nine 0.9 times.

    Args:
        value_N: Scores of the steps, without bounds.
        target_N3: A step is right or wrong by the larger of its two masses; one with equal masses is not ranked.
        solution_N: As in `StepTargets`.
        margin: Zeta of the paper, which used 2 to 16.
    """
    value_GS, right_GS, wrong_GS = _by_solution(value_N, target_N3, solution_N)
    against_G1 = (value_GS + margin).masked_fill(~wrong_GS, _NOTHING).logsumexp(dim=-1, keepdim=True)
    right_GS[:, 0] = True
    up_to_GS = value_GS.masked_fill(~right_GS, _NOTHING).logcumsumexp(dim=-1)
    right_GS[:, 0] = wrong_GS.any(dim=-1)
    term_GS = (torch.logaddexp(up_to_GS, against_G1) - value_GS) * right_GS
    return (term_GS.sum(dim=-1) / right_GS.sum(dim=-1).clamp(min=1)).sum()


def ordered_pairs(value_N: Tensor, targets: StepTargets) -> tuple[float, float]:
    """Pairs of a right and a wrong step of one solution, and how many have the right one above (ties count half)."""
    value_GS, right_GS, wrong_GS = _by_solution(value_N, targets.target, targets.solution)
    pair_GSS = right_GS[:, :, None] & wrong_GS[:, None, :]
    apart_GSS = value_GS[:, :, None] - value_GS[:, None, :]
    return float(pair_GSS.sum()), float((pair_GSS * (apart_GSS.sign() + 1) / 2).sum())


def ranked_solutions(target_N3: Tensor, solution_N: Tensor) -> int:
    """How many solutions `ranking_loss` has a term for: those with a step that is right or wrong."""
    return int(solution_N[target_N3[:, 2] != target_N3[:, 0]].bincount().count_nonzero())


def balanced_class_weights(masses_K: Sequence[float]) -> list[float]:
    """Weights under which every class that occurs has the same total mass and the mean weight of a step is 1.

    Class k gets total / (classes that occur x its mass); a class that does not occur gets 0.
    """
    occur = sum(mass > 0 for mass in masses_K)
    return [sum(masses_K) / (occur * mass) if mass > 0 else 0.0 for mass in masses_K]


def _by_solution(value_N: Tensor, target_N3: Tensor, solution_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores by solution and step, and which steps are right and which wrong, [G, 1 + S]; column 0 is the start."""
    column_N = torch.arange(1, len(solution_N) + 1, device=value_N.device)
    column_N = column_N - torch.searchsorted(solution_N.contiguous(), solution_N.contiguous())
    shape = (int(solution_N.max()) + 1, int(column_N.max()) + 1) if len(solution_N) else (0, 1)
    value_GS = value_N.new_zeros(shape)
    right_GS, wrong_GS = (value_N.new_zeros(shape, dtype=torch.bool) for _ in range(2))
    value_GS[solution_N, column_N] = value_N
    right_GS[solution_N, column_N] = target_N3[:, 2] > target_N3[:, 0]
    wrong_GS[solution_N, column_N] = target_N3[:, 2] < target_N3[:, 0]
    return value_GS, right_GS, wrong_GS


def _member_log_score(logits_NK: Tensor, targets: StepTargets, objective: Objective) -> Tensor:
    """Every member's own cross-entropy, with the steps that its resampling gave it."""
    mass_N3, members = objective.mass(targets), logits_NK.shape[1] // 3
    weight_NM = _member_weights(targets, members)
    log_M = [classes_log_probabilities(logits_NK[:, 3 * m : 3 * m + 3]) for m in range(members)]
    return torch.stack([log_score(log, mass_N3 * weight_NM[:, m, None]) for m, log in enumerate(log_M)]).sum()


def _member_weights(targets: StepTargets, members: int) -> Tensor:
    if targets.weight is None or targets.weight.shape[1] != members:
        raise InputError(f"an ensemble of {members} needs the weight of every step for every member")
    return targets.weight


def _member_total(targets: StepTargets, objective: Objective) -> float:
    if targets.weight is None:
        raise InputError("an ensemble needs the weight of every step for every member")
    return float((objective.mass(targets).sum(dim=-1, keepdim=True).double() * targets.weight).sum())


def _log_score(logits_NK: Tensor, targets: StepTargets, objective: Objective) -> Tensor:
    log_probabilities = objective.readout.log_probabilities
    assert log_probabilities is not None
    return log_score(log_probabilities(logits_NK), objective.mass(targets))


def _all_mass(targets: StepTargets, objective: Objective) -> float:
    return float(objective.mass(targets).double().sum())


class Loss(NamedTuple):
    """A loss and what it is divided by."""

    loss: Callable[[Tensor, StepTargets, Objective], Tensor]
    total: Callable[[StepTargets, Objective], float]


OBJECTIVES: dict[ObjectiveName, Loss] = {
    "cross-entropy": Loss(_log_score, _all_mass),
    "ordinal": Loss(_log_score, _all_mass),
    "binary": Loss(_log_score, _all_mass),
    "bce": Loss(_log_score, _all_mass),
    "mse": Loss(lambda logits, t, objective: squared_error(logits, objective.mass(t)), _all_mass),
    "pqm": Loss(
        lambda logits, t, objective: ranking_loss(logits[:, 0], t.target, t.solution, objective.margin),
        lambda t, objective: float(ranked_solutions(t.target, t.solution)),
    ),
    "ensemble": Loss(_member_log_score, _member_total),
    "causal": Loss(_log_score, _all_mass),
    "implicit": Loss(_log_score, _all_mass),
}
"""By name."""
