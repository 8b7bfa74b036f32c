"""Import foreign data into a snapshot: rows in, solutions and annotations out, everything that went wrong counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prm_kit.errors import InputError, UsageError
from prm_kit.files import whole_file, write_json
from prm_kit.formats.format import Format, Item, Layout, Reading, Row
from prm_kit.formats.hub import is_dataset, rows_of_dataset
from prm_kit.formats.registry import format_named, format_of_row, layout_of
from prm_kit.formats.row_files import BadRow, is_json_lines, rows_of_file
from prm_kit.formats.steps import StepsLayout
from prm_kit.records import Annotation, Solution
from prm_kit.transfer_counts import REPORTED_REJECTS, ImportCount, label_word, reason_kind

if TYPE_CHECKING:
    from prm_kit.snapshot import SnapshotWriter

AUTO = "auto"

_CHECK_EVERY = 1000
_KEPT_REJECTS = 10_000
_KEPT_REASONS = 100


class Sink(Protocol):
    """Where an import goes: `prm_kit.snapshot.SnapshotWriter`, or a list in a test."""

    def add(self, solution: Solution, annotations: Sequence[Annotation]) -> None:
        """Take a solution with its annotations."""
        ...

    def reject(self, file: str, line: int, reason: str, raw: str) -> None:
        """Take a row that could not be read."""
        ...


def import_data(
    format: str,
    inputs: Sequence[str | Path],
    out: Path,
    *,
    options: Mapping[str, Any] | None = None,
    split: str | None = None,
    max_reject_share: float = 0.01,
    limit: int | None = None,
    progress: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """Read files or data sets of one format into a snapshot directory.

    Args:
        format: Name of the format (`prm_kit.formats.registry.FORMATS`), or "auto": told by the first row's keys.
        inputs: Files (JSON lines, a JSON array, `.gz`, Parquet), folders of `datasets`, or `hf://OWNER/NAME:SPLIT`.
        out: Directory of the snapshot; appears when everything is in it. The summary is put there as `summary.json`.
        options: Options of the format.
        split: Method by which solutions without steps are split (`prm_kit.split`), None: they stay without.
        max_reject_share: Share of rejected rows above which the import stops; in [0, 1].
        limit: Read at most so many rows.
        progress: Called as progress("import", rows read, None) now and then.

    Returns:
        What `ImportCount.summary` says, with format, inputs and options.

    Raises:
        UsageError: Unknown format or option, no input, or a share outside [0, 1].
        InputError: An input cannot be read, or too many rows were rejected; `out` is then not made, and the rejected
            rows are in `<out>.rejects.jsonl`.
    """
    from prm_kit.snapshot import SnapshotWriter

    if not inputs:
        raise UsageError("nothing to import: name at least one file or data set")
    spec = format_of_inputs(inputs) if format == AUTO else format_named(format)
    layout = layout_of(spec, options or {})
    if not 0.0 <= max_reject_share <= 1.0:
        raise UsageError(f"max_reject_share {max_reject_share} is not in [0, 1]")
    count = ImportCount()
    about: dict[str, Any] = {
        "format": spec.name,
        "inputs": [str(name) for name in inputs],
        "options": {**layout.model_dump(mode="json"), "split_method": split},
    }
    try:
        with SnapshotWriter(out, name=layout.source or spec.name, format=spec.name, options=about["options"]) as writer:
            if isinstance(layout, StepsLayout) and split is None and limit is None and _all_json_lines(inputs):
                import_blocks(layout, [Path(name) for name in inputs], writer, count, max_reject_share, progress)
            else:
                rows = islice(_rows(inputs), limit)
                import_rows(
                    spec, layout, rows, writer, count, split=split, max_share=max_reject_share, progress=progress
                )
            counts = _finish(writer, inputs, count)
    except InputError:
        _write_rejects(out, count)
        raise
    # Solutions that several rows give (another rater, another time) are stored once.
    duplicates = {key: counts[key] for key in ("duplicate_solutions", "duplicate_annotations")}
    summary = {**about, **count.summary(), **duplicates}
    write_json(out / "summary.json", summary)
    return summary


def import_rows(
    spec: Format,
    layout: Layout,
    rows: Iterator[Row | BadRow],
    sink: Sink,
    count: ImportCount,
    *,
    split: str | None = None,
    max_share: float = 0.01,
    progress: Callable[..., None] | None = None,
) -> None:
    """Read rows into `sink`, counting into `count`.

    Raises:
        InputError: More than `max_share` of the rows were rejected; looked at every thousand rows and at the end.
    """
    for row in rows:
        count.rows += 1
        if isinstance(row, BadRow):
            _reject(row.file, row.number, row.reason, row.raw, sink, count)
        else:
            try:
                reading = spec.read(row, layout)
                items = [_split(item, split) for item in reading.items] if split else reading.items
            except InputError as error:
                _reject(row.file, row.number, str(error), row.raw, sink, count)
            else:
                _add(reading, items, sink, count)
        if count.rows % _CHECK_EVERY == 0:
            _check_share(count, max_share)
            if progress is not None:
                progress("import", count.rows, None)
    _check_share(count, max_share)


def import_blocks(
    layout: StepsLayout,
    paths: Sequence[Path],
    writer: SnapshotWriter,
    count: ImportCount,
    max_share: float,
    progress: Callable[..., None] | None = None,
) -> None:
    """Read files of step lists block by block: what `import_rows` does, many times as fast.

    Raises:
        InputError: More than `max_share` of the rows were rejected; looked at after every block and at the end.
    """
    from prm_kit.formats.step_blocks import read_blocks

    for block in (block for path in paths for block in read_blocks(path, layout)):
        count.rows += block.rows
        for row in block.rejects:
            _reject(row.file, row.number, row.reason, row.raw, writer, count)
        writer.add_batches(block.solutions, block.annotations)
        count.add_block(block)
        if count.rows >= _CHECK_EVERY:
            _check_share(count, max_share)
        if progress is not None:
            progress("import", count.rows, None)
    _check_share(count, max_share)


def format_of_inputs(inputs: Sequence[str | Path]) -> Format:
    """The format that the first readable row speaks for.

    Raises:
        InputError: There is no such row.
        UsageError: It speaks for none.
    """
    first = next((row for row in islice(_rows(inputs), _CHECK_EVERY) if isinstance(row, Row)), None)
    if first is None:
        raise InputError(f"{inputs[0]}: no row that could tell the format")
    return format_of_row(first.value)


def _all_json_lines(inputs: Sequence[str | Path]) -> bool:
    return all(not is_dataset(str(name)) and is_json_lines(Path(name)) for name in inputs)


def _finish(writer: SnapshotWriter, inputs: Sequence[str | Path], count: ImportCount) -> Mapping[str, int]:
    writer.count(rows=count.rows, **{f"note: {note}": times for note, times in count.notes.items()})
    for path in map(Path, inputs):
        if path.is_file():
            writer.add_input(path)
    return writer.finish().counts


def _rows(inputs: Sequence[str | Path]) -> Iterator[Row | BadRow]:
    for name in inputs:
        yield from rows_of_dataset(str(name)) if is_dataset(str(name)) else rows_of_file(Path(name))


def _add(reading: Reading, items: Sequence[Item], sink: Sink, count: ImportCount) -> None:
    for solution, passes in items:
        sink.add(solution, passes)
        count.solutions += 1
        count.steps += len(solution.spans)
        count.annotations += len(passes)
        for annotation in passes:
            count.labels.update(map(label_word, annotation.labels))
        count.labels["null"] += max(1, len(passes)) * len(solution.spans) - sum(len(done.labels) for done in passes)
    count.seen += reading.seen
    count.notes += reading.notes


def _split(item: Item, method: str) -> Item:
    from prm_kit.split import split

    if item.solution.spans or item.annotations:
        return item
    spans = tuple(split(item.solution.completion, method=method).spans)
    return Item(replace(item.solution, spans=spans), ())


def _reject(file: str, number: int, reason: str, raw: str, sink: Sink, count: ImportCount) -> None:
    count.rejected += 1
    kind = reason_kind(reason)
    count.reasons[kind if kind in count.reasons or len(count.reasons) < _KEPT_REASONS else "other reasons"] += 1
    if len(count.rejects) < _KEPT_REJECTS:
        count.rejects.append({"file": file, "line": number, "reason": reason, "raw": raw})
    sink.reject(file, number, reason, raw)


def _check_share(count: ImportCount, max_share: float) -> None:
    if count.rejected <= max_share * count.rows:
        return
    shown = "\n".join(f"  {r['file']}:{r['line']}: {r['reason']}" for r in count.rejects[:REPORTED_REJECTS])
    more = count.rejected - min(count.rejected, REPORTED_REJECTS)
    raise InputError(
        f"{count.rejected} of {count.rows} rows rejected, more than the share of {max_share:g} allowed "
        f"(max_reject_share):\n{shown}" + (f"\n  and {more} more" if more else "")
    )


def _write_rejects(out: Path, count: ImportCount) -> None:
    if not count.rejects:
        return
    with whole_file(out.with_name(f"{out.name}.rejects.jsonl")) as file:
        file.writelines(json.dumps(reject) + "\n" for reject in count.rejects)
