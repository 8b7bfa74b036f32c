"""Losses over the logits at read positions: pure functions, float32.

N read positions, K = 3 classes in the order (-1, 0, +1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prm_kit.errors import InputError


def class_mass(target_NK: Tensor, class_weight_K: Tensor | None = None) -> Tensor:
    """Weight that each class of each step has in the loss: target x class weight, [N, K] float32.

    Its sum over an update is what the update's loss is divided by.

    Args:
        target_NK: Target distributions; each row sums to 1, or to 0 for a masked step.
        class_weight_K: Non-negative; None: all 1.
    """
    return target_NK if class_weight_K is None else target_NK * class_weight_K


def step_cross_entropy(logits_NK: Tensor, mass_NK: Tensor, total: float) -> Tensor:
    """Cross-entropy of a part of an update, over the mass of the whole update: a scalar.

    -(1 / total) * sum_n sum_k mass_nk * log softmax(logits_n)_k

    The parts of an update add up to the same loss and gradient however it was cut into micro-batches, because all
    are divided by the same total, and every labelled step weighs the same, in a long solution or a short one. With
    one-hot targets and class weights it is the weighted mean that `torch.nn.functional.cross_entropy` gives.

    Args:
        logits_NK: Logits at the read positions of this part.
        mass_NK: `class_mass` of the same positions.
        total: Sum of `class_mass` over the whole update, above 0.

    Raises:
        InputError: The shapes differ, or the total is not above 0.
    """
    if logits_NK.shape != mass_NK.shape:
        raise InputError(f"logits {tuple(logits_NK.shape)} and targets {tuple(mass_NK.shape)} differ in shape")
    if not total > 0:
        raise InputError(f"the labelled steps of an update have a total weight of {total}: nothing to learn from")
    return -(mass_NK * torch.log_softmax(logits_NK.float(), dim=-1)).sum() / total


def balanced_class_weights(masses_K: Sequence[float]) -> list[float]:
    """Weights under which every class that occurs has the same total mass and the mean weight of a step is 1.

    Class k gets total / (classes that occur x its mass); a class that does not occur gets 0.
    """
    occur = sum(mass > 0 for mass in masses_K)
    return [sum(masses_K) / (occur * mass) if mass > 0 else 0.0 for mass in masses_K]
