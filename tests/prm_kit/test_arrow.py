import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_kit.arrow import annotation_from, annotations_batch, solutions_batch, solutions_from, step_texts
from prm_kit.errors import InputError
from prm_kit.records import Annotation, Rater, Solution, StepLabel, step_hash

text = st.text(alphabet="aé好😀 \n", min_size=1).filter(lambda s: s.strip())
solutions = st.builds(
    Solution.from_steps,
    text,
    st.lists(text, max_size=4),
    st.sampled_from(["", "\n\n", "好"]),
    final_answer=st.none() | text,
    is_correct=st.none() | st.booleans(),
    meta=st.dictionaries(text, st.none() | st.integers(0, 9) | text, max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(solutions, max_size=5))
def test_solutions_survive_the_columns(records):
    assert list(solutions_from(solutions_batch(records))) == records


@settings(max_examples=60, deadline=None)
@given(st.lists(solutions, max_size=5), st.integers(0, 3))
def test_steps_are_cut_in_columns_as_in_records(records, skipped):
    batch = solutions_batch(records)
    batch = pa.RecordBatch.from_arrays([column.combine_chunks() for column in pa.table(batch)], schema=batch.schema)
    batch = batch.slice(skipped)
    assert step_texts(batch).to_pylist() == [list(record.steps) for record in records[skipped:]]


def test_everything_an_annotation_says_survives_the_columns():
    solution = Solution.from_steps("p", ["one", "zwei"])
    label = StepLabel(
        1, None, step_hash("zwei"), shares=(0.25, 0.5, 0.25), count=4, stderr=0.1, comment="hm", sources=("a", "b")
    )
    annotation = Annotation(
        solution.id,
        Rater("merged", "m", "2"),
        (StepLabel(0, -1, step_hash("one")), label),
        time="2026-01-01T00:00:00Z",
        flags=("not_sure",),
        lead_time=3.5,
        comment="c",
        meta={"k": 1},
    )
    (row,) = annotations_batch([annotation]).to_pylist()
    again = annotation_from(row, solution)
    assert again == annotation
    assert again.id == annotation.id == row["id"]
    with pytest.raises(InputError, match="is about solution"):
        annotation_from(row, Solution.from_steps("p", ["one", "two"]))


def test_a_changed_text_is_noticed():
    rows = solutions_batch([Solution.from_steps("p", ["one"])]).to_pylist()
    rows[0]["completion"] = "two"
    batch = pa.RecordBatch.from_pylist(rows, schema=solutions_batch([]).schema)
    with pytest.raises(InputError, match="its stored content has the id"):
        list(solutions_from(batch))
