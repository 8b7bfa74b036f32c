"""`prm-kit label quality`: how far the raters agree, and how each one does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.output import Json, Out, Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from labeling.label_table import LabelTable


def quality(
    out: Out,
    inputs: Annotated[
        list[Path] | None, typer.Argument(help="Snapshots or files with labels, beside the ledger.")
    ] = None,
    ledger: Annotated[Path | None, typer.Option(help="Ledger to read.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="Merged labels to compare with; default: those there, or a majority made here.")
    ] = None,
    gold: Annotated[
        Path | None, typer.Option(help="Ledger, snapshot or file whose labels are known to be right.")
    ] = None,
    gold_rater: Annotated[
        list[str] | None, typer.Option(help="Whose labels are gold; default: people's in --gold. Repeatable.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=2, help="Resamples of the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    as_json: Json = False,
) -> None:
    """Measure agreement, every rater against the merged labels and gold, and drift; write OUT/report.html."""
    from labeling.label_table import label_table
    from labeling.quality import label_quality
    from pipelines.data import snapshots_of
    from prm_kit.errors import UsageError
    from prm_kit.report.quality import write_quality_report
    from prm_kit.report.quality_tables import print_quality
    from prm_kit.run_directory import RunDirectory
    from prm_kit.view import View

    output = Output(as_json)
    if not inputs and ledger is None:
        raise UsageError("give snapshots, a ledger (--ledger), or both")
    run = RunDirectory(out)
    asked = {"inputs": [str(i) for i in inputs or ()], "ledger": str(ledger), "reference": reference}
    run.start({"label": "quality", **asked, "gold": str(gold), "gold_rater": gold_rater, "seed": seed})
    with output.progress() as progress, run.timed("label quality"):
        table = label_table(View(snapshots_of(inputs or [], out / "imported", progress), ledger))
        known = gold_labels(table, gold, gold_rater, out / "imported", progress)
        if gold is None and known is not None:
            table = table.of_raters([r for r in table.raters["rater"] if r not in set(known.raters["rater"])])
        data = label_quality(table, reference, known, resamples, seed, name=f"Label quality: {out.name}")
    write_quality_report(out / "report.html", data)
    run.finish(data)
    if not as_json:
        print_quality(data, output.console)
        output.say(f"report: {out / 'report.html'}")
    output.summary(out / "summary.json")


def gold_labels(
    table: LabelTable | None,
    gold: Path | None,
    gold_rater: list[str] | None,
    imported: Path,
    progress: Callable[[str, int, int | None, str], None],
) -> LabelTable | None:
    """The gold labels: of a ledger, snapshot or file of their own, or of raters of the table; None: no gold.

    Raises:
        UsageError: There is no such file or rater.
    """
    from labeling.label_table import label_table
    from labeling.quality import gold_table
    from pipelines.data import snapshots_of
    from prm_kit.errors import UsageError
    from prm_kit.view import View

    if gold is None:
        return gold_table(table, gold_rater) if table is not None and gold_rater else None
    if not gold.exists():
        raise UsageError(f"{gold}: no such gold labels")
    if is_ledger(gold):
        return gold_table(label_table(View(ledger=gold)), gold_rater)
    return gold_table(label_table(View(snapshots_of([gold], imported, progress))), gold_rater)


def is_ledger(path: Path) -> bool:
    """Whether a path is an SQLite file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\x00"
