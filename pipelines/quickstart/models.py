"""The PRM and the ORM, trained side by side."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.quickstart.side_by_side import side_by_side

if TYPE_CHECKING:
    from pipelines.quickstart.settings import Progress, QuickstartSettings

MODELS = ("prm", "orm")


def train_models(settings: QuickstartSettings, out: Path, tell: Progress) -> dict[str, dict[str, Any]]:
    """Train the PRM and the ORM side by side: models this small use one core each.

    Returns:
        The summaries of both runs, by name.
    """
    runs = {out / name: partial(train_model, name, settings, out) for name in MODELS}
    return dict(zip(MODELS, side_by_side("models", runs, tell), strict=True))


def train_model(name: str, settings: QuickstartSettings, out: Path) -> dict[str, Any]:
    """Train the PRM ("prm") or the ORM ("orm") from the policy's weights; leaves OUT/NAME/checkpoint."""
    from pipelines.quickstart.labels import merged_labels
    from pipelines.quickstart.settings import micro_batch_tokens
    from pipelines.quickstart.solutions import read_labelled
    from prm_kit.train import train
    from prm_kit.train_settings import TrainSettings

    return train(
        TrainSettings(
            backbone=str(out / "policy" / "checkpoint"),
            target="steps" if name == "prm" else "outcome",
            epochs=settings.prm_epochs,
            batch_tokens=settings.prm_batch_tokens,
            micro_batch_tokens=micro_batch_tokens(settings.prm_batch_tokens),
            share_prefixes=False,  # the overhead is more than what so small a model saves
            beta2=0.95,  # what is learnt here is learnt in jumps
            learning_rate=settings.prm_learning_rate,
            schedule="linear",
            device="cpu",
            seed=settings.seed,
        ),
        merged_labels(out / "data" / "train", out / "labels"),
        read_labelled(out / "data" / "dev"),
        out / name,
    )
