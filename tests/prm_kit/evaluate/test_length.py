import numpy as np
import pytest
from scipy.stats import spearmanr

from prm_kit.evaluate.bootstrap import Bootstrap
from prm_kit.evaluate.length import length_table, weighted_spearman
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.score import StepScores


def solution(i, values):
    made = Solution.from_steps(f"p{i}", [f"step {k}" for k in range(len(values))])
    return Labelled(made, Annotation.of(made, Rater("human", "a"), values))


def test_rho_is_scipys_also_with_ties_and_a_weight_is_so_many_copies():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 30).astype(float), rng.integers(0, 4, 30).astype(float)
    weights = rng.integers(0, 4, (6, 30)).astype(float)
    found = weighted_spearman(a, b, np.concatenate([np.ones((1, 30)), weights]))
    copies = [np.repeat(np.arange(30), row.astype(int)) for row in weights]
    expected = [spearmanr(a, b).statistic, *(spearmanr(a[at], b[at]).statistic for at in copies)]
    assert found == pytest.approx(expected)


def test_one_side_that_does_not_vary_has_no_correlation():
    assert np.isnan(weighted_spearman(np.ones(3), np.arange(3.0), np.ones((1, 3))))


def test_a_product_falls_with_every_step_and_a_minimum_need_not():
    # every step has p_ok 0.9: the product falls with the number of steps, min, last and mean do not vary
    items = [solution(i, [1] * (i + 1)) for i in range(4)]
    scores = [StepScores(((0.1, 0.0, 0.9),) * (i + 1)) for i in range(4)]
    found = length_table(items, scores, Bootstrap(4, 20), np.arange(4))
    assert found["product"]["steps"]["value"] == pytest.approx(-1.0)
    assert found["product"]["tokens_without_error"]["value"] == pytest.approx(-1.0)
    assert found["min"]["steps"]["value"] is None


def test_solutions_with_an_error_are_left_out_where_it_is_said():
    items = [solution(0, [1]), solution(1, [1, -1, 1]), solution(2, [1, 1])]
    scores = [
        StepScores(((x, 0.0, 1 - x),) * len(item.solution.spans))
        for x, item in zip((0.3, 0.9, 0.1), items, strict=True)
    ]
    found = length_table(items, scores, Bootstrap(3, 20), np.arange(3))["min"]
    # scores 0.7 (1 step), 0.1 (3 steps), 0.9 (2 steps): ranks 2 1 3 against 1 3 2: rho -0.5; without the second +1
    assert found["steps"]["value"] == pytest.approx(-0.5)
    assert found["steps_without_error"]["value"] == pytest.approx(1.0)
    assert (found["steps"]["n"], found["steps_without_error"]["n"]) == (3, 2)


def test_abstained_solutions_are_left_out_and_unbounded_products_are_undefined():
    items = [solution(i, [1] * (i + 1)) for i in range(3)]
    unbounded = [StepScores((None,) * (i + 1), (float(i) + 2,) * (i + 1)) for i in range(3)]
    found = length_table(items, unbounded, Bootstrap(3, 20), np.arange(3))
    assert found["product"]["steps"]["value"] is None
    assert found["mean"]["steps"]["value"] == pytest.approx(1.0)
    silent = [StepScores((None,) * (i + 1)) for i in range(3)]
    assert length_table(items, silent, Bootstrap(3, 20), np.arange(3))["min"]["steps"]["n"] == 0
