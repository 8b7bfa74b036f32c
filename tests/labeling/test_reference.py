from dataclasses import replace

import pytest

from labeling.consensus import MergeSettings, majority
from labeling.label_table import label_table
from labeling.reference import against, drift, merged_reference, reference_of
from labeling.simulated import SimulatedAnnotator
from prm_kit.evaluate.bootstrap import Bootstrap
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, Solution
from prm_kit.view import View


def numbers(table):
    return dict(table.raters.select("label", "rater").iter_rows())


def test_a_rater_against_gold_by_hand(table_of):
    # Truth -1, 1, 1, 0; said -1, -1, 1, 1. The fifth step has no gold, the sixth no answer.
    table = table_of({"ann": [[-1, -1, 1], [1, 1, None]], "gold": [[-1, 1, 1], [0, None, 1]]})
    number = numbers(table)
    found = against(table, reference_of(table, [number["human gold"]]), Bootstrap(table.n_problems, 50))
    ann = found[number["human ann"]]
    assert ann["confusion"] == [[1, 0, 0], [0, 0, 1], [1, 0, 1]]
    assert (ann["steps"], ann["percent"]["value"]) == (4, 0.5)
    assert {v: m["value"] for v, m in ann["precision"].items()} == {"-1": 0.5, "0": None, "1": 0.5}
    assert {v: m["value"] for v, m in ann["recall"].items()} == {"-1": 1.0, "0": 0.0, "1": 0.5}
    assert ann["lean"]["value"] == (0 - 2 + 0 + 1) / 4
    # The first solution's first error is the same; the second's is open on both sides.
    assert (ann["first_error"]["solutions"], ann["first_error"]["agreement"]["value"]) == (1, 1.0)
    assert number["human gold"] not in found


def test_agreeing_with_oneself_does_not_count(table_of):
    # Step 0 has ann's and ben's vote; step 1 is ann's alone.
    table = table_of({"ann": [[1, -1]], "ben": [[1, None]]})
    number = numbers(table)
    reference = merged_reference(table, majority(table, MergeSettings()))
    found = against(table, reference, Bootstrap(table.n_problems, 20))
    assert found[number["human ann"]]["steps"] == found[number["human ben"]]["steps"] == 1
    # The merged first error, step 1, was found with both raters' help up to there.
    assert found[number["human ann"]]["first_error"]["solutions"] == 1


def test_a_merged_first_error_behind_a_tie_is_open(table_of):
    # Step 0 of the first solution is a tie, so nobody knows whether the error at step 1 is the first.
    table = table_of({"ann": [[1, -1], [1, -1], [1, 1]], "ben": [[-1, -1], [1, -1], [1, 1]]})
    reference = merged_reference(table, majority(table, MergeSettings()))
    assert dict(reference.first_errors.select("solution", "truth").iter_rows()) == {1: 1, 2: -1}


def test_merged_labels_of_the_ledger_know_where_they_came_from(ledger_of):
    ledger = ledger_of({"ann": [[1, 1]], "ben": [[1, None]]})
    own = {a.rater.name: a for a in ledger.current()}
    merged = Annotation(
        own["ann"].solution_id,
        Rater("merged", "priority"),
        tuple(replace(label, sources=(own["ann"].id,)) for label in own["ann"].labels),
    )
    ledger.append([merged])
    table = label_table(View(ledger=ledger))
    number = numbers(table)
    reference = reference_of(table, [number["merged priority"]])
    found = against(table.of(["human"]), reference, Bootstrap(1, 20))
    assert set(found) == {number["human ben"]}


def test_gold_of_another_store_is_matched_by_solution(table_of, ledger_of):
    gold = label_table(View(ledger=ledger_of({"expert": [None, [1, -1]]}, name="gold.sqlite")))
    table = table_of({"ann": [[1, 1], [1, -1]]})
    found = against(table, reference_of(table, gold.raters["rater"].to_list(), gold), Bootstrap(2, 20))
    assert found[0]["confusion"] == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


@pytest.fixture
def worsening(tmp_path):
    """Ann is exact in the morning and careless after; ben is exact throughout; both have gold on everything."""
    solutions = [Solution.from_steps(f"p{i}", ["a", "b", "c"]) for i in range(80)]
    truth = {s.id: Annotation.of(s, Rater("human", "gold"), [1, 0, -1]) for s in solutions}
    ledger = Ledger(tmp_path / "drift.sqlite")
    for name, late in (("ann", "careless"), ("ben", "exact")):
        for i, solution in enumerate(solutions):
            [said] = SimulatedAnnotator(name, truth, "exact" if i < 40 else late).label([solution])
            ledger.append([replace(said, time=f"2026-01-01T{i // 8:02}:{i % 8}0:00Z")], [solution])
    ledger.append(list(truth.values()))
    return label_table(View(ledger=ledger))


def test_a_rater_who_gets_worse_is_seen_over_time(worsening):
    number = numbers(worsening)
    reference = reference_of(worsening, [number["human gold"]])
    found = drift(worsening, reference, Bootstrap(worsening.n_problems, 200))
    ann, ben = found[number["simulated ann"]], found[number["simulated ben"]]
    # 80 annotations make four windows of twenty.
    assert [window["annotations"] for window in ann["windows"]] == [20, 20, 20, 20]
    assert [window["agreement"]["value"] for window in ann["windows"][:2]] == [1.0, 1.0]
    assert max(window["agreement"]["value"] for window in ann["windows"][2:]) < 0.9
    assert ann["change"]["high"] < 0
    assert (ben["change"]["value"], ben["change"]["low"]) == (0.0, 0.0)
    assert ann["windows"][0]["first"] == "2026-01-01T00:00:00Z"
    assert ann["windows"][0]["values"] == {"-1": 20, "0": 20, "1": 20}


def test_raters_without_times_or_with_few_annotations_have_no_windows(table_of):
    table = table_of({"ann": [[1]] * 50, "gold": [[1]] * 50})
    assert drift(table, reference_of(table, [1]), Bootstrap(50, 20)) == {}
    table = table_of({"ben": [[1]] * 39}, name="few.sqlite", time="2026-01-01T00:00:00Z")
    assert drift(table, reference_of(table, [0]), Bootstrap(39, 20)) == {}
