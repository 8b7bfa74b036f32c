"""`prm-kit rl compare`: algorithms on the same problems and seeds, for as many updates with groups of the same size.

What an algorithm samples beyond its groups (a greedy or a reference rollout, groups that it filters out) stands in the
column of rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Out, Output
from pipelines.rl.report import json_lines, write_report

if TYPE_CHECKING:
    from rl.train_settings import RlSettings


def compare(
    task: Annotated[
        str, typer.Argument(help="arithmetic, reasoning-gym:NAME, file:SOURCE (JSONL, Parquet, hf://OWNER/NAME:SPLIT).")
    ],
    out: Out,
    algorithms: Annotated[list[str], typer.Option("--algorithm", "-a", help="A preset; repeatable.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value of the settings of every run.")] = None,
    policy: Annotated[str | None, typer.Option(help="Policy that every run starts from.")] = None,
    prm: Annotated[str | None, typer.Option(help="Who rewards steps: a checkpoint, a released PRM, or a URL.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each algorithm.")] = 3,
    problems: Annotated[int | None, typer.Option(help="How many problems to train on; default: all there are.")] = None,
    held_out: Annotated[int, typer.Option(min=1, help="Development problems to measure accuracy on.")] = 200,
    held_out_file: Annotated[str | None, typer.Option(help="Source of those (file:SOURCE); all else trains.")] = None,
    as_json: Json = False,
) -> None:
    """Train with each algorithm and seed in OUT/ALGORITHM/seed-N; run the same command again to resume.

    OUT/report.html has the curves, held-out accuracy against rollouts, with a fifth of the updates between evaluations
    unless eval_every says otherwise; every run has a report of its own.
    """
    from prm_kit.errors import UsageError
    from prm_kit.settings import load_settings
    from rl.presets import ALGORITHMS, CONTESTED
    from rl.presets import algorithm as preset
    from rl.train_settings import RlSettings

    if again := next((name for name in algorithms if algorithms.count(name) > 1), None):
        raise UsageError(f"--algorithm {again} is given twice: its runs would be counted twice")
    named = [] if policy is None else [f"policy={policy}"]
    settings = load_settings(RlSettings, None, [*(overrides or ()), *named, f"algorithm={algorithms[0]}"])
    dense = {name: "step rewards" in preset(name, settings.parts).needs for name in algorithms}
    by_value = settings.branching is not None and settings.branching.at == "value"
    from pipelines.scorers import fingerprint_of, scorer_of
    from pipelines.task import held_out_in, opened
    from prm_kit.report.rl_compare import compare_rows, write_compare_report
    from prm_kit.report.tables import print_table
    from prm_kit.run_directory import RunDirectory
    from rl.comparison import Ran, comparison
    from rl.train import train

    task = held_out_in(task, held_out_file)
    output, run = Output(as_json), RunDirectory(out)
    for name in algorithms:
        if name in CONTESTED:
            output.say(CONTESTED[name])
    settings = _alike(settings, [ALGORITHMS[name].group_size for name in algorithms])
    about = {"task": task, "prm": prm, "algorithms": algorithms, "seeds": seeds, "settings": settings.model_dump()}
    run.start({"compare": about})
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in algorithms}
    with output.progress() as progress, opened(task) as its_task, run.timed("compare"):
        scorer = None if prm is None else scorer_of(prm, "prm")
        sha256 = fingerprint_of(prm)
        trained = its_task.problems("train", problems, settings.seed)
        measured = its_task.problems("dev", held_out, settings.seed)
        for number in range(seeds):
            for place, name in enumerate(algorithms):
                progress("compare", number * len(algorithms) + place, seeds * len(algorithms), f"{name}, seed {number}")
                summary = train(
                    settings.model_copy(update={"algorithm": name, "seed": settings.seed + number}),
                    trained,
                    its_task.verify,
                    out / name / f"seed-{number}",
                    scorer=scorer if dense[name] or by_value else None,
                    held_out=measured,
                    about={"task": task, "prm": prm, "sha256": sha256},
                )
                write_report(out / name / f"seed-{number}")
                found[name].append(summary)
    lines = {name: [json_lines(out / name / f"seed-{i}" / "metrics.jsonl") for i in range(seeds)] for name in found}
    data = comparison({name: Ran(dense[name], lines[name], summaries) for name, summaries in found.items()})
    run.finish({**about, **data})
    write_compare_report(out / "report.html", {**data, "about": _about(settings, task, prm)})
    if not as_json:
        print_table(compare_rows(data), output.console)
        for claim in data["claims"]:
            output.say(f"{claim['claim']}: {claim['verdict']}" + (f" ({claim['figures']})" if claim["figures"] else ""))
        output.say(f"report: {out / 'report.html'}")
    output.summary(out / "summary.json")


def _about(settings: RlSettings, task: str, prm: str | None) -> dict[str, Any]:
    """What the report says of the runs as a whole."""
    shown = {
        "task": task,
        "policy": settings.policy,
        "prm": prm,
        "updates": settings.updates,
        "problems": settings.problems,
        "group size": settings.group_size,
    }
    return {key: value for key, value in shown.items() if value is not None}


def _alike(settings: RlSettings, sizes: Sequence[int]) -> RlSettings:
    """The same groups for all, where an algorithm's own group size would give some more, and some evaluations."""
    branching = settings.branching
    group_size = branching.rollouts if branching else settings.group_size or max(sizes)
    eval_every = settings.eval_every or max(1, settings.updates // 5)
    return settings.model_copy(update={"eval_every": eval_every, "group_size": group_size})
