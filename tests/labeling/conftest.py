import pytest

from labeling.label_table import label_table
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, Solution
from prm_kit.view import View


def solution(steps, name):
    return Solution.from_steps(f"problem {name}", [f"step {i}" for i in range(steps)])


@pytest.fixture
def ledger_of(tmp_path):
    """A ledger from rows of labels by rater name: row i is about solution i, of a problem of its own.

    A name "judge j" is a rater of kind judge; without a kind it is a person. A row of Nones is an annotation without
    labels, and None instead of a row is no annotation.
    """

    def make(rows_of, name="ledger.sqlite", **fields):
        ledger = Ledger(tmp_path / name)
        for rater, rows in rows_of.items():
            kind, _, given = rater.rpartition(" ")
            for i, row in enumerate(rows):
                if row is not None:
                    about = solution(len(row), str(i))
                    ledger.append([Annotation.of(about, Rater(kind or "human", given), row, **fields)], [about])
        return ledger

    return make


@pytest.fixture
def table_of(ledger_of):
    """The label table of such a ledger."""
    return lambda rows_of, **fields: label_table(View(ledger=ledger_of(rows_of, **fields)))
