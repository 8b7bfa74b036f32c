"""Training runs side by side, a process each: models this small use one core."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_kit.run_directory import RunDirectory

if TYPE_CHECKING:
    from pipelines.quickstart.settings import Progress


def side_by_side(stage: str, runs: Mapping[Path, Callable[[], dict[str, Any]]], tell: Progress) -> list[dict[str, Any]]:
    """Do training runs at the same time; they end with this process.

    Args:
        stage: What the progress display calls them.
        runs: Run directory -> what fills it; each must be picklable.
        tell: See `Progress`.

    Returns:
        What the runs return, in their order.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(runs), context, initializer=_begin_child, initargs=(os.getpid(),)) as pool:
        jobs = [pool.submit(work) for work in runs.values()]
        running: Collection[Future[dict[str, Any]]] = jobs
        while running:
            lines = sum(RunDirectory(folder).metrics_lines() for folder in runs)
            tell(stage, len(runs) - len(running), len(runs), f"{lines} lines")
            running = wait(running, timeout=2).not_done
        tell(stage, len(runs), len(runs))
        return [job.result() for job in jobs]


def _begin_child(parent: int) -> None:
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a run that is started again must not find it still writing."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
