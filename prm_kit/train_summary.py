"""What a training run says of itself, beside what the class prior alone would have got.

Better than the prior means a lower loss. Macro-F1 would not do: answers drawn at random have a higher one than the
commonest class named everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prm_kit.train_settings import TrainSettings
from prm_kit.training_data import TrainingData
from prm_kit.training_state import Standing


def training_summary(
    settings: TrainSettings,
    standing: Standing,
    data: TrainingData,
    *,
    updates: int,
    per_epoch: int,
    share_prefixes: bool,
    class_weights: Sequence[float] | None,
    train_metrics: Mapping[str, float],
    train_prior_metrics: Mapping[str, float],
    dev_metrics: Mapping[str, float] | None,
    dev_prior_metrics: Mapping[str, float] | None,
) -> dict[str, Any]:
    """Sum up a run as JSON data.

    Args:
        settings: Of the run.
        standing: Where it ended.
        data: What it was trained and judged on.
        updates: That it was planned to have.
        per_epoch: Updates in an epoch.
        share_prefixes: Whether prefixes were shared.
        class_weights: That the loss used, None if none.
        train_metrics: Of the weights that were kept, on a sample of the training data.
        train_prior_metrics: Of the class prior (`baseline_metrics`) on that sample.
        dev_metrics: Of the weights that were kept, on the development set; None without one.
        dev_prior_metrics: Of the class prior on the development set; None without one.
    """
    if dev_metrics and dev_prior_metrics:
        better = dev_metrics["loss"] < dev_prior_metrics["loss"]
    else:
        better = train_metrics["loss"] < train_prior_metrics["loss"]
    warnings = list(data.warnings)
    if not better:
        warnings.append("this model is no better than the class prior: it has learnt nothing that its figures can show")
    if standing.best is not None and settings.keep_best and standing.best_update == 0:
        warnings.append("no evaluation was better than the untrained model, which is what was kept")
    return {
        "objective": settings.objective,
        "target": settings.target,
        "neutral_policy": settings.neutral_policy,
        "updates": standing.update,
        "updates_planned": updates,
        "epochs": standing.update / per_epoch,
        "stopped_early": standing.update < updates,
        "best_update": standing.best_update if standing.best is not None else None,
        "tokens": standing.tokens,
        "computed_tokens": standing.computed_tokens,
        "padded_share": max(0.0, 1 - standing.tokens / max(standing.computed_tokens, 1)),
        "share_prefixes": share_prefixes,
        "steps": standing.targets,
        "class_prior": list(data.prior),
        "class_weights": class_weights,
        "train": train_metrics,
        "train_class_prior": train_prior_metrics,
        "dev": dev_metrics,
        "dev_class_prior": dev_prior_metrics,
        "dev_untrained": standing.untrained,
        "better_than_class_prior": better,
        "warnings": warnings,
        "data": data.account,
    }
