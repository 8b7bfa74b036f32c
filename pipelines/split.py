"""`prm-kit split`: cut completions into steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.output import Json, Out, Output


def command(
    inputs: Annotated[list[Path], typer.Argument(help="Snapshot directories, or files that `prm-kit import` reads.")],
    out: Out,
    method: Annotated[str, typer.Option(help="auto, blank_line, newline, marker, token or sentence.")] = "auto",
    token: Annotated[str | None, typer.Option(help="The separator of method token.")] = None,
    max_step_tokens: Annotated[int, typer.Option(min=1, help="Longer steps are cut further.")] = 512,
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer that counts tokens; default: an estimate.")] = None,
    as_json: Json = False,
) -> None:
    """Split solutions (again) into a new snapshot. Labels stay with the old one: a re-split is another solution."""
    from pipelines.data import snapshots_of
    from prm_kit.files import write_json

    output = Output(as_json)
    with output.progress() as progress:
        snapshots = snapshots_of(inputs, out.with_name(f"{out.name}-imported"), progress)
        counts = split_snapshots(
            snapshots,
            out,
            method=method,
            token=token,
            max_step_tokens=max_step_tokens,
            count_tokens=token_counter(tokenizer),
            progress=progress,
        )
    write_json(out / "summary.json", counts)
    output.figures(counts)
    output.summary(out / "summary.json")


def split_snapshots(
    snapshots: Sequence[Path],
    out: Path,
    *,
    method: str,
    token: str | None,
    max_step_tokens: int | None,
    count_tokens: Callable[[str], int] | None,
    progress: Callable[[str, int, int | None, str], None] | None,
) -> dict[str, Any]:
    """Split every solution of `snapshots` into a new snapshot `out`; return the counts.

    A completion without any step (blank text) is rejected with its id, never dropped in silence.
    """
    from pipelines.data import solutions
    from prm_kit.snapshot import SnapshotWriter
    from prm_kit.split import resplit

    options = {"method": method, "token": token, "max_step_tokens": max_step_tokens}
    counts: Counter[str] = Counter()
    with SnapshotWriter(out, name=out.name, format="split", options=options) as writer:
        for done, solution in enumerate(solutions(snapshots), 1):
            again = resplit(solution, method, token=token, max_step_tokens=max_step_tokens, count_tokens=count_tokens)
            counts["solutions"] += 1
            if not again.spans:
                counts["without steps"] += 1
                writer.reject(solution.source, done, f"solution {solution.id} has no step", solution.completion)
                continue
            counts["steps"] += len(again.spans)
            counts["changed"] += again.spans != solution.spans
            writer.add(again, ())
            if progress and done % 1000 == 0:
                progress("split", done, None, "")
    return {**options, **counts}


def token_counter(tokenizer: str | None) -> Callable[[str], int] | None:
    """A function that counts the tokens of a text, or None without a tokenizer."""
    if tokenizer is None:
        return None
    from prm_kit.backbone import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    return lambda text: len(loaded.encode(text, add_special_tokens=False))
