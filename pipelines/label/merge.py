"""`prm-kit label merge`: many annotations of a solution become one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.output import Json, Out, Output

if TYPE_CHECKING:
    from labeling.consensus import Merged
    from labeling.label_table import LabelTable
    from prm_kit.ledger import Ledger
    from prm_kit.records import Annotation, Solution

BATCH = 1000
"""Annotations per transaction."""


def merge(
    out: Out,
    inputs: Annotated[
        list[Path] | None, typer.Argument(help="Snapshots or files with labels, beside the ledger.")
    ] = None,
    ledger: Annotated[Path | None, typer.Option(help="Ledger to read and write; default OUT/ledger.sqlite.")] = None,
    policy: Annotated[str, typer.Option(help="priority, majority, dawid-skene or filter.")] = "majority",
    kinds: Annotated[
        str | None, typer.Option(help="Kinds of raters to merge, e.g. human,judge; default: all but simulated.")
    ] = None,
    order: Annotated[str | None, typer.Option(help="For priority: kinds, the first to believe first.")] = None,
    between: Annotated[str, typer.Option(help="For filter: the two kinds that must agree.")] = "rollout,judge",
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="For dawid-skene: below is undecided.")] = 0.5,
    as_json: Json = False,
) -> None:
    """Merge the raters' labels of every step; what they leave undecided stays null. `filter` also writes a queue."""
    from itertools import chain

    from labeling.consensus import ORDER, MergeSettings, chosen, merge_summary
    from labeling.consensus import merge as merge_table
    from labeling.label_table import label_table
    from labeling.merged import merged_annotations
    from pipelines.data import snapshots_of
    from prm_kit.ledger import Ledger, now
    from prm_kit.run_directory import RunDirectory
    from prm_kit.settings import validated
    from prm_kit.view import View

    output = Output(as_json)
    values = {
        "policy": policy,
        "kinds": words(kinds) or None,
        "order": words(order) or ORDER,
        "between": words(between),
        "min_confidence": min_confidence,
    }
    settings = validated(MergeSettings, values, "label merge")
    run = RunDirectory(out)
    path = ledger or out / "ledger.sqlite"
    asked = {"label": "merge", "inputs": [str(i) for i in inputs or ()], "ledger": str(path)}
    run.start(asked | settings.model_dump(mode="json"))
    with output.progress() as progress, run.timed("label merge"):
        snapshots = snapshots_of(inputs or [], out / "imported", progress)
        store = Ledger(path, must_exist=not inputs)
        everybody = label_table(View(snapshots, store))
        before = merged_by(everybody, settings.rater.name)
        table = chosen(everybody, settings.kinds)
        merged = merge_table(table, settings)
        solutions = chain(store.solutions(), View(snapshots).iter_solutions() if snapshots else ())
        annotations = merged_annotations(solutions, table, merged, settings, now(), before)
        counts = append_new(store, annotations, bool(before), progress)
        rater = {"kind": settings.rater.kind, "name": settings.rater.name, "version": settings.rater.version}
        summary = {"rater": rater, **counts, **merge_summary(merged, table)}
    if merged.rest is not None:
        summary["queue"] = {"file": "queue.jsonl", "solutions": queue_rest(out / "queue.jsonl", table, merged)}
    run.finish(summary)
    output.figures(summary)
    output.summary(out / "summary.json")


def merged_by(table: LabelTable, policy: str) -> set[str]:
    """Ids of the solutions for which the table holds an annotation merged by this policy."""
    merged = table.of(["merged"])
    numbers = merged.raters.filter(merged.raters["name"] == policy)["rater"].to_list()
    about = merged.of_raters(numbers).annotations.select("solution").unique()
    return set(table.solutions.join(about, on="solution")["id"])


def words(text: str | None) -> list[str]:
    """Comma-separated words."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def append_new(
    ledger: Ledger,
    annotations: Iterable[tuple[Solution, Annotation]],
    merged_before: bool,
    progress: Callable[[str, int, int | None, str], None],
) -> dict[str, int]:
    """Append the merged annotations that say something new.

    Args:
        ledger: Where they go.
        annotations: With their solutions.
        merged_before: Whether the ledger may hold annotations by this rater.
        progress: Called as progress(stage, done, total, note).

    Returns:
        How many solutions there were, how many annotations were appended, and how many say what the ledger said.
    """
    counts = {"solutions": 0, "appended": 0, "unchanged": 0}
    batch: list[tuple[Solution, Annotation]] = []
    for solution, annotation in annotations:
        before = ledger.history(solution.id, annotation.rater) if merged_before else []
        counts["solutions"] += 1
        if (before and before[-1].timeless_id == annotation.timeless_id) or not (before or annotation.labels):
            counts["unchanged"] += 1
            continue
        batch.append((solution, annotation))
        if len(batch) == BATCH:
            counts["appended"] += _append(ledger, batch)
            progress("label merge", counts["solutions"], None, "")
    counts["appended"] += _append(ledger, batch)
    return counts


def queue_rest(path: Path, table: LabelTable, merged: Merged) -> int:
    """Write what is for people as a queue file, the most in doubt first; return how many."""
    from labeling.queue import Queued, write_queue

    assert merged.rest is not None
    ids = table.solutions.select("solution", "id")
    rows = merged.rest.join(ids, on="solution").sort("score", "id", descending=[True, False])
    return write_queue(path, (Queued(*row) for row in rows.select("id", "reason", "score").iter_rows()))


def _append(ledger: Ledger, batch: list[tuple[Solution, Annotation]]) -> int:
    appended = ledger.append([annotation for _, annotation in batch], [solution for solution, _ in batch])
    batch.clear()
    return appended.annotations
