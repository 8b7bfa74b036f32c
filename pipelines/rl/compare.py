"""`prm-kit rl compare`: algorithms on the same problems and seeds, for as many updates with groups of the same size.

What an algorithm samples beyond its groups (a greedy or a reference rollout, groups that it filters out) stands in the
column of rollouts.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Out, Output

if TYPE_CHECKING:
    from rich.table import Table


def compare(
    task: Annotated[str, typer.Argument(help="arithmetic, file:PATH (problems with answers), reasoning-gym:NAME.")],
    out: Out,
    algorithms: Annotated[list[str], typer.Option("--algorithm", "-a", help="A preset; repeatable.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value of the settings of every run.")] = None,
    policy: Annotated[str | None, typer.Option(help="Policy that every run starts from.")] = None,
    prm: Annotated[str | None, typer.Option(help="Who rewards steps: a checkpoint, a released PRM, or a URL.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each algorithm.")] = 3,
    problems: Annotated[int | None, typer.Option(help="How many problems to train on; default: all there are.")] = None,
    held_out: Annotated[int, typer.Option(min=1, help="Development problems to measure accuracy on.")] = 200,
    as_json: Json = False,
) -> None:
    """Train with each algorithm and seed in OUT/ALGORITHM/seed-N; run the same command again to resume."""
    from prm_kit.settings import load_settings
    from rl.presets import ALGORITHMS, CONTESTED
    from rl.presets import algorithm as preset
    from rl.train_settings import RlSettings

    named = [] if policy is None else [f"policy={policy}"]
    settings = load_settings(RlSettings, None, [*(overrides or ()), *named, f"algorithm={algorithms[0]}"])
    for name in algorithms:
        preset(name, settings.parts)
    from pipelines.scorers import scorer_of
    from pipelines.task import opened
    from prm_kit.files import folder_sha256
    from prm_kit.run_directory import RunDirectory
    from rl.train import train

    output, run = Output(as_json), RunDirectory(out)
    for name in algorithms:
        if name in CONTESTED:
            output.say(CONTESTED[name])
    # The same groups for all: an algorithm's own group size would give some more.
    group_size = settings.group_size or max(ALGORITHMS[name].group_size for name in algorithms)
    about = {"task": task, "prm": prm, "algorithms": algorithms, "seeds": seeds, "settings": settings.model_dump()}
    run.start({"compare": about})
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in algorithms}
    with output.progress() as progress, opened(task) as its_task, run.timed("compare"):
        scorer = None if prm is None else scorer_of(prm, "prm")
        sha256 = folder_sha256(Path(prm)) if prm is not None and Path(prm).is_dir() else None
        trained = its_task.problems("train", problems, settings.seed)
        measured = its_task.problems("dev", held_out, settings.seed)
        for number in range(seeds):
            for place, name in enumerate(algorithms):
                progress("compare", number * len(algorithms) + place, seeds * len(algorithms), f"{name}, seed {number}")
                changed = {"algorithm": name, "seed": settings.seed + number, "group_size": group_size}
                summary = train(
                    settings.model_copy(update=changed),
                    trained,
                    its_task.verify,
                    out / name / f"seed-{number}",
                    scorer=scorer if "step rewards" in preset(name, settings.parts).needs else None,
                    held_out=measured,
                    about={"task": task, "prm": prm, "sha256": sha256},
                )
                found[name].append(summary)
    reached = {name: compared(summaries) for name, summaries in found.items()}
    run.finish({**about, "algorithms": reached})
    if not as_json:
        output.console.print(table(reached))
    output.summary(out / "summary.json")


def compared(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """What the runs of one algorithm reached: rollouts of a run in the mean, accuracies on held-out problems.

    The standard error is that over seeds, None for one seed: it holds what differs from run to run, problems included
    only as far as sampling does.
    """

    def accuracies(when: str, how: str) -> list[float]:
        return [fmean(summary["held_out"][when][how]) for summary in summaries]

    found: dict[str, Any] = {"rollouts": fmean(summary["rollouts"] for summary in summaries)}
    for when in ("before", "after"):
        for how in ("greedy", "sampled"):
            values = accuracies(when, how)
            error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
            found[f"{how}_{when}"] = {"mean": fmean(values), "standard_error": error, "seeds": values}
    found["alarms"] = [summary["alarms"] for summary in summaries]
    return found


def table(found: dict[str, dict[str, Any]]) -> Table:
    """One row an algorithm, the best sampled accuracy first."""
    from rich.table import Table

    shown = Table("algorithm", "rollouts", "sampled before", "sampled after", "greedy after", "alarms", box=None)
    for name, one in sorted(found.items(), key=lambda item: -item[1]["sampled_after"]["mean"]):
        alarmed = sum(bool(said) for said in one["alarms"])
        cells = [_cell(one[key]) for key in ("sampled_before", "sampled_after", "greedy_after")]
        shown.add_row(name, f"{one['rollouts']:.0f}", *cells, f"{alarmed} of {len(one['alarms'])} runs")
    return shown


def _cell(figure: dict[str, Any]) -> str:
    error = figure["standard_error"]
    return f"{figure['mean']:.3f}" + (f" +- {error:.3f}" if error is not None else "")
