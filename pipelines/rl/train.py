"""`prm-kit rl train`: a policy learns from verified outcomes and from the step rewards of a PRM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.output import Json, Out, Output


def train(
    task: Annotated[str, typer.Argument(help="arithmetic, file:PATH (problems with answers), reasoning-gym:NAME.")],
    out: Out,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value of the settings.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML with the settings.")] = None,
    policy: Annotated[str | None, typer.Option(help="Policy to start from; the same as policy=...")] = None,
    algorithm: Annotated[str | None, typer.Option(help="A preset; the same as algorithm=...")] = None,
    prm: Annotated[str | None, typer.Option(help="Who rewards steps: a checkpoint, a released PRM, or a URL.")] = None,
    problems: Annotated[int | None, typer.Option(help="How many problems to train on; default: all there are.")] = None,
    held_out: Annotated[int, typer.Option(min=0, help="Development problems to measure accuracy on.")] = 200,
    as_json: Json = False,
) -> None:
    """Train a policy; run the same command again to resume."""
    from prm_kit.settings import load_settings
    from rl.train_settings import RlSettings

    named = [f"{key}={value}" for key, value in (("policy", policy), ("algorithm", algorithm)) if value is not None]
    settings = load_settings(RlSettings, config, [*(overrides or ()), *named])
    from pipelines.scorers import scorer_of
    from pipelines.task import opened
    from prm_kit.files import folder_sha256
    from rl.presets import CONTESTED
    from rl.presets import algorithm as preset
    from rl.train import train as train_policy

    output = Output(as_json)
    if settings.algorithm in CONTESTED:
        output.say(CONTESTED[settings.algorithm])
    sha256 = folder_sha256(Path(prm)) if prm is not None and Path(prm).is_dir() else None
    composition = preset(settings.algorithm, settings.parts)
    if inversion := composition.composed_weights.inversion(composition.wrong):
        output.say(f"warning: {inversion}")
    with output.progress() as progress, opened(task) as its_task:

        def show(done: int, total: int, line: dict[str, object]) -> None:
            said = {key: line[key] for key in ("accuracy", "sampled", "reward") if isinstance(line.get(key), float)}
            progress("rl", done, total, f"{line['part']} " + " ".join(f"{k} {v:.3f}" for k, v in said.items()))
            for alarm in line.get("alarms") or ():  # type: ignore[attr-defined]
                output.say(f"update {done}: {alarm}")

        train_policy(
            settings,
            its_task.problems("train", problems, settings.seed),
            its_task.verify,
            out,
            scorer=None if prm is None else scorer_of(prm, "prm"),
            held_out=its_task.problems("dev", held_out, settings.seed) if held_out else (),
            about={"task": task, "prm": prm, "sha256": sha256},
            progress=show,
        )
    output.summary(out / "summary.json")
