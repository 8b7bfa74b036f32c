"""One view over imported snapshots and the ledger of labels made here: what training and evaluation read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from prm_kit.arrow import (
    ANNOTATIONS,
    SOLUTIONS,
    annotation_from,
    annotations_batch,
    solutions_batch,
    solutions_from,
)
from prm_kit.errors import UsageError, unknown_name
from prm_kit.ledger import Ledger
from prm_kit.records import RATER_KINDS, Labelled, Solution
from prm_kit.snapshot import READ_ROWS, Snapshot

Places = np.ndarray[Any, np.dtype[np.integer[Any]]]
Booleans = np.ndarray[Any, np.dtype[np.bool_]]


class Aligned(NamedTuple):
    """Rows that belong together.

    Attributes:
        solutions: Rows of `arrow.SOLUTIONS`.
        annotations: As many rows of `arrow.ANNOTATIONS`; all null where a solution has no annotation.
    """

    solutions: pa.RecordBatch
    annotations: pa.RecordBatch


class View:
    """Snapshots and a ledger as one. Solutions that stand in several are one; the first in the order given counts.

    A ledger shows the current annotations only. Supersession is a matter of the ledger: an imported annotation is
    never superseded.

    Args:
        snapshots: Opened snapshots, or their directories.
        ledger: An opened ledger, its path, or None.
    """

    def __init__(
        self, snapshots: Iterable[Snapshot | str | Path] = (), ledger: Ledger | str | Path | None = None
    ) -> None:
        self.snapshots = [s if isinstance(s, Snapshot) else Snapshot.open(s) for s in snapshots]
        self.ledger = Ledger(ledger, must_exist=True) if isinstance(ledger, str | Path) else ledger

    def solutions(self) -> pl.LazyFrame:
        """Columns of `arrow.SOLUTIONS`, each id once."""
        return self._distinct([snapshot.solutions() for snapshot in self.snapshots], self._ledger_solutions())

    def annotations(self) -> pl.LazyFrame:
        """Columns of `arrow.ANNOTATIONS`, each id once, superseded ones left out."""
        return self._distinct([snapshot.annotations() for snapshot in self.snapshots], self._ledger_annotations())

    def iter_solutions(self) -> Iterator[Solution]:
        """Every solution once, in the order of the snapshots and then of the ledger.

        Raises:
            InputError: A stored id does not fit its content.
        """
        wanted = self._places(None)["place"].to_numpy()
        start = 0
        for batch in self._solution_batches():
            here = np.flatnonzero(np.isin(np.arange(start, start + len(batch)), wanted))
            start += len(batch)
            yield from solutions_from(_taken(batch, here))

    def labelled(
        self,
        rater_kinds: Sequence[str] | None = None,
        rater_names: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
    ) -> Iterator[Labelled]:
        """Every annotation with its solution, in the order of the solutions, then of appending.

        Args:
            rater_kinds: Only these kinds of raters; None: all.
            rater_names: Only raters of these names; None: all.
            sources: Only solutions from these data sets; None: all.

        Raises:
            UsageError: No annotation is by such a rater, or no solution from such a source.
            InputError: A stored record does not fit its id.
        """
        for pair in self.aligned(rater_kinds, rater_names, sources):
            rows = pair.annotations.to_pylist()
            for solution, row in zip(solutions_from(pair.solutions), rows, strict=True):
                yield Labelled(solution, annotation_from(row, solution))

    def aligned(
        self,
        rater_kinds: Sequence[str] | None = None,
        rater_names: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        unlabelled: bool = False,
        columns: Sequence[str] = ANNOTATIONS.names,
    ) -> Iterator[Aligned]:
        """Solutions and annotations side by side, in batches of a few thousand rows, streamed.

        Memory: the annotations asked for and every id; the solutions' text is read batch by batch.

        Args:
            rater_kinds: As in `labelled`.
            rater_names: As in `labelled`.
            sources: As in `labelled`.
            unlabelled: Also give solutions without such an annotation.
            columns: Only these columns of the annotations.

        Raises:
            UsageError: As in `labelled`.
        """
        places = self._places(sources)
        chosen = _chosen(self.annotations(), rater_kinds, rater_names, columns)
        chosen = chosen.join(places, left_on="solution_id", right_on="id", how="inner", maintain_order="left")
        chosen = chosen.sort("place", maintain_order=True)
        table = chosen.select(columns).to_arrow().cast(pa.schema([ANNOTATIONS.field(name) for name in columns]))
        table = table.combine_chunks()
        first_of_place = chosen["place"].to_numpy()
        wanted = places["place"].to_numpy()
        start = 0
        for batch in self._solution_batches():
            here = np.arange(start, start + len(batch))
            start += len(batch)
            low, high = np.searchsorted(first_of_place, here), np.searchsorted(first_of_place, here, side="right")
            counts = high - low
            if unlabelled:
                counts = np.maximum(counts, np.isin(here, wanted))
            take = np.repeat(np.arange(len(batch)), counts)
            if not len(take):
                continue
            nth = np.arange(len(take)) - np.repeat(np.cumsum(counts) - counts, counts)
            rows = np.repeat(low, counts) + nth
            missing = rows >= np.repeat(high, counts)
            yield Aligned(_taken(batch, take), _taken(table, rows, missing))

    def raters(self) -> pl.DataFrame:
        """One row a rater: rater_kind, rater_name, annotations, labels, and the number of -1, 0, 1 and null labels."""
        values = pl.col("labels").list.eval(pl.element().struct.field("value"))
        counts = [values.list.eval((pl.element() == v).sum()).list.first().sum().alias(str(v)) for v in (-1, 0, 1)]
        nulls = values.list.eval(pl.element().is_null().sum()).list.first().sum().alias("null")
        return (
            self.annotations()
            .group_by("rater_kind", "rater_name")
            .agg(pl.len().alias("annotations"), pl.col("labels").list.len().sum(), *counts, nulls)
            .sort("rater_kind", "rater_name")
            .collect(engine="streaming")
        )

    def _solution_batches(self) -> Iterator[pa.RecordBatch]:
        for snapshot in self.snapshots:
            yield from snapshot.solution_batches()
        if self.ledger is not None:
            solutions = self.ledger.solutions()
            while held := list(islice(solutions, READ_ROWS)):
                yield solutions_batch(held)

    def _places(self, sources: Sequence[str] | None) -> pl.DataFrame:
        """Id, source and place (number among all solution rows) of the solutions that count."""
        frames = [
            snapshot.solutions().select("id", "source").collect(engine="streaming") for snapshot in self.snapshots
        ]
        if self.ledger is not None:
            frames.append(_frame(self.ledger.solutions(), solutions_batch, SOLUTIONS).select("id", "source").collect())
        if not frames:
            raise UsageError("a view needs at least one snapshot or a ledger")
        places = pl.concat(frames).with_row_index("place")
        if len(frames) > 1:
            places = places.unique("id", keep="first", maintain_order=True)
        return places if sources is None else places.filter(_is_one_of("source", sources, places["source"].unique()))

    def _ledger_solutions(self) -> pl.LazyFrame | None:
        return None if self.ledger is None else _frame(self.ledger.solutions(), solutions_batch, SOLUTIONS)

    def _ledger_annotations(self) -> pl.LazyFrame | None:
        return None if self.ledger is None else _frame(self.ledger.current(), annotations_batch, ANNOTATIONS)

    def _distinct(self, frames: list[pl.LazyFrame], last: pl.LazyFrame | None) -> pl.LazyFrame:
        every = [*frames, *([] if last is None else [last])]
        if not every:
            raise UsageError("a view needs at least one snapshot or a ledger")
        if len(every) == 1:
            return every[0]
        return pl.concat(every).unique("id", keep="first", maintain_order=True)


def split_by_problem(
    labelled: Iterable[Labelled],
    fractions: Mapping[str, float],
    seed: int,
    key: Callable[[Solution], str] | None = None,
) -> dict[str, list[Labelled]]:
    """Split by problem: all solutions of a problem go to one side, whatever else is in the data.

    A problem's side depends on its text and the seed alone, so it stays when rows are added or reordered. Sizes come
    out near the fractions, not exactly; a side can be empty.

    Args:
        labelled: What to split.
        fractions: Share of the problems by side; sums to 1.
        seed: Another seed, another split.
        key: What tells problems apart; None: `problem_key` of the problem's text.

    Raises:
        UsageError: The fractions are negative or do not sum to 1.
    """
    if any(share < 0 for share in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-9:
        raise UsageError(f"fractions {dict(fractions)} are not shares that sum to 1")
    sides: dict[str, list[Labelled]] = {side: [] for side in fractions}
    known: dict[str, str] = {}
    for pair in labelled:
        text = key(pair.solution) if key else problem_key(pair.solution.problem)
        if text not in known:
            known[text] = _side(text, fractions, seed)
        sides[known[text]].append(pair)
    return sides


def problem_key(problem: str) -> str:
    """What makes two problems the same: their text with case and white space folded."""
    return " ".join(problem.casefold().split())


def _side(text: str, fractions: Mapping[str, float], seed: int) -> str:
    digest = hashlib.sha256(f"{seed}:{text}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    edge = 0.0
    for side, share in fractions.items():
        edge += share
        if point < edge:
            return side
    return [side for side, share in fractions.items() if share > 0][-1]


def _chosen(
    annotations: pl.LazyFrame,
    rater_kinds: Sequence[str] | None,
    rater_names: Sequence[str] | None,
    columns: Sequence[str],
) -> pl.DataFrame:
    for kind in rater_kinds or ():
        if kind not in RATER_KINDS:
            raise unknown_name("rater kind", kind, RATER_KINDS)
    if rater_kinds is not None:
        annotations = annotations.filter(pl.col("rater_kind").is_in(list(rater_kinds)))
    needed = [*columns, *({"solution_id", "rater_name"} - set(columns))]
    frame = annotations.select(needed).collect(engine="streaming")
    if rater_names is None:
        return frame
    return frame.filter(_is_one_of("rater_name", rater_names, frame["rater_name"].unique()))


def _is_one_of(column: str, wanted: Sequence[str], there: pl.Series) -> pl.Expr:
    known = there.to_list()
    for name in wanted:
        if name not in known:
            raise unknown_name(column.replace("_", " "), name, known)
    return pl.col(column).is_in(list(wanted))


def _frame(
    records: Iterator[Any], batch_of: Callable[[Sequence[Any]], pa.RecordBatch], schema: pa.Schema
) -> pl.LazyFrame:
    batches = []
    while held := list(islice(records, READ_ROWS)):
        batches.append(batch_of(held))
    return pl.LazyFrame(pl.from_arrow(pa.Table.from_batches(batches, schema)))


def _taken(rows: pa.RecordBatch | pa.Table, which: Places, missing: Booleans | None = None) -> pa.RecordBatch:
    """The rows `which`, null where `missing`; not copied where they lie together."""
    together = len(which) and which[-1] - which[0] == len(which) - 1 and (np.diff(which) == 1).all()
    if together and (missing is None or not missing.any()):
        part = rows.slice(which[0], len(which))
    else:
        part = rows.take(pa.array(which, mask=missing))
    return part if isinstance(part, pa.RecordBatch) else part.combine_chunks().to_batches()[0]
