"""Problems in a file, each with an answer to compare with: GSM8K-like JSONL or Parquet, and any {problem, answer}.

Each row has a problem (`problem` or `question`) and an answer (`reference_answer`, `final_answer` or `answer`); an
`answer` with a line "#### 42" in it is worked text that ends in the answer, as GSM8K writes it. Worked text there, or
under `solution`, serves as a demonstration. Names of columns are looked for in the order given here.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from prm_kit.answer_text import extract_final_answer
from prm_kit.answers import AnswerChecker
from prm_kit.errors import InputError, UsageError
from prm_kit.records import Problem, check_text
from prm_kit.tasks.task import Demonstration, Split, check_split, draw, split_of

_PROBLEM_KEYS = ("problem", "question")
_ANSWER_KEYS = ("reference_answer", "final_answer", "answer")
_WORKED_KEY = "solution"
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
_ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")


class _Row(NamedTuple):
    problem: Problem
    worked: str | None


class ProblemFileTask:
    """Problems of a file, split by the hash of their text: a problem that occurs twice is one problem.

    Args:
        path: A .jsonl, .jsonl.gz or .parquet file.
        checker: Compares answers; it stays the caller's to close. None: one is made, and `close` ends it.
    """

    def __init__(self, path: str | Path, checker: AnswerChecker | None = None) -> None:
        self.path = Path(path)
        if not self.path.name.endswith(_ENDINGS):
            raise UsageError(f"{path}: a problem file ends in {', '.join(_ENDINGS)}")
        if not self.path.is_file():
            raise UsageError(f"{path}: no such file")
        self._checker = checker or AnswerChecker()
        self._owns_checker = checker is None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

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
                raise UsageError(f"{self.path}:{row.problem.meta['line']}: no worked solution, so nothing to imitate")
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
        rows = {text: row for text, row in self._rows.items() if split_of(text) == split}
        problems = [row.problem for row in rows.values()]
        return [rows[problem.text] for problem in draw(problems, n, seed, f"{self.path}, {split}")]

    @cached_property
    def _rows(self) -> dict[str, _Row]:
        rows: dict[str, _Row] = {}
        for line, values in _read(self.path):
            row = _row(values, self.path, line)
            rows.setdefault(row.problem.text, row)
        return rows


def _row(values: Mapping[str, Any], path: Path, line: int) -> _Row:
    text, answer = _first(values, _PROBLEM_KEYS), _first(values, _ANSWER_KEYS)
    for kind, value, keys in (("problem", text, _PROBLEM_KEYS), ("answer", answer, _ANSWER_KEYS)):
        if not isinstance(value, str | int | float) or not str(value).strip():
            raise InputError(f"{path}:{line}: no {kind} (a text under {' or '.join(keys)}); it has {', '.join(values)}")
    try:
        check_text("problem", str(text))
    except InputError as error:
        raise InputError(f"{path}:{line}: {error}") from None
    worked, marker, last = str(answer).rpartition("####")
    if marker:
        completion = _CALCULATOR.sub("", worked).rstrip() + f"\n#### {last.strip()}"
        return _Row(Problem(str(text), last.strip(), {"source": path.name, "line": line}), completion)
    solution = values.get(_WORKED_KEY)
    worked_text = solution if isinstance(solution, str) and solution.strip() else None
    return _Row(Problem(str(text), str(answer).strip(), {"source": path.name, "line": line}), worked_text)


def _first(values: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((values[key] for key in keys if values.get(key) is not None), None)


def _read(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows with their 1-based numbers; blank lines are counted and passed over."""
    if path.name.endswith(".parquet"):
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(10_000):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
        return
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}:{number}: not JSON: {error}") from None
            if not isinstance(values, dict):
                raise InputError(f"{path}:{number}: a {type(values).__name__}, not an object")
            yield number, values
