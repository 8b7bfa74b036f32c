"""Problems in a file or a data set of the hub, each with an answer to compare with.

    SOURCE[#problem=COLUMN,answer=COLUMN,solution=COLUMN,held_out=SOURCE]

SOURCE is a file (JSON lines or an array, `.gz` too, or Parquet), a folder of `datasets`, or hf://OWNER/NAME:SPLIT.
Without names of columns a row has its problem under `problem` or `question`, and its answer under `reference_answer`,
`final_answer` or `answer`, looked for in that order; an answer with a line "#### 42" in it is worked text that ends in
the answer, as GSM8K writes it. Worked text there, or under `solution`, serves as a demonstration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from prm_kit.answer_text import extract_final_answer
from prm_kit.answers import AnswerChecker
from prm_kit.errors import InputError, UsageError, unknown_name
from prm_kit.formats.hub import PREFIX, is_dataset, rows_of_dataset
from prm_kit.formats.row_files import BadRow, rows_of_file
from prm_kit.record_checks import check_text
from prm_kit.records import Problem
from prm_kit.tasks.task import Demonstration, Split, check_split, draw, folded, split_of

_COLUMNS: dict[str, tuple[str, ...]] = {
    "problem": ("problem", "question"),
    "answer": ("reference_answer", "final_answer", "answer"),
    "solution": ("solution",),
}
_HELD_OUT = "held_out"
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
_ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")


class _Row(NamedTuple):
    problem: Problem
    worked: str | None


class ProblemFileTask:
    """Problems of a source. A problem that occurs twice, but for case and white space, is one problem.

    Without a held-out source they are split by the hash of their text. With one, "dev" is what that holds, there is no
    "test", and "train" is everything else: what both hold is not trained on, and counted in `notes`.

    Args:
        source: Where the problems are, with names of columns as above.
        checker: Compares answers; it stays the caller's to close. None: one is made, and `close` ends it.

    Raises:
        UsageError: No such file, another ending, or a name after "#" that means nothing.
    """

    def __init__(self, source: str | Path, checker: AnswerChecker | None = None) -> None:
        self.source, options = _parsed(str(source))
        held_out = options.pop(_HELD_OUT, None)
        columns = {kind: (options[kind],) if kind in options else names for kind, names in _COLUMNS.items()}
        self._columns = columns
        self._held_out = None if held_out is None else _existing(held_out)
        _existing(self.source)
        self._checker = checker or AnswerChecker()
        self._owns_checker = checker is None

    @property
    def name(self) -> str:
        """The file's name, or the data set's."""
        return self.source if self.source.startswith(PREFIX) else Path(self.source).name

    @property
    def notes(self) -> list[str]:
        """What was left out, in words: repeated problems, and problems that are held out too."""
        rows, repeated = self._read
        said = []
        if repeated:
            said.append(
                f"{self.name}: {len(repeated)} rows repeat a problem and were left out, the first: row {repeated[0]}"
            )
        if self._held_out is not None and (both := rows.keys() & self._held_out_rows.keys()):
            first = min(rows[key].problem.meta["line"] for key in both)
            said.append(
                f"{self.name}: {len(both)} of {len(rows)} problems are held out too and are not trained on, "
                f"the first: row {first}"
            )
        return said

    def problems(self, split: Split, n: int | None, seed: int) -> list[Problem]:
        """Draw problems (see `Task.problems`).

        Raises:
            UsageError: Unknown split, or fewer than `n` problems in it.
            InputError: A row without problem or answer, with its line.
        """
        return [row.problem for row in self._drawn(split, n, seed)]

    def demonstrations(self, split: Split, n: int | None, seed: int) -> list[Demonstration]:
        """The file's own worked answers to `problems(split, n, seed)`.

        Raises:
            UsageError: A row has none.
        """
        found = []
        for row in self._drawn(split, n, seed):
            if row.worked is None:
                raise UsageError(f"{self.source}:{row.problem.meta['line']}: no worked solution, so nothing to imitate")
            found.append(Demonstration(row.problem.text, row.worked))
        return found

    def verify(self, problem: Problem, completion: str) -> bool | None:
        """Whether the stated final answer equals the reference (see `Task.verify`)."""
        if problem.reference_answer is None:
            return None
        stated = extract_final_answer(completion)
        return False if stated is None else self._checker.equal(stated, problem.reference_answer).equal

    def close(self) -> None:
        """End the checker's processes, if this task started it."""
        if self._owns_checker:
            self._checker.close()

    def _drawn(self, split: Split, n: int | None, seed: int) -> list[_Row]:
        check_split(split)
        rows = {row.problem.text: row for row in self._rows_of(split)}
        problems = [row.problem for row in rows.values()]
        return [rows[problem.text] for problem in draw(problems, n, seed, f"{self.source}, {split}")]

    def _rows_of(self, split: Split) -> list[_Row]:
        rows, _ = self._read
        if self._held_out is None:
            return [row for row in rows.values() if split_of(row.problem.text) == split]
        if split == "dev":
            return list(self._held_out_rows.values())
        if split == "test":
            raise UsageError(f"{self.source}: with a held-out source there are train and dev problems, and no others")
        return [row for key, row in rows.items() if key not in self._held_out_rows]

    @cached_property
    def _read(self) -> tuple[dict[str, _Row], list[int]]:
        return _problems_of(self.source, self._columns)

    @cached_property
    def _held_out_rows(self) -> dict[str, _Row]:
        assert self._held_out is not None
        return _problems_of(self._held_out, self._columns)[0]


