"""The append-only store of the labels made here: one SQLite file, self-contained, safe for several writers at once.

- Append-only: triggers refuse UPDATE, DELETE and REPLACE, so history cannot be rewritten through SQLite either.
- A later annotation supersedes an earlier one of the same rater on the same solution; both remain. The same rater is
  the same kind and the same name, whatever the version: a judge with a new prompt replaces what it said before. Kind
  is part of it, so a simulated rater never passes for a human one of that name. Later means appended later.
- The same content is stored once: whoever may take back a change of mind must give annotations a time.
- Write-ahead log, so readers never wait; `synchronous=FULL`, because labels cost people hours: what was acknowledged
  is on the disk even if the machine loses power, not only if the process is killed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from prm_kit.errors import InputError
from prm_kit.ledger_schema import open_database, writing
from prm_kit.record_json import solution_from_json, solution_to_json
from prm_kit.records import Annotation, Labelled, Rater, Solution, StepLabel, check_annotation

_PAGE = 500


class Appended(NamedTuple):
    """What an append stored.

    Attributes:
        annotations: Annotations stored now.
        known: Annotations that were already there, by content.
        solutions: Solutions stored now.
    """

    annotations: int
    known: int
    solutions: int


class Ledger:
    """An opened ledger. One object belongs to one thread of one process.

    Args:
        path: The file; made if it is not there.
        must_exist: Refuse to make it: for readers, to whom a wrong name shall not look like an empty ledger.

    Raises:
        InputError: The file is no ledger, of another version, not there, or cannot be opened.
    """

    def __init__(self, path: str | Path, must_exist: bool = False) -> None:
        self.path = Path(path)
        if must_exist and not self.path.is_file():
            raise InputError(f"{self.path}: no such ledger")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror}") from None
        self._db = open_database(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with suppress(AttributeError, sqlite3.ProgrammingError):  # never opened, or opened by another thread
            self._db.close()

    def close(self) -> None:
        """Close the file. What was appended is on disk already."""
        self._db.close()

    @contextmanager
    def moment(self) -> Iterator[None]:
        """Whatever is read within is of one moment, whatever others append meanwhile; nothing is appended here."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    def append(self, annotations: Iterable[Annotation], solutions: Iterable[Solution] = ()) -> Appended:
        """Store annotations and the solutions they are about: all of them, or none if one is refused.

        A solution that is already there stays as it was first written.

        Args:
            annotations: In the order in which they shall supersede each other.
            solutions: Needed for solutions that the ledger does not hold yet; others do no harm.

        Raises:
            InputError: An annotation is about an unknown solution, or a label does not fit its step's text.
        """
        given = {solution.id: solution for solution in solutions}
        annotations = list(annotations)  # before the transaction: whoever makes them may take hours
        stored = known = stored_solutions = 0
        with writing(self._db):
            for solution in given.values():
                stored_solutions += self._insert_solution(solution)
            for annotation in annotations:
                about = given.get(annotation.solution_id) or self.solution(annotation.solution_id)
                if about is None:
                    raise InputError(
                        f"annotation by {annotation.rater.name}: solution {annotation.solution_id} is not in the "
                        "ledger; append it together with its annotations"
                    )
                given[about.id] = about
                check_annotation(about, annotation)
                new = self._insert_annotation(annotation)
                stored, known = stored + new, known + (not new)
        return Appended(stored, known, stored_solutions)

    def solution(self, solution_id: str) -> Solution | None:
        """The solution of that id, or None."""
        row = self._db.execute("SELECT record FROM solutions WHERE id = ?", (solution_id,)).fetchone()
        return None if row is None else solution_from_json(json.loads(row[0]))

    def solutions(self) -> Iterator[Solution]:
        """Every solution, in the order of appending."""
        for rows in self.solution_rows():
            for _, _, record in rows:
                yield solution_from_json(json.loads(record))

    def solution_rows(self, page: int = _PAGE) -> Iterator[list[tuple[int, str, str]]]:
        """Pages of seq, id and record (JSON text) of every solution, in the order of appending."""
        return self._pages("SELECT seq, id, record FROM solutions WHERE seq > :after ORDER BY seq LIMIT :page", page)

    def current(self) -> Iterator[Annotation]:
        """The latest annotation of each rater on each solution, in the order of appending; all of one moment."""
        for rows in self.current_rows():
            yield from self._annotations(rows)

    def current_rows(self, page: int = _PAGE) -> Iterator[list[tuple[Any, ...]]]:
        """The table's rows of what `current` gives, in pages."""
        query = (
            "SELECT * FROM annotations AS a WHERE seq > :after AND seq <= :end AND NOT EXISTS (SELECT 1 FROM "
            "annotations AS b WHERE b.solution_id = a.solution_id AND b.rater_kind = a.rater_kind AND "
            "b.rater_name = a.rater_name AND b.seq > a.seq AND b.seq <= :end) ORDER BY seq LIMIT :page"
        )
        return self._pages(query, page)

    def label_rows(self, first: int, last: int) -> list[tuple[Any, ...]]:
        """The labels of the annotations whose `seq` is one of these or between: `seq`, and all but the step's hash."""
        return self._db.execute(
            "SELECT annotation, step, value, share_wrong, share_neutral, share_good, count, stderr, comment, sources "
            "FROM labels WHERE annotation BETWEEN ? AND ? ORDER BY annotation, step",
            (first, last),
        ).fetchall()

    def labelled_by(self, rater: Rater) -> set[str]:
        """Ids of the solutions whose latest annotation by a rater of this kind and name is of this version."""
        rows = self._db.execute(
            "SELECT solution_id FROM annotations AS a WHERE rater_kind = ? AND rater_name = ? AND rater_version = ? "
            "AND NOT EXISTS (SELECT 1 FROM annotations AS b WHERE b.solution_id = a.solution_id "
            "AND b.rater_kind = a.rater_kind AND b.rater_name = a.rater_name AND b.seq > a.seq)",
            (rater.kind, rater.name, rater.version),
        )
        return {solution_id for (solution_id,) in rows}

    def knows(self, rater: Rater) -> bool:
        """Whether there is any annotation by a rater of this kind and name."""
        query = "SELECT EXISTS (SELECT 1 FROM annotations WHERE rater_kind = ? AND rater_name = ?)"
        return bool(self._db.execute(query, (rater.kind, rater.name)).fetchone()[0])

    def everything(self) -> Iterator[Annotation]:
        """Every annotation ever appended, superseded ones included, in the order of appending."""
        for rows in self._pages("SELECT * FROM annotations WHERE seq > :after ORDER BY seq LIMIT :page"):
            yield from self._annotations(rows)

    def history(self, solution_id: str, rater: Rater | None = None) -> list[Annotation]:
        """Every annotation of a solution, in the order of appending.

        Args:
            solution_id: The solution.
            rater: Only this rater's (of any version).
        """
        rows = self._db.execute(
            "SELECT * FROM annotations WHERE solution_id = ? ORDER BY seq", (solution_id,)
        ).fetchall()
        found = self._annotations(rows)
        return [a for a in found if rater is None or (a.rater.kind, a.rater.name) == (rater.kind, rater.name)]

    def labelled(self) -> Iterator[Labelled]:
        """The current annotations with their solutions."""
        for annotation in self.current():
            solution = self.solution(annotation.solution_id)
            assert solution is not None
            yield Labelled(solution, annotation)

    def _insert_solution(self, solution: Solution) -> bool:
        if self._db.execute("SELECT 1 FROM solutions WHERE id = ?", (solution.id,)).fetchone():
            return False
        record = json.dumps(solution_to_json(solution), ensure_ascii=False)
        self._db.execute("INSERT INTO solutions (id, record) VALUES (?, ?)", (solution.id, record))
        return True

    def _insert_annotation(self, annotation: Annotation) -> bool:
        if self._db.execute("SELECT 1 FROM annotations WHERE id = ?", (annotation.id,)).fetchone():
            return False
        rater = annotation.rater
        seq = self._db.execute(
            "INSERT INTO annotations (id, solution_id, rater_kind, rater_name, rater_version, time, flags, lead_time, "
            "comment, meta, n_labels) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                annotation.id,
                annotation.solution_id,
                rater.kind,
                rater.name,
                rater.version,
                annotation.time,
                _json(list(annotation.flags)),
                annotation.lead_time,
                annotation.comment,
                _json(dict(annotation.meta)),
                len(annotation.labels),
            ),
        ).lastrowid
        self._db.executemany(
            "INSERT INTO labels (annotation, step, value, step_hash, share_wrong, share_neutral, share_good, count, "
            "stderr, comment, sources) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    seq,
                    label.step,
                    label.value,
                    label.step_hash,
                    *(label.shares or (None, None, None)),
                    label.count,
                    label.stderr,
                    label.comment,
                    _json(list(label.sources)),
                )
                for label in annotation.labels
            ],
        )
        return True

    def _pages(self, query: str, page: int = _PAGE) -> Iterator[list[tuple[Any, ...]]]:
        """Pages of rows by `seq`: no cursor stays open, so a slow reader holds nothing up.

        `:end` is the last annotation when reading began: what is true of the rows up to there never changes.
        """
        (end,) = self._db.execute("SELECT coalesce(max(seq), 0) FROM annotations").fetchone()
        after = 0
        while rows := self._db.execute(query, {"after": after, "end": end, "page": page}).fetchall():
            yield rows
            after = rows[-1][0]

    def _annotations(self, rows: Sequence[tuple[Any, ...]]) -> Iterator[Annotation]:
        for seq, known_id, solution_id, kind, name, version, when, flags, lead_time, comment, meta, _ in rows:
            labels = self._db.execute(
                "SELECT step, value, step_hash, share_wrong, share_neutral, share_good, count, stderr, comment, "
                "sources FROM labels WHERE annotation = ? ORDER BY step",
                (seq,),
            )
            annotation = Annotation(
                solution_id=solution_id,
                rater=Rater(kind, name, version),
                labels=tuple(_label(label) for label in labels),
                time=when,
                flags=tuple(json.loads(flags)),
                lead_time=lead_time,
                comment=comment,
                meta=json.loads(meta),
            )
            if annotation.id != known_id:
                raise InputError(f"{self.path}: annotation {known_id}: its stored content has the id {annotation.id}")
            yield annotation


def _label(row: tuple[Any, ...]) -> StepLabel:
    step, value, step_hash, wrong, neutral, good, count, stderr, comment, sources = row
    shares = None if wrong is None else (wrong, neutral, good)
    return StepLabel(step, value, step_hash, shares, count, stderr, comment, tuple(json.loads(sources)))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def now() -> str:
    """The time, ISO 8601 in UTC, so fine that no two changes of mind share it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
