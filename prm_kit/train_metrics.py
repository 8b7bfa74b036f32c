"""Loss, accuracy and macro-F1 of class probabilities against target distributions, for the training loop.

Soft targets count as they are: a target of 0.7 on +1 adds 0.7 to the row of +1 in the confusion matrix. With one-hot
targets these are the ordinary figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prm_kit.records import LABEL_VALUES


class ClassMetrics:
    """Adds up over steps: `confusion_KK[k, j]` is the target mass of class k where class j was the likeliest.

    Only the loss is weighted by class, with the weights of the training objective, so that the two can be compared.
    """

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        self.class_weight_K = np.ones(3) if class_weights is None else np.asarray(class_weights, dtype=np.float64)
        self.confusion_KK = np.zeros((3, 3))
        self.loss_sum = 0.0

    def add(self, log_probability_NK: NDArray[Any], target_NK: NDArray[Any]) -> None:
        """Count N steps.

        Args:
            log_probability_NK: Of the three classes.
            target_NK: Distribution over them.
        """
        chosen_NK = np.eye(3)[log_probability_NK.argmax(axis=1)]
        target_NK = target_NK.astype(np.float64)
        self.confusion_KK += target_NK.T @ chosen_NK
        self.loss_sum -= float((target_NK * self.class_weight_K * log_probability_NK).sum())

    def result(self) -> dict[str, float]:
        """Loss (nats per unit of weight), accuracy, macro-F1 over the classes that occur, F1 of each of them, and n."""
        confusion = self.confusion_KK.tolist()
        total = sum(map(sum, confusion))
        weight = float(self.confusion_KK.sum(axis=1) @ self.class_weight_K)
        if total == 0:
            return {"n": 0}
        f1 = {}
        for k, value in enumerate(LABEL_VALUES):
            occurs, chosen = sum(confusion[k]), sum(row[k] for row in confusion)
            if occurs:
                f1[f"f1_{value:+d}" if value else "f1_0"] = 2 * confusion[k][k] / (occurs + chosen)
        return {
            "loss": self.loss_sum / weight if weight else 0.0,
            "accuracy": sum(confusion[k][k] for k in range(3)) / total,
            "macro_f1": sum(f1.values()) / len(f1),
            **f1,
            "n": round(total),
        }


def prior_metrics(
    prior: Sequence[float], masses: Sequence[float], class_weights: Sequence[float] | None = None
) -> dict[str, float]:
    """Metrics of whoever knows the class prior of the training data and nothing else.

    It names the commonest class; its loss is that of the constant that is best under the class weights.

    Args:
        prior: Share of each class in training.
        masses: Target mass per class where it is measured. A class that training never saw costs the log of 1e-6.
        class_weights: Of the loss; None: all 1.
    """
    metrics = ClassMetrics(class_weights)
    best_K = np.asarray(prior) * metrics.class_weight_K
    log_best_K = np.log(np.maximum(best_K / best_K.sum(), 1e-6))
    metrics.confusion_KK[:, int(np.argmax(prior))] = masses
    metrics.loss_sum = -float((np.asarray(masses) * metrics.class_weight_K) @ log_best_K)
    return metrics.result()


def is_better(metric: str, new: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
    """Whether `new` beats `best` by "loss" (less) or "macro_f1" (more); anything beats None."""
    if best is None:
        return True
    return new["loss"] < best["loss"] if metric == "loss" else new[metric] > best[metric]