def with_held_out(source: str, held_out: str) -> str:
    """The source with another one for "dev" problems."""
    return f"{source}{',' if '#' in source else '#'}{_HELD_OUT}={held_out}"


def _parsed(source: str) -> tuple[str, dict[str, str]]:
    name, _, words = source.partition("#")
    options: dict[str, str] = {}
    for word in words.split(",") if words else ():
        kind, equals, value = word.partition("=")
        if kind not in (known := [*_COLUMNS, _HELD_OUT]):
            raise unknown_name(f"{source}: name", kind, known)
        if not equals or not value or kind in options:
            raise UsageError(f"{source}: write {kind}=... once")
        options[kind] = value
    return name, options


def _existing(source: str) -> str:
    if source.startswith(PREFIX) or is_dataset(source):
        return source
    if not source.endswith(_ENDINGS):
        raise UsageError(f"{source}: a problem file ends in {', '.join(_ENDINGS)}")
    if not Path(source).is_file():
        raise UsageError(f"{source}: no such file")
    return source


def _problems_of(source: str, columns: Mapping[str, tuple[str, ...]]) -> tuple[dict[str, _Row], list[int]]:
    """Problems by their text without its looks, and the numbers of the rows that repeat one."""
    rows: dict[str, _Row] = {}
    repeated = []
    for number, values in _rows(source):
        row = _row(values, source, number, columns)
        if rows.setdefault(folded(row.problem.text), row) is not row:
            repeated.append(number)
    return rows, repeated


def _rows(source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows with their 1-based numbers."""
    if is_dataset(source):
        for row in rows_of_dataset(source):
            yield row.number, row.value
        return
    for found in rows_of_file(Path(source)):
        if isinstance(found, BadRow):
            raise InputError(f"{source}:{found.number}: {found.reason}")
        yield found.number, found.value


def _row(values: Mapping[str, Any], source: str, line: int, columns: Mapping[str, tuple[str, ...]]) -> _Row:
    text, answer, solution = (_first(values, columns[kind]) for kind in ("problem", "answer", "solution"))
    for kind, value in (("problem", text), ("answer", answer)):
        if not isinstance(value, str | int | float) or not str(value).strip():
            raise InputError(
                f"{source}:{line}: no {kind} (a text under {' or '.join(columns[kind])}); it has {', '.join(values)}"
            )
    worked_text = solution if isinstance(solution, str) and solution.strip() else None
    worked, marker, last = str(answer).rpartition("####")
    try:
        for name, value in (("problem", str(text)), ("answer", str(answer)), ("solution", worked_text or "")):
            check_text(name, value)
        if not last.strip():
            raise InputError("answer has nothing after its last ####")
    except InputError as error:
        raise InputError(f"{source}:{line}: {error}") from None
    if marker and worked.strip():
        worked_text = _CALCULATOR.sub("", worked).rstrip() + f"\n#### {last.strip()}"
    return _Row(Problem(str(text), last.strip(), {"source": Path(source).name, "line": line}), worked_text)


def _first(values: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((values[key] for key in keys if values.get(key) is not None), None)
