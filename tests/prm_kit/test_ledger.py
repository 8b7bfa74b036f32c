import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prm_kit.errors import InputError
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, Solution, StepLabel, step_hash

ALICE = Rater("human", "alice")
SOLUTION = Solution.from_steps("1 + 1?", ["1 + 1 = 2.", "好, so 2."], meta={"row_id": "a"}, is_correct=True)
OTHER = Solution.from_steps("2 + 2?", ["2 + 2 = 4."])


def of(values, rater=ALICE, solution=SOLUTION, **fields):
    return Annotation.of(solution, rater, values, **fields)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def test_what_went_in_comes_back(ledger):
    full = Annotation(
        SOLUTION.id,
        Rater("rollout", "mc", "v1"),
        (StepLabel(1, None, step_hash("好, so 2."), (0.25, 0.0, 0.75), 4, 0.2, "c", ("x",)),),
        time="2026-01-01T00:00:00Z",
        flags=("not_sure",),
        lead_time=2,
        comment="whole",
        meta={"k": [1]},
    )
    assert ledger.append([full], [SOLUTION]) == (1, 0, 1)
    assert list(ledger.solutions()) == [SOLUTION]
    (again,) = ledger.current()
    assert again == full
    assert again.id == full.id


def test_a_later_annotation_supersedes_the_earlier_and_both_remain(ledger):
    first, second = of([1, 1]), of([1, -1])
    ledger.append([first], [SOLUTION])
    ledger.append([second])
    assert list(ledger.current()) == [second]
    assert ledger.history(SOLUTION.id) == [first, second] == list(ledger.everything())


def test_another_version_is_the_same_rater_and_another_kind_is_not(ledger):
    first, second = of([1, 1], Rater("judge", "j", "1")), of([0, 1], Rater("judge", "j", "2"))
    simulated = of([1, 1], Rater("simulated", "alice"))
    ledger.append([first, of([1, -1]), simulated, second], [SOLUTION])
    assert list(ledger.current()) == [of([1, -1]), simulated, second]
    assert ledger.history(SOLUTION.id, Rater("judge", "j")) == [first, second]


def test_the_same_content_is_stored_once(ledger):
    assert ledger.append([of([1, 1])], [SOLUTION]) == (1, 0, 1)
    assert ledger.append([of([1, 1])], [SOLUTION]) == (0, 1, 0)
    assert ledger.append([of([1, 1], time="2026-01-01T00:00:00Z")]) == (1, 0, 0)
    assert len(list(ledger.everything())) == 2


def test_a_refused_annotation_leaves_nothing_of_its_batch(ledger):
    with pytest.raises(InputError, match="not in the ledger"):
        ledger.append([of([1, 1]), of([1], solution=OTHER)], [SOLUTION])
    with pytest.raises(InputError, match="step 0: the label was made for another text"):
        ledger.append([Annotation(SOLUTION.id, ALICE, (StepLabel(0, 1, step_hash("else")),))], [SOLUTION])
    with pytest.raises(InputError, match="label of step 5"):
        ledger.append([Annotation(SOLUTION.id, ALICE, (StepLabel(5, 1, step_hash("else")),))], [SOLUTION])
    assert list(ledger.everything()) == list(ledger.solutions()) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE labels SET value = 1",
        "UPDATE annotations SET rater_name = 'bob'",
        "UPDATE solutions SET record = ''",
        "DELETE FROM labels",
        "DELETE FROM annotations",
        "DELETE FROM solutions",
        "INSERT OR REPLACE INTO solutions SELECT * FROM solutions",
        "INSERT OR REPLACE INTO annotations SELECT * FROM annotations",
        "INSERT OR REPLACE INTO labels SELECT * FROM labels",
    ],
)
def test_history_cannot_be_rewritten(ledger, statement):
    ledger.append([of([1, -1])], [SOLUTION])
    with sqlite3.connect(ledger.path) as outsider, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        outsider.execute(statement)
    outsider.close()
    assert list(ledger.current()) == [of([1, -1])]


