"""A schedule of `rl.stages`, run: every stage in a folder of its own, from the policy that the one before it left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.output import Output
    from pipelines.progress import Progress
    from pipelines.stage import Stages
    from rl.stages import Schedule

_HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?(@[\w./-]+)?")


def check_schedule(schedule: Schedule, *, has_prm: bool = False) -> None:
    """Refuse what cannot run, before anything does.

    Args:
        schedule: To be run.
        has_prm: Whether the recipe trains a PRM before.

    Raises:
        UsageError: Naming the stage: settings or parts that do not go together, or a model that is missing.
    """
    from pipelines.task import opened
    from prm_kit.errors import UsageError
    from rl.preconditions import check_learns
    from rl.presets import algorithm
    from rl.rewarding import wants_scorer
    from rl.stages import sft_settings, stage_settings

    if schedule.sft is not None:
        sft_settings(schedule)
    for name, stage in schedule.stages.items():
        settings = stage_settings(schedule, name, schedule.policy, schedule.policy)
        prm = stage.prm or schedule.prm
        judged = has_prm or prm is not None
        for what, model in (("policy", schedule.policy), ("prm", prm), ("reference", settings.reference)):
            if model is not None and not _may_be_there(model):
                raise UsageError(f"stage {name}: {what}: {model}: no such folder")
        try:
            composition = algorithm(settings.algorithm, settings.parts)
            check_learns(settings, composition, held_out=schedule.held_out > 0, scored=judged)
            wanted = wants_scorer(composition, settings.process)
        except UsageError as error:
            raise UsageError(f"stage {name}: {error}") from None
        with opened(stage.task or schedule.task):
            pass
        if wanted and not judged:
            raise UsageError(f"stage {name}: algorithm {settings.algorithm} wants step rewards: name a PRM, prm=...")


@dataclass(frozen=True)
class ScheduleRun:
    """A schedule that runs as stages of a recipe.

    Attributes:
        schedule: Checked by `check_schedule`.
        stages: Knows what is done; a stage that was interrupted goes on.
        output: For people.
        progress: For people.
        prm: The PRM that earlier stages of the recipe trained, for a schedule that names none.
        after: Those earlier stages.
    """

    schedule: Schedule
    stages: Stages
    output: Output
    progress: Progress
    prm: Path | None = None
    after: Sequence[str] = ()

    def all(self) -> dict[str, Any]:
        """Run what must be run. Returns policy (the last one's folder), and under "stages" what each reached."""
        schedule, reached = self.schedule, {}
        left = [self.stages.folder(name) / "run" / "checkpoint" for name in schedule.folders]
        names = [*([""] if schedule.sft is not None else []), *schedule.stages]
        for place, (folder, name) in enumerate(zip(schedule.folders, names, strict=True)):
            start = str(left[place - 1]) if place else schedule.policy
            after = [*self.after, *schedule.folders[place - 1 : place]]
            if name:
                first = str(left[0]) if place else schedule.policy
                reached[folder] = self._reinforced(name, folder, start, first, after)
            else:
                reached[folder] = self._imitated(folder, after)
        return {"policy": str(left[-1]), "stages": reached}

    def _imitated(self, folder: str, after: list[str]) -> dict[str, Any]:
        from pipelines.rl.sft import imitate_task
        from rl.stages import sft_settings

        schedule, sft = self.schedule, self.schedule.sft
        assert sft is not None
        settings, task = sft_settings(schedule), sft.task or schedule.task

        def work(to: Path) -> dict[str, Any]:
            summary = imitate_task(
                settings,
                task,
                to / "run",
                self.progress,
                demonstrations=sft.demonstrations,
                held_out=sft.held_out,
            )
            return {"algorithm": "sft", **{key: summary[key] for key in ("updates", "tokens", "dev")}}

        asked = {"sft": settings.model_dump(mode="json"), "task": task, "demonstrations": sft.demonstrations}
        return self.stages(
            folder,
            work,
            settings={**asked, "held_out": sft.held_out},
            after=after,
            files=_folders(settings.policy),
            keeps_partial_work=True,
        )

    def _reinforced(self, name: str, folder: str, start: str, first: str, after: list[str]) -> dict[str, Any]:
        from pipelines.rl.train import train_on_task
        from rl.stages import stage_settings

        schedule, stage = self.schedule, self.schedule.stages[name]
        settings = stage_settings(schedule, name, start, first)
        # What earlier stages left is known by their keys, not by the folder that it happens to lie in.
        from_outside = start == schedule.policy
        known = settings if from_outside else stage_settings(schedule, name, "", "")
        prm = stage.prm or schedule.prm or (None if self.prm is None else str(self.prm))
        train_on, task = stage.train_on or schedule.train_on, stage.task or schedule.task
        outside = [settings.policy if from_outside else None, known.reference, prm if prm != str(self.prm) else None]

        def work(to: Path) -> dict[str, Any]:
            summary = train_on_task(
                settings,
                task,
                to / "run",
                self.output,
                self.progress,
                prm=prm,
                problems=train_on,
                held_out=schedule.held_out,
                drawn_with=schedule.settings.seed,  # all stages are measured on the same problems
            )
            return reached(summary, settings.updates)

        asked = {"settings": known.model_dump(mode="json"), "task": task, "prm": stage.prm or schedule.prm}
        return self.stages(
            folder,
            work,
            settings={**asked, "train_on": train_on, "held_out": schedule.held_out},
            after=after,
            files=[path for one in outside for path in _folders(one)],
            keeps_partial_work=True,
        )


def reached(summary: dict[str, Any], asked: int) -> dict[str, Any]:
    """What a run of `rl.train` came to: accuracies as means over the held-out problems."""

    def mean(values: Sequence[float | None]) -> float | None:
        there = [value for value in values if value is not None]
        return fmean(there) if there else None

    held_out = {
        when: {name: mean(values) for name, values in found.items()}
        for when, found in summary["held_out"].items()
        if when in ("before", "after")
    }
    kept = ("algorithm", "updates", "stopped", "rollouts", "tokens", "alarms")
    return {**{key: summary.get(key) for key in kept}, "asked": asked, "held_out": held_out}


def table(found: dict[str, dict[str, Any]]) -> Table:
    """One row a stage."""
    from rich.table import Table

    shown = Table("stage", "algorithm", "updates", "sampled before", "sampled after", "greedy after", "ended", box=None)
    for folder, one in found.items():
        told = one.get("held_out", {})
        figures = [told.get(when, {}).get(how) for when, how in
                   (("before", "sampled"), ("after", "sampled"), ("after", "greedy"))]  # fmt: skip
        cells = ["-" if figure is None else f"{figure:.3f}" for figure in figures]
        shown.add_row(folder, one["algorithm"], str(one["updates"]), *cells, one.get("stopped") or "after its updates")
    return shown


def _may_be_there(model: str) -> bool:
    """False of a path without a folder; of a server and of what may be a hub id, only asking them could tell."""
    of_elsewhere = model.startswith(("http://", "https://")) or _HUB_ID.fullmatch(model)
    return bool(of_elsewhere) or Path(model).expanduser().is_dir()


def _folders(name: str | None) -> list[Path]:
    """The model that a person named, where it is a folder: its contents are part of what the stage stands on."""
    return [Path(name)] if name and Path(name).is_dir() else []  # "": the policy that an earlier stage left
