import sqlite3

import pyarrow as pa
import pytest

from prm_kit import ledger_part
from prm_kit.arrow import ANNOTATIONS, SOLUTIONS, annotations_batch, solutions_batch
from prm_kit.errors import InputError
from prm_kit.ledger import Ledger
from prm_kit.ledger_part import LedgerPart
from prm_kit.records import Annotation, Rater, Solution, StepLabel, step_hash

ALICE, JUDGE, MERGED = Rater("human", "alice", "1"), Rater("judge", "j", "v"), Rater("merged", "majority")
SOLUTIONS_HERE = [
    Solution.from_steps(f"{n} + 1?", [f"{n} + 1 = {n + 1}.", "Voilà 好."], is_correct=[True, False, None][n % 3])
    for n in range(5)
]


@pytest.fixture
def ledger(tmp_path):
    """Of every kind of content something: superseded passes, no labels, shares, sources, flags, meta, comments."""
    first, second, third, *_ = SOLUTIONS_HERE
    soft = StepLabel(1, None, step_hash("Voilà 好."), (0.25, 0.0, 0.75), count=4, stderr=0.2, comment="ü")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        alice = [Annotation.of(one, ALICE, [1, -1], time="2026-01-01T00:00:00Z") for one in SOLUTIONS_HERE]
        ledger.append(alice, SOLUTIONS_HERE)
        again = Annotation.of(first, ALICE, [0, None], flags=("not_sure", "bad"), lead_time=2.5, comment="später")
        judged = Annotation(second.id, JUDGE, (soft,), meta={"k": {"b": [1, 2.5, None], "a": "好"}})
        sources = StepLabel(0, 1, step_hash("2 + 1 = 3."), sources=(alice[2].id, judged.id))
        ledger.append([again, judged, Annotation(third.id, MERGED, (sources,)), Annotation(first.id, JUDGE, ())])
        yield ledger


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_the_columns_are_those_of_the_records(ledger, rows, monkeypatch):
    monkeypatch.setattr(ledger_part, "READ_ROWS", rows)
    part = LedgerPart(ledger)
    for found, records in (
        (part.annotation_batches(), annotations_batch(list(ledger.current()))),
        (part.solution_batches(), solutions_batch(list(ledger.solutions()))),
    ):
        assert pa.Table.from_batches(found, records.schema).combine_chunks().to_batches() == [records]


def test_what_is_appended_while_it_is_read_belongs_to_another_moment(ledger, monkeypatch):
    before = [annotation.id for annotation in ledger.current()]
    later = Annotation.of(SOLUTIONS_HERE[1], ALICE, [0, 0])
    read = ledger_part._annotations

    def and_append(rows, *rest):
        with Ledger(ledger.path) as other:
            other.append([later])
        return read(rows, *rest)

    monkeypatch.setattr(ledger_part, "READ_ROWS", 1)
    monkeypatch.setattr(ledger_part, "_annotations", and_append)
    assert LedgerPart(ledger).annotations().select("id").collect()["id"].to_list() == before
    assert later.id in [annotation.id for annotation in ledger.current()]


def test_only_the_solutions_are_read_where_only_they_are_wanted(ledger):
    part = LedgerPart(ledger, annotations=False)
    assert part.annotations().collect().height == 0
    assert part.solutions().collect().height == 5


def test_an_empty_ledger_has_the_same_columns(tmp_path):
    part = LedgerPart(Ledger(tmp_path / "empty.sqlite"))
    assert part.annotations().collect().to_arrow().schema.names == ANNOTATIONS.names
    assert part.solutions().collect().to_arrow().schema.names == SOLUTIONS.names


def test_an_annotation_that_lost_a_label_is_refused(ledger):
    damaged = sqlite3.connect(ledger.path)
    damaged.execute("DROP TRIGGER labels_no_delete")
    damaged.execute("DELETE FROM labels WHERE annotation = 2 AND step = 1")
    damaged.commit()
    damaged.close()
    lost = Annotation.of(SOLUTIONS_HERE[1], ALICE, [1, -1], time="2026-01-01T00:00:00Z").id
    with pytest.raises(InputError, match=f"annotation {lost} has 1 of its labels"):
        LedgerPart(ledger)
