"""`prm-kit rl sft`: a policy imitates demonstrations, so that RL has something to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.output import Json, Out, Output


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
    from pipelines.task import opened
    from prm_kit.errors import UsageError
    from prm_kit.sft import fine_tune
    from prm_kit.tasks.task import DemonstratedTask

    output = Output(as_json)
    with output.progress() as progress, opened(task) as its_task:
        if not isinstance(its_task, DemonstratedTask):
            raise UsageError(f"task {task} has no demonstrations to imitate")
        fine_tune(
            settings,
            its_task.demonstrations("train", demonstrations, settings.seed),
            its_task.demonstrations("dev", held_out, settings.seed) if held_out else (),
            out,
            progress=lambda done, total, line: progress("sft", done, total, f"loss {line['loss']:.4f}"),
        )
    output.summary(out / "summary.json")