def test_the_database_itself_refuses_other_values_and_labels_slipped_in_later(ledger):
    ledger.append([of([1, None])], [SOLUTION])
    outsider = sqlite3.connect(ledger.path)
    insert = "INSERT INTO labels (annotation, step, value, step_hash, sources) VALUES (?, ?, ?, ?, '[]')"
    with pytest.raises(sqlite3.IntegrityError, match="all of its labels"):
        outsider.execute(insert, (1, 1, 1, "0" * 32))
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        outsider.execute(insert, (2, 0, 1, "0" * 32))
    outsider.execute(
        "INSERT INTO annotations (id, solution_id, rater_kind, rater_name, rater_version, time, flags, meta, n_labels) "
        "SELECT replace(id, substr(id, 1, 1), 'z'), solution_id, 'human', 'x', '', '', '[]', '{}', 3 FROM annotations"
    )
    for value in (2, -2, 0.5):
        with pytest.raises(sqlite3.IntegrityError):
            outsider.execute(insert, (2, 0, value, "0" * 32))
    with pytest.raises(sqlite3.IntegrityError, match="rater_kind"):
        outsider.execute(
            "INSERT INTO annotations (id, solution_id, rater_kind, rater_name, rater_version, time, flags, meta, "
            "n_labels) VALUES (?, ?, 'person', 'x', '', '', '[]', '{}', 0)",
            ("y" * 32, SOLUTION.id),
        )
    outsider.close()


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to have a header of a hundred bytes" * 2)
    with pytest.raises(InputError, match="no ledger"):
        Ledger(tmp_path / "text")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(InputError, match="no ledger"):
        Ledger(tmp_path / "other.db")
    with pytest.raises(InputError, match="no such ledger"):
        Ledger(tmp_path / "missing.db", must_exist=True)
    assert not (tmp_path / "missing.db").exists()
    with Ledger(tmp_path / "future.db") as ledger:
        ledger._db.execute("PRAGMA user_version = 7")
    with pytest.raises(InputError, match="version 7"):
        Ledger(tmp_path / "future.db")


WRITER = """
import sys
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, Solution
name, n = sys.argv[2], int(sys.argv[3])
with Ledger(sys.argv[1]) as ledger:
    for i in range(n):
        solution = Solution.from_steps(f"problem {i}", ["a step", "another"])
        ledger.append([Annotation.of(solution, Rater("human", name), [1, -1])], [solution])
        print(i, flush=True)
"""


def writer(path, name, n):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(n)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path):
    path, n = tmp_path / "ledger.db", 40
    running = [writer(path, name, n) for name in ("alice", "bob")]
    assert [process.communicate(timeout=60)[0].count("\n") for process in running] == [n, n]
    with Ledger(path) as ledger:
        names = [annotation.rater.name for annotation in ledger.current()]
        assert names.count("alice") == names.count("bob") == n
        assert len(list(ledger.solutions())) == n


def test_what_was_acknowledged_is_there_after_the_writer_was_killed(tmp_path):
    path = tmp_path / "ledger.db"
    with writer(path, "alice", 100_000) as process:
        acknowledged = [int(process.stdout.readline()) for _ in range(25)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().splitlines()]
        process.wait()
    with Ledger(path) as ledger:
        stored = [solution.problem for solution in ledger.solutions()]
        assert stored[: len(acknowledged)] == [f"problem {i}" for i in acknowledged]
        # A transaction is whole or not there: every annotation has both labels, every solution its annotation.
        assert [len(annotation.labels) for annotation in ledger.current()] == [2] * len(stored)
        ledger.append([of([1, 1])], [SOLUTION])


def test_many_threads_may_make_the_same_new_ledger(tmp_path):
    def use(i):
        with Ledger(tmp_path / "new.db") as ledger:
            ledger.append([of([1, 1], Rater("human", str(i)))], [SOLUTION])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    with Ledger(tmp_path / "new.db") as ledger:
        assert len(list(ledger.current())) == 8


def test_reading_goes_on_while_the_ledger_grows(ledger):
    ledger.append([of([1, 1], Rater("human", str(i))) for i in range(600)], [SOLUTION])
    reading = ledger.current()
    next(reading)
    ledger.append([of([0, 0], Rater("human", "late"))])
    assert len(list(reading)) == 599
    assert len(list(ledger.current())) == 601


def test_pages_are_of_one_moment_though_a_writer_comes_between_them(ledger):
    raters = [Rater("human", str(n)) for n in range(3)]
    ledger.append([of([1, 1], rater) for rater in raters], [SOLUTION])
    pages = ledger.current_rows(2)
    seen = next(pages)
    with Ledger(ledger.path) as other:  # the first two, whom the page holds, and the third change their minds
        other.append([of([0, 0], rater) for rater in raters])
    for page in pages:
        seen += page
    assert [row[0] for row in seen] == [1, 2, 3]
    assert [annotation.values(2) for annotation in ledger.current()] == [(0, 0)] * 3


def test_a_ledger_that_cannot_be_opened_or_written_says_so(ledger, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "ledger.db"):
        with pytest.raises(InputError, match=str(path)):
            Ledger(path)
    monkeypatch.setattr("prm_kit.ledger_schema.BUSY_SECONDS", 0.01)
    with Ledger(ledger.path) as other:
        ledger._db.execute("BEGIN IMMEDIATE")
        with pytest.raises(InputError, match="database is locked; nothing was stored"):
            other.append([of([1, 1])], [SOLUTION])
