"""What the training loop measures of outputs against targets, for every objective.

The loss is always there. Accuracy and macro-F1 are there where outputs are class probabilities: soft targets count as
they are (a target of 0.7 on +1 adds 0.7 to the row of +1 in the confusion matrix), and with one-hot targets these are
the ordinary figures. Scores that only rank steps have the share of ordered pairs instead.

N steps, K outputs, S steps of a solution; classes in the order (-1, 0, +1).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from prm_kit.objectives import Objective, StepTargets, log_score, ordered_pairs
from prm_kit.records import LABEL_VALUES


class StepMetrics:
    """Adds up over steps.

    Only the loss is weighted by class, with the weights of the training objective, so that the two can be compared.
    An ensemble's loss is that of its mean probability: what it will be used for.

    Attributes:
        objective: What is trained for.
        sums: Everything that is added up, float64 [14]: those of several processes can be added together.
            0 to 8: the confusion matrix, target class x likeliest class; 9, 10: loss and what it is divided by;
            11, 12: pairs of a right and a wrong step of one solution, and those with the right one above; 13: steps.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.sums = np.zeros(14)

    def add(self, logits_NK: Tensor, targets: StepTargets) -> None:
        """Count the steps of a part. For "pqm" all steps of a solution must be in one part."""
        log_probabilities = self.objective.readout.log_probabilities
        if self.objective.kind.classifies and log_probabilities is not None:
            self.add_probabilities(log_probabilities(logits_NK), targets)
            return
        loss = float(self.objective.loss(logits_NK, targets))
        pairs, ordered = ordered_pairs(logits_NK[:, 0].float(), targets)
        self.sums[9:] += [loss, self.objective.total(targets), pairs, ordered, len(logits_NK)]

    def add_probabilities(self, log_probability_N3: Tensor, targets: StepTargets) -> None:
        """Count steps by their class probabilities."""
        log_N3 = log_probability_N3.double()
        target_N3, mass_N3 = targets.target.double(), self.objective.mass(targets).double()
        if self.objective.name == "mse":
            loss = (target_N3.sum(dim=-1) * (log_N3[:, 2].exp() - target_N3[:, 2]) ** 2).sum()
        else:
            loss = log_score(log_N3, mass_N3)
        confusion = target_N3.T @ torch.eye(3, dtype=torch.float64, device=log_N3.device)[log_N3.argmax(dim=-1)]
        self.sums[:9] += confusion.flatten().cpu().numpy()
        self.sums[9:11] += [float(loss), float(mass_N3.sum())]
        self.sums[13] += float(target_N3.sum())

    def result(self) -> dict[str, float]:
        """Loss (per unit of what it is divided by) and n, with what else the objective has.

        With class probabilities: accuracy, macro-F1 over the classes that occur, and F1 of each of them. Without:
        `ordered_pairs`, the share of pairs of a right and a wrong step of one solution in which the right one is
        above (ties count half), where there is such a pair.
        """
        confusion = self.sums[:9].reshape(3, 3).tolist()
        loss, total, pairs, ordered, steps = self.sums[9:].tolist()
        if steps == 0:
            return {"n": 0}
        found = {"loss": loss / total if total else 0.0}
        if not self.objective.kind.classifies:
            return found | ({"ordered_pairs": ordered / pairs} if pairs else {}) | {"n": round(steps)}
        f1 = {}
        for k, value in enumerate(LABEL_VALUES):
            occurs, chosen = sum(confusion[k]), sum(row[k] for row in confusion)
            if occurs:
                f1[f"f1_{value:+d}" if value else "f1_0"] = 2 * confusion[k][k] / (occurs + chosen)
        return {
            **found,
            "accuracy": sum(confusion[k][k] for k in range(3)) / steps,
            "macro_f1": sum(f1.values()) / len(f1),
            **f1,
            "n": round(steps),
        }


def baseline_metrics(objective: Objective, train: StepTargets, measured: StepTargets) -> dict[str, float]:
    """Metrics of whoever says the same of every step: what is best on the training targets.

    That is the class prior where there are class probabilities: its loss is that of the constant that is best under
    the class weights (for "mse" the mean value), and it names the commonest class. For "pqm" it is the one score that
    ranks best against the start, whose score is 0.

    Args:
        objective: What is trained for.
        train: All training targets. A class that they never show costs the log of 1e-6.
        measured: What is measured on.
    """
    metrics = StepMetrics(objective)
    steps = len(measured.target)
    if not objective.kind.classifies:
        metrics.add(torch.full((steps, 1), best_constant(objective, train)), measured)
        return metrics.result()
    best_3 = objective.mass(train).double().sum(dim=0)
    prior_3 = train.target.double().sum(dim=0)
    log_best_3 = (best_3 / best_3.sum()).clamp(min=1e-6).log()
    metrics.add_probabilities(log_best_3.expand(steps, 3), measured)
    confusion_KK = np.zeros((3, 3))
    confusion_KK[:, int(prior_3.argmax())] = measured.target.double().sum(dim=0).cpu().numpy()
    metrics.sums[:9] = confusion_KK.flatten()
    return metrics.result()


def best_constant(objective: Objective, targets: StepTargets, bound: float = 30.0) -> float:
    """The score that, said of every step, has the least ranking loss, within +-`bound`.

    The loss is convex in it (logarithms of sums of exponentials, less a line), so thirds of the range are dropped
    until 1e-4 is left.
    """

    def loss(constant: float) -> float:
        return float(objective.loss(torch.full((len(targets.target), 1), constant), targets))

    low, high = -bound, bound
    while high - low > 1e-4:
        third = (high - low) / 3
        low, high = (low, high - third) if loss(low + third) < loss(high - third) else (low + third, high)
    return (low + high) / 2


def is_better(metric: str, new: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
    """Whether `new` beats `best` by "loss" (less) or another metric (more); anything beats None."""
    if best is None:
        return True
    return new["loss"] < best["loss"] if metric == "loss" else new[metric] > best[metric]
