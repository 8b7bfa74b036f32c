"""`prm-kit label rules`: check the arithmetic and algebra that steps claim."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Out, Output

if TYPE_CHECKING:
    from prm_kit.ledger import Ledger
    from prm_kit.records import Solution


def rules(
    inputs: Annotated[list[Path], typer.Argument(help="Snapshot directories, or files that `prm-kit import` reads.")],
    out: Out,
    ledger: Annotated[Path | None, typer.Option(help="Ledger to write to; default OUT/ledger.sqlite.")] = None,
    as_json: Json = False,
) -> None:
    """Check the arithmetic and algebra claimed in each step; abstain where nothing can be checked."""
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
            report = label_by_rules(solutions(snapshots), Ledger(path), snapshots, progress)
    run.finish(report)
    output.figures(report)
    output.summary(out / "summary.json")


def label_by_rules(
    solutions: Iterable[Solution],
    ledger: Ledger,
    snapshots: list[Path],
    progress: Callable[[str, int, int | None, str], None],
) -> dict[str, Any]:
    """Let the rules label every solution that they have not labelled yet.

    Returns:
        How many were labelled before and now, and the report on the latter: coverage, and precision and recall
        where the snapshots hold human labels.
    """
    from labeling.rules import RuleLabeler, rule_report
    from pipelines.label.into import label_into
    from prm_kit.view import View

    people = (pair.annotation for pair in View(snapshots).labelled(rater_kinds=["human"]))
    labeler = RuleLabeler()
    done = ledger.labelled_by(labeler.rater)
    report = rule_report(label_into(labeler, solutions, ledger, done, progress), people)
    return {"already_labelled": len(done), "labelled": report["solutions"], **report}
