"""`prm-kit label prm`: a trained PRM labels what it is sure of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Out, Output
from pipelines.scorers import Family

if TYPE_CHECKING:
    from labeling.prm import PrmLabeler
    from prm_kit.ledger import Ledger


def prm(
    inputs: Annotated[list[Path], typer.Argument(help="Snapshot directories, or files that `prm-kit import` reads.")],
    checkpoint: Annotated[Path, typer.Option(help="Folder of a trained or published PRM.")],
    out: Out,
    min_confidence: Annotated[float, typer.Option(help="Abstain below this probability of the likeliest class.")] = 0.8,
    name: Annotated[str | None, typer.Option(help="Of the rater; default: the checkpoint's folder.")] = None,
    family: Family = None,
    ledger: Annotated[Path | None, typer.Option(help="Ledger to write to; default OUT/ledger.sqlite.")] = None,
    compare_with: Annotated[str, typer.Option(help="Kind of the raters in the inputs to compare with.")] = "human",
    as_json: Json = False,
) -> None:
    """Let a trained PRM label each step; it abstains where it is not sure. Run the same command again to resume."""
    from pipelines.data import snapshots_of
    from prm_kit.ledger import Ledger
    from prm_kit.run_directory import RunDirectory

    output, run, path = Output(as_json), RunDirectory(out), ledger or out / "ledger.sqlite"
    labeler = prm_labeler(checkpoint, name, min_confidence, family)
    about = {"checkpoint": str(checkpoint), "min_confidence": min_confidence, "ledger": str(path)}
    run.start({"label": "prm", "inputs": [str(i) for i in inputs], **about})
    with output.progress() as progress:
        snapshots = snapshots_of(inputs, out / "imported", progress)
        with run.timed("label prm"):
            report = label_by_prm(labeler, snapshots, Ledger(path), compare_with, progress)
    run.finish(report)
    output.figures(report)
    output.summary(out / "summary.json")


def prm_labeler(checkpoint: Path, name: str | None, min_confidence: float, family: str | None = None) -> PrmLabeler:
    """The labeller over a checkpoint.

    Raises:
        UsageError: The checkpoint judges whole solutions (an outcome model), or the confidence is no probability.
    """
    from labeling.prm import VERSION, PrmLabeler
    from pipelines.label.checkpoint import checkpoint_name, checkpoint_version
    from pipelines.scorers import scorer_of
    from prm_kit.card import read_card
    from prm_kit.errors import UsageError
    from prm_kit.files import value_sha256
    from prm_kit.records import Rater

    if (checkpoint / "prm.json").is_file() and read_card(checkpoint).target == "outcome":
        raise UsageError(f"{checkpoint}: was trained on final answers alone, so it has nothing to say of steps")
    about = {"version": VERSION, "checkpoint": checkpoint_version(checkpoint), "min_confidence": min_confidence}
    rater = Rater("prm", checkpoint_name(checkpoint, name), value_sha256(about)[:16])
    return PrmLabeler(scorer_of(checkpoint, rater.name, family=family), rater, min_confidence)


def label_by_prm(
    labeler: PrmLabeler,
    snapshots: list[Path],
    ledger: Ledger,
    compare_with: str,
    progress: Callable[[str, int, int | None, str], None],
) -> dict[str, Any]:
    """Let a PRM label every solution that it has not labelled yet.

    Returns:
        How many were labelled before and now, and the report on the latter.
    """
    from labeling.coverage import label_report
    from pipelines.data import solutions
    from pipelines.label.into import label_into
    from prm_kit.view import View

    reference = (pair.annotation for pair in View(snapshots).labelled(rater_kinds=[compare_with]))
    done = ledger.labelled_by(labeler.rater)
    report = label_report(label_into(labeler, solutions(snapshots), ledger, done, progress), reference)
    return {
        "rater": {"name": labeler.rater.name, "version": labeler.rater.version},
        "already_labelled": len(done),
        "labelled": report["solutions"],
        **report,
    }
