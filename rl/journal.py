"""What a run writes down while it goes, and reads again when it goes on: metrics, rollouts to look at, failures.

Of several processes the first one writes; all of them know the same lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prm_kit.distributed import World
from prm_kit.errors import PrmKitError
from prm_kit.files import complete_lines, whole_file, write_json
from prm_kit.metrics_log import MetricsLog, Progress
from prm_kit.run_directory import RunDirectory
from prm_kit.training_state import Standing
from rl.alarms import raised_by
from rl.rollouts import NotFiniteError


class Journal(MetricsLog):
    """The files of a run.

    Args:
        directory: Where they lie.
        standing: Where the run stands: lines are numbered by it, and it counts them.
        updates: In all.
        world: The processes.
        tensorboard: Write TensorBoard events too.
        progress: See `Progress`.

    Attributes:
        lines: Those of metrics.jsonl, oldest first.
        trained: Those of them about updates that learnt something.
        evaluated: Those of them about held-out problems.
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
        super().__init__(directory, standing, updates, world, tensorboard=tensorboard, progress=progress)
        self.lines: list[dict[str, Any]] = []
        self.trained: list[dict[str, Any]] = []
        self.evaluated: list[dict[str, Any]] = []
        for line in world.agree(self._go_back() if world.is_first else []):
            self._remember(line)

    def log(self, part: str, values: dict[str, Any]) -> None:
        """Write a line of metrics.jsonl, with the alarms that it gives rise to.

        Args:
            part: "train" or "held_out".
            values: Figures; a train line with "skipped" is about an update without anything to learn.
        """
        line: dict[str, Any] = {"update": self.standing.update, "part": part, **values}
        self._remember(line)
        if "skipped" not in line and (found := raised_by(line, self.trained, self.evaluated)):
            line["alarms"] = found
        self.write(line)

    def show(self, number: int, rollouts: Sequence[dict[str, Any]]) -> None:
        """Keep some rollouts of update `number` to be read."""
        if self.world.is_first:
            with (self.directory.path / "rollouts.jsonl").open("a", encoding="utf-8") as file:
                for one in rollouts:
                    file.write(json.dumps({"update": number, **one}, ensure_ascii=False) + "\n")

    @contextmanager
    def kept_example(self, number: int) -> Iterator[None]:
        """Where something is not finite, keep the rollouts that it was computed from and say where.

        Raises:
            PrmKitError: It was not.
        """
        try:
            yield
        except NotFiniteError as error:
            path = self.directory.path / "nonfinite.json"
            shown = [{"problem": one.problem.text, "completion": one.solution.completion} for one in error.rollouts]
            if self.world.is_first:
                write_json(path, {"update": number, "reason": str(error), "rollouts": shown})
            raise PrmKitError(
                f"update {number}: {error}. The rollouts are in {path}; the same command starts again from the last "
                "saved state. For a loss or a gradient, try a lower learning_rate, or precision: float32."
            ) from None

    def _remember(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if line["part"] == "held_out":
            self.evaluated.append(line)
        elif "skipped" not in line:
            self.trained.append(line)

    def _go_back(self) -> list[dict[str, Any]]:
        """Cut the files to where the saved state stands; the lines that are left."""
        path = self.directory.path
        self.directory.truncate_metrics(self.standing.metrics_lines)
        shown = path / "rollouts.jsonl"
        if shown.exists():
            with shown.open("a+", encoding="utf-8") as file:
                numbered = complete_lines(file, shown, lambda line: (line["update"], line), "rollout")
                kept = [line for number, line in numbered if number < self.standing.update]
            with whole_file(shown) as file:
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
        metrics = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in metrics]
