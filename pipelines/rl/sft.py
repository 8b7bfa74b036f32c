"""`prm-kit rl sft`: a policy imitates demonstrations, so that RL has something to start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Out, Output

if TYPE_CHECKING:
    from pipelines.progress import Progress
    from prm_kit.sft_settings import SftSettings


def sft(
    task: Annotated[str, typer.Argument(help="arithmetic, or file:PATH with worked solutions.")],
    out: Out,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value of the settings.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML with the settings.")] = None,
    policy: Annotated[str | None, typer.Option(help="Model to start from; the same as policy=...")] = None,
    demonstrations: Annotated[int | None, typer.Option(help="How many; default: all there are.")] = None,
    held_out: Annotated[int, typer.Option(min=0, help="Demonstrations to measure the loss on.")] = 200,
    as_json: Json = False,
) -> None:
    """Fine-tune a policy on a task's demonstrations; run the same command again to resume."""
    from prm_kit.settings import load_settings
    from prm_kit.sft_settings import SftSettings

    named = [] if policy is None else [f"policy={policy}"]
    settings = load_settings(SftSettings, config, [*(overrides or ()), *named])

    output = Output(as_json)
    with output.progress() as progress:
        imitate_task(settings, task, out, progress, demonstrations=demonstrations, held_out=held_out)
    output.summary(out / "summary.json")


def imitate_task(
    settings: SftSettings, task: str, out: Path, progress: Progress, *, demonstrations: int | None, held_out: int
) -> dict[str, Any]:
    """One run of `prm_kit.sft` on a task's demonstrations; the run's summary.

    Raises:
        UsageError: The task has none.
    """
    from pipelines.task import opened
    from prm_kit.errors import UsageError
    from prm_kit.sft import fine_tune
    from prm_kit.tasks.task import DemonstratedTask

    with opened(task) as its_task:
        if not isinstance(its_task, DemonstratedTask):
            raise UsageError(f"task {task} has no demonstrations to imitate")
        return fine_tune(
            settings,
            its_task.demonstrations("train", demonstrations, settings.seed),
            its_task.demonstrations("dev", held_out, settings.seed) if held_out else (),
            out,
            progress=lambda done, total, line: progress("sft", done, total, f"loss {line['loss']:.4f}"),
        )
