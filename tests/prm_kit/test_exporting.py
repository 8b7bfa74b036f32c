import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prm_kit.errors import InputError, UsageError
from prm_kit.exporting import export_data
from prm_kit.formats.folding import Folding
from prm_kit.formats.registry import FORMATS, layout_of
from prm_kit.formats.row_files import rows_of_file
from prm_kit.records import Annotation, Rater, Solution

RATER = Rater("human", "ann")
NAMES = sorted(set(FORMATS) - {"omegaprm", "chat", "prm-kit"})
OPTIONS = {
    "math-shepherd": {"step_numbers": "outside"},
    "openrlhf": {"step_numbers": "outside"},
    "rlhflow": {"first_step": "", "problem_separator": "\n\n"},
}


def pair(values, steps=None, problem="p", **fields):
    solution = Solution.from_steps(problem, steps or [f"s{i}" for i in range(len(values))], **fields)
    return solution, Annotation.of(solution, RATER, values)


def read_back(path, name, options):
    layout = layout_of(FORMATS[name], options)
    return [item for row in rows_of_file(path) for item in FORMATS[name].read(row, layout).items]


def scalars(item):
    found = [None] * len(item.solution.spans)
    for label in item.annotations[0].labels:
        found[label.step] = label.value if label.value is not None else label.shares[2] * 2 - 1
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_format_writes_what_it_reads_back(name, tmp_path):
    given_pairs = [pair([1, 1, -1]), pair([1], problem="q"), pair([-1, 1], steps=["x\r\n y", "1. é + -"], problem="r")]
    options = OPTIONS.get(name, {})
    report = export_data(given_pairs, name, tmp_path / "x.jsonl", options=options)
    assert (report["given"], report["rows_written"], report["refused"]) == (3, 3, 0)
    items = read_back(tmp_path / "x.jsonl", name, options)
    assert [item.solution.steps for item in items] == [solution.steps for solution, _ in given_pairs]
    expected = [[1, 1, -1], [1], [-1, 1]]
    if name == "processbench":  # it holds the first error only
        expected[2] = [-1, None]
        assert report["not_held"]["label.value"] == 1
    assert [scalars(item) for item in items] == expected
    assert json.loads((tmp_path / "x.jsonl.report.json").read_text()) == report


TEXT = st.text(alphabet="ab1. \r\n+-$é\u2028步ки:Step", min_size=1, max_size=10).filter(lambda text: text.strip())


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(NAMES),
    TEXT,
    st.lists(st.tuples(TEXT, st.sampled_from([1, -1])), min_size=1, max_size=4),
)
def test_a_solution_is_refused_or_comes_back_with_its_steps_and_labels(tmp_path, name, problem, judged):
    steps, values = [text for text, _ in judged], [value for _, value in judged]
    solution, annotation = pair(values, steps, problem)
    options = OPTIONS.get(name, {})
    report = export_data([(solution, annotation)], name, tmp_path / "x.jsonl", options=options, max_refused_share=1.0)
    items = read_back(tmp_path / "x.jsonl", name, options)
    if report["refused"]:
        assert items == []
        assert solution.id in report["refused_rows"][0]
        return
    (item,) = items
    assert (item.solution.problem, item.solution.steps) == (problem, solution.steps)
    if name == "processbench" and -1 in values:
        values = values[: values.index(-1) + 1] + [None] * (len(values) - values.index(-1) - 1)
    assert scalars(item) == values


def test_a_neutral_label_stops_a_two_class_export_until_a_policy_is_chosen(tmp_path):
    """P8-2."""
    with pytest.raises(UsageError, match="positive, negative, drop or half"):
        export_data([pair([1, 0])], "trl", tmp_path / "x.jsonl")
    assert list(tmp_path.iterdir()) == []
    report = export_data([pair([1, 0])], "trl", tmp_path / "x.jsonl", folding=Folding(neutral_policy="negative"))
    assert report["folding"]["neutral_policy"] == "negative"
    assert report["labels_before"] == {"1": 1, "0": 1, "null": 0}
    assert report["labels_after"] == {"1": 1, "-1": 1}


def test_policies_may_stand_among_the_options(tmp_path):
    report = export_data([pair([1, 0])], "trl", tmp_path / "x.jsonl", options={"neutral_policy": "positive"})
    assert report["labels_after"] == {"1": 2}
    with pytest.raises(UsageError, match="Did you mean 'neutral_policy'"):
        export_data([], "trl", tmp_path / "x.jsonl", options={"neutral_polcy": "keep"})
    with pytest.raises(UsageError, match="neutral_policy"):
        export_data([], "trl", tmp_path / "x.jsonl", options={"neutral_policy": "up"})


def test_neutral_labels_go_as_they_are_where_they_fit(tmp_path):
    for name in ("prm800k", "steps", "prm-kit"):
        report = export_data([pair([1, 0, None])], name, tmp_path / f"{name}.jsonl")
        assert report["labels_after"] == {"1": 1, "0": 1, "null": 1}


