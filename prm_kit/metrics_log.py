"""The lines of metrics.jsonl that a run writes while it goes, the same for TensorBoard, and whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prm_kit.distributed import World
from prm_kit.run_directory import RunDirectory
from prm_kit.training_state import Standing

Progress = Callable[[int, int, dict[str, Any]], None]
"""Called after every line of metrics.jsonl: updates done, updates in all, the line."""


class MetricsLog:
    """Writes lines; of several processes the first one does.

    Args:
        directory: Of the run; its metrics.jsonl has been cut to where the run stands.
        standing: Where the run stands: lines are numbered by it, and it counts them.
        updates: In all.
        world: The processes.
        tensorboard: Write TensorBoard events too.
        progress: See `Progress`.
    """

    def __init__(
        self,
        directory: RunDirectory,
        standing: Standing,
        updates: int,
        world: World,
        *,
        tensorboard: bool,
        progress: Progress | None,
    ) -> None:
        self.directory, self.standing, self.updates, self.world = directory, standing, updates, world
        self.progress = progress if world.is_first else None
        self.board: Any = None
        if tensorboard and world.is_first:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(directory.path / "tensorboard"), purge_step=standing.update)

    def write(self, line: dict[str, Any]) -> None:
        """Write a line, which has its "update" and "part", and figures."""
        self.directory.log(**line)
        self.standing.metrics_lines += 1
        if self.board is not None:
            for key, value in line.items():
                if key not in ("update", "part") and isinstance(value, int | float):
                    self.board.add_scalar(f"{line['part']}/{key}", value, self.standing.update)
        if self.progress is not None:
            self.progress(self.standing.update, self.updates, line)

    def close(self) -> None:
        """Write out what waits."""
        if self.board is not None:
            self.board.close()
