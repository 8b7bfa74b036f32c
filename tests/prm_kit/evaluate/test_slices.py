import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.evaluate.bootstrap import Bootstrap
from prm_kit.evaluate.final_answer import final_answer_table
from prm_kit.evaluate.rows import judged_steps, probabilities_of
from prm_kit.evaluate.slices import (
    POSITIONS,
    STEP_COUNTS,
    lowest_step,
    slice_names,
    slice_numbers,
    slice_table,
    value_histogram,
)
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.score import StepScores


def labelled(values, problem, **fields):
    solution = Solution.from_steps(problem, [f"{problem} step {i}" for i in range(len(values))], **fields)
    return Labelled(solution, Annotation.of(solution, Rater("human", "a"), values))


def says(*values):
    return StepScores(tuple(None if v is None else ((1 - v) / 2, 0.0, (1 + v) / 2) for v in values))


@given(st.integers(0, 40))
def test_every_index_is_in_the_slice_that_names_it(index):
    for starts in (POSITIONS, STEP_COUNTS):
        if index < starts[0]:
            continue
        name = slice_names(starts)[slice_numbers(np.array([index]), starts)[0]]
        low, _, high = name.rstrip("+").partition("-")
        assert int(low) <= index
        assert name.endswith("+") or index <= int(high or low)


def test_mean_values_by_position_and_label_by_hand():
    items = [labelled([1, -1], "a"), labelled([1, 1], "b"), labelled([-1], "c")]
    rows = judged_steps(items)
    p = probabilities_of(rows, [says(0.8, -0.4), says(0.4, 0.2), says(-0.6)])
    first, second = slice_table(rows, p, rows.step, POSITIONS, Bootstrap(3, 30))
    assert (first["slice"], first["n"], first["n_wrong"]) == ("0", 3, 1)
    assert first["mean_value"]["1"]["value"] == pytest.approx(0.6)
    assert first["mean_value"]["-1"]["value"] == pytest.approx(-0.6)
    assert first["mean_value"]["0"]["value"] is None
    assert first["auroc_wrong"]["value"] == first["accuracy"]["value"] == 1.0
    assert second["mean_value"]["-1"]["n"] == 1
    by_count = slice_table(rows, p, rows.n_steps, STEP_COUNTS, Bootstrap(3, 30))
    assert [(part["slice"], part["n"]) for part in by_count] == [("1-3", 5)]


def test_the_histogram_counts_each_label_apart_and_leaves_abstentions_out():
    items = [labelled([1, -1, 1], "a")]
    rows = judged_steps(items)
    found = value_histogram(rows, probabilities_of(rows, [says(1.0, -1.0, None)]))
    assert found["counts"]["1"][-1] == 1
    assert found["counts"]["-1"][0] == 1
    assert sum(map(sum, found["counts"].values())) == 2


def test_the_place_of_the_lowest_value():
    scores = [says(0.9, 0.1), says(-0.9, 0.1, 0.5), says(0.5, 0.5), says(0.1), says(None, 0.3, None)]
    table = lowest_step(scores, [2, 3, 2, 1, 3], np.arange(5), Bootstrap(5, 30))
    # ties and single steps do not count: last, first, middle
    assert table["last"]["value"] == pytest.approx(1 / 3)
    assert table["last"]["n"] == 3
    assert table["tenths"] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]


def test_the_solution_score_ranks_right_answers():
    items = [labelled([1, 1], "a", is_correct=True), labelled([1, -1], "b", is_correct=False), labelled([1], "c")]
    scores = [says(0.5, 0.5), says(0.9, -0.9), says(0.1)]
    table = final_answer_table(items, scores, Bootstrap(3, 30), np.arange(3))
    # chance of not being wrong: .75 .75 against .95 .05
    assert {how: table[how]["value"] for how in table} == {"min": 1.0, "last": 1.0, "product": 1.0, "mean": 1.0}
    assert table["min"]["n"] == 2
    one_kind = final_answer_table(items[:1], scores[:1], Bootstrap(1, 30), np.arange(1))
    assert one_kind["min"] == {"value": None, "low": None, "high": None, "n": 1}
