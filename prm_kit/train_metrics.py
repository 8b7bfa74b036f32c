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
    """Adds up over steps: `confusion_KK[k, j]` is the target mass of class k where class j was the likeliest."""

    def __init__(self) -> None:
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
        self.loss_sum -= float((target_NK * log_probability_NK).sum())

    def result(self) -> dict[str, float]:
        """Loss (nats per step), accuracy, macro-F1 over the classes that occur, F1 per class that occurs, and n."""
        confusion = self.confusion_KK.tolist()
        total = sum(map(sum, confusion))
        if total == 0:
            return {"n": 0}
        f1 = {}
        for k, value in enumerate(LABEL_VALUES):
            occurs, chosen = sum(confusion[k]), sum(row[k] for row in confusion)
            if occurs:
                f1[f"f1_{value:+d}" if value else "f1_0"] = 2 * confusion[k][k] / (occurs + chosen)
        return {
            "loss": self.loss_sum / total,
            "accuracy": sum(confusion[k][k] for k in range(3)) / total,
            "macro_f1": sum(f1.values()) / len(f1),
            **f1,
            "n": round(total),
        }


def prior_metrics(prior: Sequence[float], masses: Sequence[float]) -> dict[str, float]:
    """Metrics of whoever says the class prior of the training data at every step.

    Args:
        prior: Share of each class in training.
        masses: Target mass per class where it is measured. A class that training never saw costs the log of 1e-6.
    """
    metrics = ClassMetrics()
    log_prior_K = np.log(np.maximum(prior, 1e-6))
    metrics.confusion_KK[:, int(np.argmax(prior))] = masses
    metrics.loss_sum = -float(log_prior_K @ np.asarray(masses))
    return metrics.result()


def is_better(metric: str, new: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
    """Whether `new` beats `best` by "loss" (less) or "macro_f1" (more); anything beats None."""
    if best is None:
        return True
    return new["loss"] < best["loss"] if metric == "loss" else new[metric] > best[metric]
