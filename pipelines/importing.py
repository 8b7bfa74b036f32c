"""`prm-kit import`: a data set in a foreign format becomes an immutable snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.output import Json, Out, Output


def command(
    format: Annotated[str, typer.Argument(help="Name of the format, or auto.")],
    paths: Annotated[list[str], typer.Argument(help="Files (.jsonl, .json, .gz), globs, or hf://owner/name:split.")],
    out: Out,
    option: Annotated[list[str] | None, typer.Option(help="key=value for the format's reader; repeatable.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read at most so many rows.")] = None,
    max_reject_share: Annotated[float, typer.Option(min=0, max=1, help="Stop above this share of bad rows.")] = 0.01,
    as_json: Json = False,
) -> None:
    """Read a data set into a snapshot: solutions, labels, rejected rows and a manifest."""
    from pipelines.data import import_source
    from pipelines.recipe import Source
    from prm_kit.settings import apply_override

    output = Output(as_json)
    options: dict[str, object] = {}
    for text in option or []:
        apply_override(options, text)
    source = Source(paths=paths, format=format, options=options, limit=limit, max_reject_share=max_reject_share)
    with output.progress() as progress:
        counts = import_source(source, None, out, progress)
    if not as_json:
        for key, value in counts.items():
            output.say(f"{key}: {value}")
    output.summary(Path(out) / "summary.json")
