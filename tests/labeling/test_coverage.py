import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.coverage import label_report
from prm_kit.records import Annotation, Rater, Solution

JUDGE, ALICE = Rater("judge", "j"), Rater("human", "alice")
value = st.sampled_from([-1, 0, 1, None])


def solution(steps, name="p"):
    return Solution.from_steps(name, [f"step {i}" for i in range(steps)])


def annotations(rater, *rows, **fields):
    """One annotation a row, of a solution of its own; rows of two raters are about the same solutions."""
    return [
        Annotation.of(solution(len(row), f"p{i}"), rater, row, meta={"steps": len(row)}, **fields)
        for i, row in enumerate(rows)
    ]


def test_coverage_counts_what_was_said():
    report = label_report(annotations(JUDGE, [1, None, -1], [None, None], [0], flags=("odd",)))
    assert (report["solutions"], report["solutions_without_labels"], report["steps"]) == (3, 1, 6)
    assert (report["labelled_steps"], report["coverage"]) == (3, 0.5)
    assert report["values"] == {"-1": 1, "0": 1, "1": 1}
    assert report["flags"] == {"odd": 3}
    assert "confusion" not in report


def test_precision_is_by_what_was_said_and_recall_by_what_is_true():
    # Said -1 twice, once rightly; said +1 three times, twice rightly (the third is unjudged by the reference: it does
    # not count); true -1 twice, one of them left out.
    report = label_report(annotations(JUDGE, [1, -1, 1], [-1, None, 1]), annotations(ALICE, [1, -1, None], [1, -1, 1]))
    assert report["precision"] == {"-1": 0.5, "0": None, "1": 1.0}
    assert report["recall"] == {"-1": 0.5, "0": None, "1": 2 / 3}
    assert report["confusion"]["-1"] == {"-1": 1, "0": 0, "1": 0, "null": 1}
    assert report["confusion"]["1"] == {"-1": 1, "0": 0, "1": 2, "null": 0}
    assert report["compared"] == {"-1": 2, "0": 0, "1": 2}


def test_first_errors_are_exact_early_late_missed_or_named_for_nothing():
    said = [[1, -1, 1], [-1, 1, 1], [1, 1, -1], [1, 1, 1], [1, 1, 1], [1, 1, -1]]
    true = [[1, -1, None], [1, 1, -1], [-1, None, None], [1, -1, None], [1, 0, 1], [1, 1, 1]]
    found = label_report(annotations(JUDGE, *said), annotations(ALICE, *true))["first_error"]
    assert found["with_error"] == {"exact": 1, "early": 1, "late": 1, "missed": 1}
    assert found["without_error"] == {"none_named": 1, "named": 1}
    assert (found["compared"], found["agree"], found["agreement"]) == (6, 2, 2 / 6)
    assert found["mean_distance"] == (0 + 2 + 2) / 3


def test_a_first_error_that_the_reference_leaves_open_does_not_count():
    # Open: the step before its error is unjudged; no error, but a step is unjudged. Said nothing: not compared.
    said = annotations(JUDGE, [1, -1], [1, 1], [None, None])
    found = label_report(said, annotations(ALICE, [None, -1], [1, None], [1, -1]))["first_error"]
    assert (found["compared"], found["agreement"], found["mean_distance"]) == (0, None, None)


def test_labels_behind_an_error_do_not_stand_in_for_unjudged_steps_before_it():
    said = annotations(JUDGE, [1, 1, 1, -1, 1, 1])
    found = label_report(said, annotations(ALICE, [1, None, None, -1, 1, 1]))["first_error"]
    assert found["compared"] == 0


def test_without_the_number_of_steps_coverage_is_unknown_and_not_guessed():
    report = label_report([Annotation.of(solution(2), JUDGE, [1, 1])])
    assert (report["steps"], report["coverage"], report["labelled_steps"]) == (None, None, 2)


def test_it_reads_a_stream_once():
    stream = iter(annotations(JUDGE, [1], [1]))
    assert label_report(stream)["solutions"] == 2
    assert next(stream, None) is None


@given(st.lists(st.lists(st.tuples(value, value), min_size=1, max_size=5), max_size=5))
def test_a_slow_reference_counts_the_same(rows):
    said = annotations(JUDGE, *([a for a, _ in row] for row in rows))
    true = annotations(ALICE, *([b for _, b in row] for row in rows))
    report = label_report(said, true)
    pairs = [pair for row in rows for pair in row]
    for v in (-1, 0, 1):
        both = sum(a == b == v for a, b in pairs)
        told, known = sum(a == v and b is not None for a, b in pairs), sum(b == v for _, b in pairs)
        assert report["precision"][str(v)] == (both / told if told else None)
        assert report["recall"][str(v)] == (both / known if known else None)
        assert sum(report["confusion"][str(v)].values()) == known
    assert report["coverage"] == (sum(a is not None for a, _ in pairs) / len(pairs) if pairs else None)


def test_a_reference_of_the_same_labels_is_met_in_full():
    rows = annotations(JUDGE, [1, -1, 0], [1, 1])
    report = label_report(rows, rows)
    assert set(report["precision"].values()) == set(report["recall"].values()) == {1.0}
    assert report["first_error"]["agreement"] == 1.0
    assert report["first_error"]["mean_distance"] == pytest.approx(0)
