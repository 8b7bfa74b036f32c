"""`prm-kit rl train`: a policy learns from verified outcomes and from the step rewards of a PRM."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Out, Output
from pipelines.rl.report import write_report

if TYPE_CHECKING:
    from pipelines.progress import Progress
    from rl.train_settings import RlSettings


def train(
    task: Annotated[
        str, typer.Argument(help="arithmetic, reasoning-gym:NAME, file:SOURCE (JSONL, Parquet, hf://OWNER/NAME:SPLIT).")
    ],
    out: Out,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value of the settings.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML with the settings.")] = None,
    policy: Annotated[str | None, typer.Option(help="Policy to start from; the same as policy=...")] = None,
    algorithm: Annotated[str | None, typer.Option(help="A preset; the same as algorithm=...")] = None,
    prm: Annotated[str | None, typer.Option(help="Who rewards steps: a checkpoint, a released PRM, or a URL.")] = None,
    problems: Annotated[int | None, typer.Option(help="How many problems to train on; default: all there are.")] = None,
    held_out: Annotated[int, typer.Option(min=0, help="Development problems to measure accuracy on.")] = 200,
    held_out_file: Annotated[str | None, typer.Option(help="Source of those (file:SOURCE); all else trains.")] = None,
    as_json: Json = False,
) -> None:
    """Train a policy; run the same command again to resume.

    On several devices: torchrun --nproc-per-node 8 --no-python prm-kit rl train ...
    """
    from prm_kit.settings import load_settings
    from rl.train_settings import RlSettings

    named = [f"{key}={value}" for key, value in (("policy", policy), ("algorithm", algorithm)) if value is not None]
    settings = load_settings(RlSettings, config, [*(overrides or ()), *named])

    from pipelines.task import held_out_in
    from prm_kit.distributed import world_of_torchrun

    task = held_out_in(task, held_out_file)
    output = Output(as_json)
    with world_of_torchrun() as world, output.progress() as progress:
        train_on_task(settings, task, out, output, progress, prm=prm, problems=problems, held_out=held_out)
    if world.is_first:
        output.summary(out / "summary.json")


def train_on_task(
    settings: RlSettings,
    task: str,
    out: Path,
    output: Output,
    progress: Progress,
    *,
    prm: str | None = None,
    problems: int | None = None,
    held_out: int = 0,
    drawn_with: int | None = None,
) -> dict[str, Any]:
    """One run of `rl.train` on the problems of a task, told to people, with a report in OUT/report.html; its summary.

    Args:
        settings: The run.
        task: Name of the task.
        out: The run's directory.
        output: Gets what is to be known beforehand, and alarms.
        progress: Gets every line of metrics.
        prm: Who rewards steps: a checkpoint, a published PRM, or the address of a server.
        problems: How many to train on; None: all there are.
        held_out: Development problems to measure accuracy on.
        drawn_with: Seed that the problems are drawn with; None: the run's.
    """
    from pipelines.scorers import fingerprint_of, scorer_of
    from pipelines.task import opened
    from prm_kit.answers import AnswerChecker
    from prm_kit.distributed import world_of_torchrun
    from rl.train import train as train_policy

    sha256 = fingerprint_of(prm)
    seed = settings.seed if drawn_with is None else drawn_with
    told: set[str] = set()

    def show(done: int, total: int, line: dict[str, Any]) -> None:
        said = {key: line[key] for key in ("accuracy", "sampled", "reward") if isinstance(line.get(key), float)}
        progress("rl", done, total, f"{line['part']} " + " ".join(f"{k} {v:.3f}" for k, v in said.items()))
        for alarm in line.get("alarms", ()):
            if alarm["name"] not in told:  # one that lasts is told once
                told.add(alarm["name"])
                output.say(f"update {done}: {alarm['text']}")

    with world_of_torchrun() as world, opened(task) as its_task, AnswerChecker() as checker:
        notes = [*_to_be_known(settings, world.size), *getattr(its_task, "notes", ())]
        for note in notes if world.is_first else ():
            output.say(note)
        summary = train_policy(
            settings,
            its_task.problems("train", problems, seed),
            its_task.verify,
            out,
            scorer=None if prm is None else scorer_of(prm, "prm"),
            held_out=its_task.problems("dev", held_out, seed) if held_out else (),
            agree=lambda answer, other: checker.equal(answer, other).equal,
            about={"task": task, "prm": prm, "sha256": sha256},
            progress=show,
        )
        if world.is_first:
            write_report(out)
    return summary


def _to_be_known(settings: RlSettings, processes: int) -> list[str]:
    """What a person should know before the run: what a contested name means here, weights, and the arithmetic."""
    from rl.division import division
    from rl.presets import CONTESTED, algorithm

    composition = algorithm(settings.algorithm, settings.parts)
    notes = [CONTESTED[settings.algorithm]] if settings.algorithm in CONTESTED else []
    if inversion := composition.composed_weights.inversion(composition.wrong):
        notes.append(f"warning: {inversion}")
    branching = settings.branching
    group_size = branching.rollouts if branching else settings.group_size or composition.group_size
    return [*notes, division(settings, group_size, processes)]
