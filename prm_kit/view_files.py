"""A view written out, streamed: the records themselves (Parquet or JSON lines), or a table of step lists (Parquet).

Foreign formats are the matter of `prm_kit.exporting`; these are prm-kit's own forms, lossless but for the step table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prm_kit.alignment import Aligned
from prm_kit.arrow import SOLUTIONS, step_texts
from prm_kit.files import whole_directory, whole_file
from prm_kit.record_json import annotation_to_json, solution_to_json
from prm_kit.snapshot_tallies import WRITE_BATCH, leaves
from prm_kit.view import View

_RATER = ("rater_kind", "rater_name", "rater_version")

STEP_TABLE = pa.schema(
    [
        *(SOLUTIONS.field(name) for name in ("id", "problem")),
        pa.field("steps", pa.list_(pa.string())),
        pa.field("labels", pa.list_(pa.int8())),
        *(
            SOLUTIONS.field(name)
            for name in ("final_answer", "reference_answer", "is_correct", "generator", "source", "licence", "meta")
        ),
        *(pa.field(name, pa.string()) for name in _RATER),
    ]
)
"""One row an annotation: steps and labels side by side (null: not judged). Solutions nobody judged have one row, with
null labels and no rater."""


def write_parquet(view: View, directory: Path) -> None:
    """Write solutions.parquet and annotations.parquet: the columns of `prm_kit.arrow`, as a directory, whole or not."""
    with whole_directory(directory) as folder:
        view.solutions().sink_parquet(folder / "solutions.parquet")
        view.annotations().sink_parquet(folder / "annotations.parquet")


def write_jsonl(view: View, directory: Path) -> dict[str, int]:
    """Write solutions.jsonl and annotations.jsonl: the project's JSON forms, one record a line, as a directory.

    Returns:
        The number of lines in each.
    """
    counts = {"solutions": 0, "annotations": 0}
    with whole_directory(directory) as folder:
        with (folder / "solutions.jsonl").open("w", encoding="utf-8", newline="") as file:
            for solution in view.iter_solutions():
                file.write(json.dumps(solution_to_json(solution), ensure_ascii=False) + "\n")
                counts["solutions"] += 1
        with (folder / "annotations.jsonl").open("w", encoding="utf-8", newline="") as file:
            for pair in view.labelled():
                file.write(json.dumps(annotation_to_json(pair.annotation), ensure_ascii=False) + "\n")
                counts["annotations"] += 1
    return counts


def write_step_table(
    view: View,
    path: Path,
    rater_kinds: Sequence[str] | None = None,
    rater_names: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
) -> int:
    """Write one Parquet file of `STEP_TABLE`, for readers that know nothing of spans and records.

    What a label says beside its value (shares, comments) is not in it.

    Args:
        view: What to write.
        path: The file; whole or not there.
        rater_kinds: As in `View.labelled`; solutions without such an annotation are written without labels.
        rater_names: As there.
        sources: As there.

    Returns:
        The number of rows.
    """
    rows = 0
    pairs = view.aligned(rater_kinds, rater_names, sources, unlabelled=True, columns=[*_RATER, "labels"])
    with (
        whole_file(path, "wb") as file,
        pq.ParquetWriter(
            file,
            STEP_TABLE,
            compression={leaf: "none" if leaf == "id" else "snappy" for leaf in leaves(STEP_TABLE)},
            use_dictionary=_REPEATING,
            write_statistics=False,
            write_batch_size=WRITE_BATCH,
        ) as out,
    ):
        for table in _groups(pairs):
            out.write_table(table, row_group_size=1 << 30)
            rows += len(table)
    return rows


_REPEATING = ["generator", "source", "licence", *_RATER]
_GROUP_BYTES = 32 << 20


def _groups(pairs: Iterator[Aligned]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    size = 0
    for pair in pairs:
        held.append(_step_rows(pair))
        size += held[-1].nbytes
        if size >= _GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _step_rows(pair: Aligned) -> pa.RecordBatch:
    columns = {
        **{name: pair.solutions.column(name) for name in SOLUTIONS.names},
        **{name: pair.annotations.column(name) for name in _RATER},
        "steps": step_texts(pair.solutions),
        "labels": _dense_labels(pair),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in STEP_TABLE.names], schema=STEP_TABLE)


def _dense_labels(pair: Aligned) -> pa.ListArray:
    """One value per step, null where there is no label."""
    n_steps = pc.list_value_length(pair.solutions.column("spans")).to_numpy()
    first = np.cumsum(n_steps, dtype=np.int64) - n_steps
    labels = pair.annotations.column("labels")
    n_labels = pc.list_value_length(labels).fill_null(0).to_numpy()
    flat = labels.flatten()
    place = np.repeat(first, n_labels) + flat.field("step").to_numpy()
    given = flat.field("value")
    values, missing = np.zeros(n_steps.sum(), dtype=np.int8), np.ones(n_steps.sum(), dtype=bool)
    values[place] = given.fill_null(0).to_numpy()
    missing[place] = given.is_null().to_numpy(zero_copy_only=False)
    offsets = np.append(0, np.cumsum(n_steps)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, mask=missing))
