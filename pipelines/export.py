"""`prm-kit export`: snapshots (and a ledger) become a file in a foreign format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.output import Json, Output
from prm_kit.files import json_text


def command(
    format: Annotated[str, typer.Argument(help="Name of the format.")],
    snapshots: Annotated[list[Path], typer.Argument(help="Snapshot directories.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    ledger: Annotated[Path | None, typer.Option(help="Ledger whose annotations are exported too.")] = None,
    rater_kind: Annotated[list[str] | None, typer.Option(help="Only raters of this kind; repeatable.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="key=value for the writer, e.g. neutral_policy.")] = None,
    as_json: Json = False,
) -> None:
    """Write labelled solutions in a foreign format; a report beside the file says what it could not hold."""
    from pipelines.data import labelled_solutions
    from prm_kit.exporting import export_data
    from prm_kit.settings import apply_override

    options: dict[str, object] = {}
    for text in option or []:
        apply_override(options, text)
    report = export_data(labelled_solutions(snapshots, ledger, rater_kind or ()), format, out, options=options)
    output = Output(as_json)
    if as_json:
        sys.stdout.write(json_text(report))
        return
    for key, value in report.items():
        output.say(f"{key}: {value}")