def test_a_branch_is_written_with_the_labels_of_its_trunk(tmp_path):
    trunk, judged = pair([1, -1], ["a", "b"])
    branch, _ = pair([None, 1], ["a", "c"], meta={"parent": trunk.id, "branch_step": 1})
    alternative = Annotation.of(branch, RATER, [None, 1])
    export_data([(trunk, judged), (branch, alternative)], "trl", tmp_path / "x.jsonl")
    rows = [row.value for row in rows_of_file(tmp_path / "x.jsonl")]
    assert [row["labels"] for row in rows] == [[True, False], [True, True]]


def test_a_trunk_may_be_named_by_its_id_in_the_source_but_only_the_same_text_is_labelled(tmp_path):
    trunk = pair([1, -1], ["a", "b"], meta={"row_id": "row-7"})
    about = {"parent": "row-7", "branch_step": 1}
    same = pair([None, 1], ["a", "c"], meta=about)
    other = pair([None, 1], ["x", "c"], meta=about)
    options = {"missing_policy": "drop"}
    report = export_data([trunk, same, other], "trl", tmp_path / "x.jsonl", options=options)
    assert report["left_out"] == {"a step has no label": 1}
    assert [row.value["labels"] for row in rows_of_file(tmp_path / "x.jsonl")] == [[True, False], [True, True]]


def test_a_tree_is_one_row_also_where_the_trunk_is_named_by_its_id_in_the_source(tmp_path):
    trunk = pair([1, -1], ["a", "b"], meta={"row_id": "row-7"})
    branch = pair([None, 0], ["a", "c"], meta={"row_id": "row-8", "parent": "row-7", "branch_step": 1})
    assert export_data([trunk, branch], "prm800k", tmp_path / "x.jsonl")["rows_written"] == 1
    first, second = read_back(tmp_path / "x.jsonl", "prm800k", {})
    assert (first.solution.steps, second.solution.steps) == (("a", "b"), ("a", "c"))
    assert second.solution.meta["parent"] == first.solution.id
    with pytest.raises(InputError, match="the trunk of these branches is not exported"):
        export_data([branch, pair([None, 1], ["a", "d"], meta=branch[0].meta)], "prm800k", tmp_path / "y.jsonl")


def test_the_trunk_of_another_rater_labels_no_branch(tmp_path):
    trunk, _ = pair([1, -1], ["a", "b"])
    other = Annotation.of(trunk, Rater("judge", "j"), [1, -1])
    branch, _ = pair([None, 1], ["a", "c"], meta={"parent": trunk.id, "branch_step": 1})
    alternative = Annotation.of(branch, RATER, [None, 1])
    pairs = [(trunk, other), (branch, alternative)]
    report = export_data(pairs, "trl", tmp_path / "x.jsonl", options={"missing_policy": "drop"})
    assert report["left_out"] == {"a step has no label": 1}


def test_what_a_format_cannot_hold_is_listed(tmp_path):
    solution = Solution("p", "a --- b", ((0, 1), (6, 7)), generator="g", licence="MIT", meta={"k": 1})
    annotation = Annotation.of(solution, RATER, [1, 1], time="2026-01-01T00:00:00+00:00", comment="c")
    report = export_data([(solution, annotation)], "trl", tmp_path / "x.jsonl")
    assert set(report["not_held"]) == {
        "generator", "licence", "meta.k", "rater", "time", "comment", "text between the steps",
    }  # fmt: skip
    assert export_data([(solution, annotation)], "prm-kit", tmp_path / "y.jsonl")["not_held"] == {}


def test_a_refused_solution_stops_the_export_and_leaves_no_file(tmp_path):
    good, bad = pair([1]), pair([1], ["руки"])
    with pytest.raises(InputError, match=f"1 of 2 solutions refused.*\n.*{bad[0].id}: step 0 contains the step mark"):
        export_data([good, bad], "math-shepherd", tmp_path / "x.jsonl", options={"step_numbers": "outside"})
    assert list(tmp_path.iterdir()) == []


def test_the_same_rows_give_the_same_bytes_and_gz_and_arrays_hold_the_same(tmp_path):
    pairs = [pair([1, -1]), pair([1], problem="q")]
    for name in ("a.jsonl.gz", "b.jsonl.gz", "c.jsonl", "d.json"):
        export_data(pairs, "trl", tmp_path / name)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    text = (tmp_path / "c.jsonl").read_text()
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).decode() == text
    assert json.loads((tmp_path / "d.json").read_text()) == [json.loads(line) for line in text.splitlines()]


def test_a_chat_takes_no_policy_and_no_labels(tmp_path):
    report = export_data([pair([1, 0])], "chat", tmp_path / "x.jsonl")
    assert report["labels_after"] == {}
    assert {"annotation", "steps"} <= set(report["not_held"])
    with pytest.raises(UsageError, match="nothing to fold"):
        export_data([pair([1])], "chat", tmp_path / "x.jsonl", options={"neutral_policy": "positive"})


def test_a_solution_without_steps_is_left_out_of_a_format_with_steps(tmp_path):
    report = export_data([(Solution("p", "c", ()), None)], "trl", tmp_path / "x.jsonl")
    assert report["left_out"] == {"no steps: split the solutions first": 1}
