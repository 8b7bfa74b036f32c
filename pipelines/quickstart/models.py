"""The PRM and the ORM, trained side by side."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_kit.run_directory import RunDirectory

if TYPE_CHECKING:
    from pipelines.quickstart.settings import Progress, QuickstartSettings

MODELS = ("prm", "orm")


def train_models(settings: QuickstartSettings, out: Path, tell: Progress) -> dict[str, dict[str, Any]]:
    """Train the PRM and the ORM side by side: models this small use one core each.

    Returns:
        The summaries of both runs, by name.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(MODELS), context, initializer=_begin_child, initargs=(os.getpid(),)) as pool:
        jobs = {name: pool.submit(train_model, name, settings, out) for name in MODELS}
        running: Collection[Future[dict[str, Any]]] = jobs.values()
        while running:
            updates = sum(RunDirectory(out / name).metrics_lines() for name in MODELS)
            tell("models", len(MODELS) - len(running), len(MODELS), f"{updates} updates")
            running = wait(running, timeout=2).not_done
        tell("models", len(MODELS), len(MODELS))
        return {name: job.result() for name, job in jobs.items()}


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


def _begin_child(parent: int) -> None:
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a run that is started again must not find it still writing."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
