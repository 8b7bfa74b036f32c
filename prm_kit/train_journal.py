"""What a training run writes down while it goes: metrics, and the solutions of a loss that is not finite.

Of several processes the first one writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from prm_kit.distributed import World
from prm_kit.errors import PrmKitError
from prm_kit.files import write_json
from prm_kit.metrics_log import MetricsLog, Progress
from prm_kit.run_directory import RunDirectory
from prm_kit.train_update import Gradient
from prm_kit.training_state import Standing


class TrainJournal(MetricsLog):
    """The files of a run.

    Args:
        directory: Where they lie; metrics are cut to where the run stands.
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
        directory.truncate_metrics(standing.metrics_lines)
        super().__init__(directory, standing, updates, world, tensorboard=tensorboard, progress=progress)

    def log(self, part: str, values: dict[str, Any]) -> None:
        """Write a line of metrics.jsonl.

        Args:
            part: "train" or "dev".
            values: Figures.
        """
        self.write({"update": self.standing.update, "part": part, **values})

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
