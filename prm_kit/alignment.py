"""Solutions and their annotations side by side, streamed: a merge of two files that are nearly in the same order.

Annotations mostly stand in the order of their solutions, and those are read in step with them. The late ones (about a
solution that came before: a second pass, a label made here of an imported solution) are gathered first and held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]
Booleans = np.ndarray[Any, np.dtype[np.bool_]]


class Aligned(NamedTuple):
    """Rows that belong together.

    Attributes:
        solutions: Rows of `arrow.SOLUTIONS`.
        annotations: As many rows of `arrow.ANNOTATIONS`; all null where a solution has no annotation.
    """

    solutions: pa.RecordBatch
    annotations: pa.RecordBatch


def align(
    solutions: Iterator[pa.RecordBatch],
    annotations: Callable[[], Iterator[pa.RecordBatch]],
    at: Integers,
    place: Integers,
    alone: Integers,
    schema: pa.Schema,
) -> Iterator[Aligned]:
    """Bring annotations to their solutions, in the order of the solutions, then of the annotations.

    Args:
        solutions: All solution rows.
        annotations: Gives all annotation rows; called once, or twice if some are late.
        at: Row numbers of the annotations wanted, increasing.
        place: For each the row number of its solution.
        alone: Row numbers, increasing, of solutions that are given (with a null annotation) if they have none.
        schema: The columns of the annotations.
    """
    late = place < np.maximum.accumulate(place) if len(place) else np.zeros(0, dtype=bool)
    late_at, late_place = at[late], place[late]
    held = pa.Table.from_batches(Rows(annotations()).take(late_at)) if len(late_at) else None
    late_order = np.argsort(late_place, kind="stable")
    late_place = late_place[late_order]
    at, place = at[~late], place[~late]
    rows, start = Rows(annotations()), 0
    for batch in solutions:
        end = start + len(batch)
        low, high = np.searchsorted(place, (start, end))
        late_low, late_high = np.searchsorted(late_place, (start, end))
        found = rows.take(at[low:high])
        where, number = place[low:high], at[low:high]
        if held is not None and late_high > late_low:
            which = late_order[late_low:late_high]
            found += held.take(pa.array(which)).to_batches()
            where = np.append(where, late_place[late_low:late_high])
            number = np.append(number, late_at[which])
        asked = alone[slice(*np.searchsorted(alone, (start, end)))] - start
        has_none = np.ones(len(batch), dtype=bool)
        has_none[where - start] = False
        lonely = asked[has_none[asked]]
        if len(where) + len(lonely):
            yield _side_by_side(batch, found, where - start, number, lonely, schema)
        start = end


class Rows:
    """Rows of a stream of batches, taken by number, forwards only."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._batch: pa.RecordBatch | None = next(batches, None)
        self._start = 0

    def take(self, numbers: Integers) -> list[pa.RecordBatch]:
        """The rows of these numbers, which increase and are not below those asked for before."""
        found = []
        while len(numbers):
            assert self._batch is not None, "the index names a row that is not there"
            end = self._start + len(self._batch)
            here = np.searchsorted(numbers, end)
            if here:
                found.append(taken(self._batch, numbers[:here] - self._start))
                numbers = numbers[here:]
            if len(numbers):
                self._start, self._batch = end, next(self._batches, None)
        return found


def taken(rows: pa.RecordBatch | pa.Table, which: Integers, missing: Booleans | None = None) -> pa.RecordBatch:
    """The rows `which`, null where `missing`; not copied where they lie together."""
    together = len(which) and which[-1] - which[0] == len(which) - 1 and (np.diff(which) == 1).all()
    if together and (missing is None or not missing.any()):
        part = rows.slice(which[0], len(which))
    else:
        part = rows.take(pa.array(which, mask=missing))
    if isinstance(part, pa.RecordBatch):
        return part
    batches = part.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=part.schema)


def _side_by_side(
    solutions: pa.RecordBatch,
    annotations: list[pa.RecordBatch],
    where: Integers,
    number: Integers,
    lonely: Integers,
    schema: pa.Schema,
) -> Aligned:
    """Order one batch: `where` is the row in `solutions` of each annotation, `number` its own number."""
    every = np.append(where, lonely)
    missing = np.append(np.zeros(len(where), dtype=bool), np.ones(len(lonely), dtype=bool))
    order = np.lexsort((np.append(number, lonely), every))
    source = np.append(np.arange(len(where)), np.zeros(len(lonely), dtype=np.int64))
    table = pa.Table.from_batches(annotations, schema)
    return Aligned(taken(solutions, every[order]), taken(table, source[order], missing[order]))
