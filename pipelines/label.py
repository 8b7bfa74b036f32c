"""`prm-kit label ...`: whoever labels, writes to one ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Out, Output

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labeling.labeler import Labeler
    from prm_kit.ledger import Ledger
    from prm_kit.records import Annotation, Solution

app = typer.Typer(no_args_is_help=True, help="Label steps: rules.")

BATCH = 500
"""Solutions per transaction: what a killed run labels again, at most."""


@app.callback()
def _root() -> None:
    """Every labeller writes its annotations to a ledger."""


@app.command("rules")
def rules(
    inputs: Annotated[list[Path], typer.Argument(help="Snapshot directories, or files that `prm-kit import` reads.")],
    out: Out,
    ledger: Annotated[Path | None, typer.Option(help="Ledger to write to; default OUT/ledger.sqlite.")] = None,
    as_json: Json = False,
) -> None:
    """Check the arithmetic and algebra claimed in each step; abstain where nothing can be checked."""
    from labeling.rules import RuleLabeler
    from pipelines.data import snapshots_of, solutions
    from prm_kit.ledger import Ledger
    from prm_kit.run_directory import RunDirectory

    output = Output(as_json)
    run = RunDirectory(out)
    path = ledger or out / "ledger.sqlite"
    run.start({"label": "rules", "inputs": [str(i) for i in inputs], "ledger": str(path)})
    with output.progress() as progress:
        snapshots = snapshots_of(inputs, out / "imported", progress)
        with run.timed("label rules"):
            report = label_into(RuleLabeler(), solutions(snapshots), Ledger(path), snapshots, progress)
    run.finish(report)
    for key, value in report.items() if not as_json else ():
        output.say(f"{key}: {value}")
    output.summary(out / "summary.json")


def label_into(
    labeler: Labeler,
    solutions: Iterable[Solution],
    ledger: Ledger,
    snapshots: list[Path],
    progress: Callable[[str, int, int | None, str], None],
) -> dict[str, Any]:
    """Let a labeller label every solution that it has not labelled yet; commit batch by batch.

    Returns:
        Counts, and the labeller's report: coverage, and precision and recall where the snapshots hold human labels.
    """
    from labeling.rule_report import rule_report
    from prm_kit.view import View

    done = {a.solution_id for a in ledger.current() if a.rater == labeler.rater}
    todo: Iterator[Solution] = (solution for solution in solutions if solution.id not in done)
    made = 0

    def labelled() -> Iterator[Annotation]:
        nonlocal made
        while batch := list(islice(todo, BATCH)):
            new = list(labeler.label(batch))
            ledger.append(new, batch)
            made += len(new)
            progress(f"label {labeler.rater.name}", len(done) + made, None, "")
            yield from new

    people = (pair.annotation for pair in View(snapshots).labelled(rater_kinds=["human"]))
    report = rule_report(labelled(), people)
    return {"already_labelled": len(done), "labelled": made, **report}
