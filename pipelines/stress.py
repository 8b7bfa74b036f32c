"""`prm-kit stress`: attacks on a PRM, as a table of what it withstands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.output import Json, Out, Output
from pipelines.scorers import Family, Reference


def command(
    checkpoint: Annotated[str, typer.Argument(help="Folder or hub id of a PRM, or the address of a server.")],
    out: Out,
    data: Annotated[list[str], typer.Option("--data", help="Labelled snapshot or importable file; repeatable.")],
    each: Annotated[int, typer.Option(min=1, help="Attack at most so many right and so many wrong solutions.")] = 100,
    aggregation: Annotated[str | None, typer.Option(help="min, last, product or mean; default: the card's.")] = None,
    ledger: Annotated[Path | None, typer.Option(help="Ledger with annotations made here.")] = None,
    rater_kind: Annotated[list[str] | None, typer.Option(help="Only raters of this kind; repeatable.")] = None,
    seed: int = 0,
    family: Family = None,
    reference: Reference = None,
    as_json: Json = False,
) -> None:
    """Change right and wrong solutions in ways that must not pay, and say how often they do."""
    from pipelines.data import labelled_solutions, snapshots_of
    from pipelines.scorers import aggregation_of, scorer_of
    from prm_kit.aggregate import AGGREGATIONS
    from prm_kit.errors import unknown_name
    from prm_kit.evaluate.stress import stress
    from prm_kit.prefix_labels import with_prefix_labels
    from prm_kit.report.stress import print_stress, write_stress_report
    from prm_kit.run_directory import RunDirectory

    if aggregation is not None and aggregation not in AGGREGATIONS:
        raise unknown_name("aggregation", aggregation, AGGREGATIONS)
    output = Output(as_json)
    run = RunDirectory(out)
    run.start({"checkpoint": checkpoint, "data": data, "each": each, "aggregation": aggregation, "seed": seed})
    with output.progress() as progress, run.timed("stress"):
        rows = labelled_solutions(snapshots_of(data, out / "imported", progress), ledger, rater_kind or ())
        scorer = scorer_of(checkpoint, "prm", family=family, reference=reference)
        found = stress(
            with_prefix_labels(rows),
            scorer,
            name=", ".join(Path(path).name for path in data),
            aggregation=aggregation or aggregation_of(scorer),
            each=each,
            about={"checkpoint": checkpoint},
            seed=seed,
            progress=progress,
        )
    write_stress_report(out / "report.html", found)
    run.finish(found)
    if not as_json:
        print_stress(found, output.console)
        output.say(f"report: {out / 'report.html'}")
    output.summary(out / "summary.json")
