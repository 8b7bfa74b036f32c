import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_kit.alignment import Rows, align

SCHEMA = pa.schema([("a", pa.int64())])


def batches(name, n, size):
    return iter([pa.record_batch({name: list(range(i, min(i + size, n)))}) for i in range(0, n, size)])


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(0, 9),
    owners=st.lists(st.integers(-1, 8), max_size=12),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    alone=st.sets(st.integers(0, 8)),
)
def test_annotations_come_to_their_solutions_whatever_the_order(n, owners, sizes, alone):
    """owners[i] is the solution of annotation i; -1 (or beyond n): the annotation is not wanted."""
    wanted = [(i, owner) for i, owner in enumerate(owners) if 0 <= owner < n]
    alone = sorted(i for i in alone if i < n)
    expected = []
    for solution in range(n):
        mine = [i for i, owner in wanted if owner == solution]
        expected += [(solution, i) for i in mine] or [(solution, None)] * (solution in alone)
    at, place = (np.array([pair[k] for pair in wanted], dtype=np.int64) for k in (0, 1))
    pairs = align(
        batches("s", n, sizes[0]),
        lambda: batches("a", len(owners), sizes[1]),
        at,
        place,
        np.array(alone, dtype=np.int64),
        SCHEMA,
    )
    found = [
        (s["s"], a["a"]) for p in pairs for s, a in zip(p.solutions.to_pylist(), p.annotations.to_pylist(), strict=True)
    ]
    assert found == expected


def test_an_index_that_names_a_missing_row_is_an_error():
    with pytest.raises(AssertionError, match="not there"):
        Rows(batches("a", 3, 2)).take(np.array([1, 5]))
