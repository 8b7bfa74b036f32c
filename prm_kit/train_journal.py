"""What a training run writes down while it goes: metrics, and the solutions of a loss that is not finite.

Of several processes the first one writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from prm_kit.distributed import World
from prm_kit.errors import PrmKitError
from prm_kit.files import write_json
from prm_kit.run_directory import RunDirectory
from prm_kit.train_update import Gradient
from prm_kit.training_state import Standing

ProgressCallback = Callable[[int, int, dict[str, Any]], None]
"""Called after every line of metrics.jsonl: updates done, updates in all, the line."""


class TrainJournal:
    """The files of a run.

    Args:
        directory: Where they lie; metrics are cut to where the run stands.
        standing: Where the run stands: lines are numbered by it, and it counts them.
        updates: In all.
        world: The processes.
        tensorboard: Write TensorBoard events too.
        progress: See `ProgressCallback`.
    """

    def __init__(
        self,
        directory: RunDirectory,
        standing: Standing,
        updates: int,
        world: World,
        *,
        tensorboard: bool,
        progress: ProgressCallback | None,
    ) -> None:
        self.directory, self.standing, self.updates, self.world = directory, standing, updates, world
        self.progress = progress if world.is_first else None
        directory.truncate_metrics(standing.metrics_lines)
        self.board: Any = None
        if tensorboard and world.is_first:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(directory.path / "tensorboard"), purge_step=standing.update)

    def log(self, part: str, values: dict[str, Any]) -> None:
        """Write a line of metrics.jsonl.

        Args:
            part: "train" or "dev".
            values: Figures.
        """
        line = {"update": self.standing.update, "part": part, **values}
        self.directory.log(**line)
        self.standing.metrics_lines += 1
        if self.board is not None:
            for key, value in values.items():
                self.board.add_scalar(f"{part}/{key}", value, self.standing.update)
        if self.progress is not None:
            self.progress(self.standing.update, self.updates, line)

    def refuse_nonfinite(self, found: Gradient, learning_rates: Sequence[float]) -> NoReturn:
        """Keep the solutions whose loss or gradient is not finite, and say where.

        Raises:
            PrmKitError: Always.
        """
        path, solutions = self.directory.path / "nonfinite.json", found.suspects
        if self.world.is_first:
            write_json(
                path,
                {
                    "update": self.standing.update,
                    "loss": str(found.loss),
                    "gradient_norm": str(found.norm),
                    "learning_rates": list(learning_rates),
                    "solutions": solutions,
                },
            )
        raise PrmKitError(
            f"update {self.standing.update}: the loss ({found.loss}) or its gradient ({found.norm}) is not finite; "
            f"the weights were left as they were. All {len(solutions)} solutions are in {path}: "
            f"{', '.join(solutions[:3])}{', ...' if len(solutions) > 3 else ''}. "
            "Try a lower learning_rate, or precision: float32."
        )

    def close(self) -> None:
        """Write out what waits."""
        if self.board is not None:
            self.board.close()
