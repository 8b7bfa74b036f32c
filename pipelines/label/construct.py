"""`prm-kit label construct`: spoil right solutions in known ways; the labels follow from how it was done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Out, Output

if TYPE_CHECKING:
    from labeling.construction import Constructor, LabelSteps
    from prm_kit.records import Annotation

_STEP = 500  # solutions between two looks at the progress


def construct(
    inputs: Annotated[list[Path], typer.Argument(help="Snapshot directories, or files that `prm-kit import` reads.")],
    out: Out,
    corruption: Annotated[list[str] | None, typer.Option(help="Only this kind; may be repeated.")] = None,
    per_solution: Annotated[int | None, typer.Option(help="Constructions of one solution; default: all kinds.")] = None,
    rely_on: Annotated[list[str] | None, typer.Option(help="Kinds of raters relied on; default: human.")] = None,
    task: Annotated[str | None, typer.Option(help="Let this task's program label every step.")] = None,
    filler: Annotated[
        list[str] | None, typer.Option(help="What a filler step says; {result}: the last result.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the choices.")] = 0,
    as_json: Json = False,
) -> None:
    """Write spoilt solutions and their labels to the snapshot OUT/constructed."""
    from labeling.construction import Constructor
    from labeling.corruptions import FILLERS
    from pipelines.data import snapshots_of
    from prm_kit.run_directory import RunDirectory

    output, run = Output(as_json), RunDirectory(out)
    program, label_steps = _program(task)
    constructor = Constructor(corruption, per_solution, seed, filler or FILLERS, label_steps, program)
    kinds = rely_on or ["human"]
    options = {"corruption": corruption, "per_solution": per_solution, "rely_on": kinds, "task": task, "filler": filler}
    run.start({"label": "construct", "inputs": [str(i) for i in inputs], "seed": seed, **options})
    with output.progress() as progress:
        snapshots = snapshots_of(inputs, out / "imported", progress)
        with run.timed("construct"):
            report = construct_into(
                out / "constructed", constructor, snapshots, kinds, {"seed": seed, **options}, progress
            )
    run.finish(report)
    output.figures(report)
    output.summary(out / "summary.json")


def construct_into(
    folder: Path,
    constructor: Constructor,
    snapshots: list[Path],
    rely_on: list[str],
    options: dict[str, Any],
    progress: Callable[[str, int, int | None, str], None],
) -> dict[str, Any]:
    """Spoil every right solution of the snapshots into one new snapshot.

    Returns:
        What was made, by corruption and label, and what was passed over, by reason.
    """
    from prm_kit.snapshot import SnapshotWriter
    from prm_kit.view import View

    view = View(snapshots)
    known: dict[str, Annotation] = {}
    for pair in view.labelled(rater_kinds=rely_on):
        held = known.get(pair.solution.id)
        if pair.annotation.labels and (held is None or held.first_error is None):
            known[pair.solution.id] = pair.annotation  # a step that anybody called wrong counts as wrong
    read = 0
    with SnapshotWriter(folder, name="construction", format="constructed", options=options) as writer:
        for read, solution in enumerate(view.iter_solutions(), 1):
            for made, annotation in constructor.construct(solution, known.get(solution.id)):
                writer.add(made, [annotation])
            if read % _STEP == 0:
                progress("construct", read, None, f"{constructor.made} made")
    assert writer.manifest is not None
    return {
        "read": read,
        "made": constructor.made,
        "rater": {"name": constructor.rater.name, "version": constructor.rater.version},
        "counts": dict(sorted(constructor.counts.items())),
        "snapshot": folder.name,
        "solutions": writer.manifest.counts["solutions"],
        "labels": dict(writer.manifest.labels),
    }


def _program(task: str | None) -> tuple[str, LabelSteps | None]:
    """The name and the labelling program of a task.

    Raises:
        UsageError: The task has none.
    """
    from prm_kit.errors import UsageError
    from prm_kit.tasks.registry import open_task
    from prm_kit.tasks.task import StepLabelledTask

    if task is None:
        return "", None
    opened = open_task(task)
    if not isinstance(opened, StepLabelledTask):
        raise UsageError(f"task {task!r} has no program that labels steps")
    return f"{opened.rater.name}-{opened.rater.version}", opened.label_steps
