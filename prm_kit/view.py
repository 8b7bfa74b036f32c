"""One view over imported snapshots and the ledger of labels made here: what training and evaluation read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import polars as pl
import pyarrow as pa

from prm_kit.alignment import Aligned, align, taken
from prm_kit.arrow import ANNOTATIONS, annotation_from, solutions_from
from prm_kit.errors import UsageError, unknown_name
from prm_kit.ledger import Ledger
from prm_kit.ledger_part import LedgerPart
from prm_kit.records import RATER_KINDS, Labelled, Solution
from prm_kit.snapshot import Snapshot


class Part(Protocol):
    """What a view is made of: a snapshot, or what a ledger held at one moment."""

    def solutions(self) -> pl.LazyFrame:
        """Columns of `arrow.SOLUTIONS`."""
        ...

    def annotations(self) -> pl.LazyFrame:
        """Columns of `arrow.ANNOTATIONS`."""
        ...

    def solution_batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The solutions, streamed."""
        ...

    def annotation_batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The annotations, streamed."""
        ...


class Frames(NamedTuple):
    """Both tables of a view, of one moment of its ledger: columns of `arrow.SOLUTIONS` and `arrow.ANNOTATIONS`."""

    solutions: pl.LazyFrame
    annotations: pl.LazyFrame


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
        return _distinct([part.solutions() for part in self._parts(annotations=False)])

    def annotations(self) -> pl.LazyFrame:
        """Columns of `arrow.ANNOTATIONS`, each id once, superseded ones left out."""
        return _distinct([part.annotations() for part in self._parts()])

    def frames(self) -> Frames:
        """What `solutions` and `annotations` give, with the ledger read once."""
        parts = self._parts()
        return Frames(_distinct([p.solutions() for p in parts]), _distinct([p.annotations() for p in parts]))

    def iter_solutions(self) -> Iterator[Solution]:
        """Every solution once, in the order of the snapshots and then of the ledger.

        Raises:
            InputError: A stored id does not fit its content.
        """
        parts = self._parts(annotations=False)
        wanted = _places(parts, None)["place"].to_numpy()
        start = 0
        for batch in _solution_batches(parts):
            here = wanted[slice(*np.searchsorted(wanted, (start, start + len(batch))))]
            yield from solutions_from(taken(batch, here - start))
            start += len(batch)

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

        Memory: every id, and the annotations that do not stand in the order of their solutions.

        Args:
            rater_kinds: As in `labelled`.
            rater_names: As in `labelled`.
            sources: As in `labelled`.
            unlabelled: Also give solutions without such an annotation.
            columns: Only these columns of the annotations.

        Raises:
            UsageError: As in `labelled`.
        """
        parts = self._parts()
        places = _places(parts, sources)
        index = _index(parts, rater_kinds, rater_names).join(
            places.select("id", "place"), left_on="solution_id", right_on="id", how="inner", maintain_order="left"
        )
        return align(
            _solution_batches(parts),
            lambda: chain.from_iterable(part.annotation_batches(columns) for part in parts),
            index["at"].to_numpy().astype(np.int64),
            index["place"].to_numpy().astype(np.int64),
            places["place"].to_numpy() if unlabelled else np.zeros(0, dtype=np.int64),
            pa.schema([ANNOTATIONS.field(name) for name in columns]),
        )

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

    def _parts(self, annotations: bool = True) -> list[Part]:
        parts: list[Part] = [*self.snapshots]
        if self.ledger is not None:
            parts.append(LedgerPart(self.ledger, annotations))
        if not parts:
            raise UsageError("a view needs at least one snapshot or a ledger")
        return parts


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


def _distinct(frames: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """Each id once, the first of it; within a part it is distinct already."""
    return frames[0] if len(frames) == 1 else pl.concat(frames).unique("id", keep="first", maintain_order=True)


def _solution_batches(parts: Sequence[Part]) -> Iterator[pa.RecordBatch]:
    return chain.from_iterable(part.solution_batches() for part in parts)


def _places(parts: Sequence[Part], sources: Sequence[str] | None) -> pl.DataFrame:
    """Id and place (number among all solution rows) of the solutions that count, in order."""
    columns = ["id"] if sources is None else ["id", "source"]
    frames = [part.solutions().select(columns).collect(engine="streaming") for part in parts]
    places = pl.concat(frames).with_row_index("place")
    if len(frames) > 1:
        places = places.unique("id", keep="first", maintain_order=True)
    return places if sources is None else places.filter(_is_one_of("source", sources, places["source"].unique()))


def _index(parts: Sequence[Part], rater_kinds: Sequence[str] | None, rater_names: Sequence[str] | None) -> pl.DataFrame:
    """Number (among all annotation rows) and solution_id of the annotations by such raters, in order."""
    for kind in rater_kinds or ():
        if kind not in RATER_KINDS:
            raise unknown_name("rater kind", kind, RATER_KINDS)
    columns = ["solution_id", *(["rater_kind"] if rater_kinds is not None else [])]
    columns += [*(["rater_name"] if rater_names is not None else []), *(["id"] if len(parts) > 1 else [])]
    frames = [part.annotations().select(columns).collect(engine="streaming") for part in parts]
    index = pl.concat(frames).with_row_index("at")
    if len(parts) > 1:
        index = index.unique("id", keep="first", maintain_order=True)
    if rater_kinds is not None:
        index = index.filter(pl.col("rater_kind").is_in(list(rater_kinds)))
    if rater_names is not None:
        index = index.filter(_is_one_of("rater_name", rater_names, index["rater_name"].unique()))
    return index.select("at", "solution_id")


def _is_one_of(column: str, wanted: Sequence[str], there: pl.Series) -> pl.Expr:
    known = there.to_list()
    for name in wanted:
        if name not in known:
            raise unknown_name(column.replace("_", " "), name, known)
    return pl.col(column).is_in(list(wanted))
