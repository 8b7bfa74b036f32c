import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.errors import UsageError
from prm_kit.evaluate.bootstrap import Bootstrap, problem_numbers, ratio, sums_by_problem


def means(drawn):
    return ratio(drawn[:, 1], drawn[:, 0])


def test_the_same_seed_draws_the_same_problems_and_another_seed_others():
    def draws(seed):
        return np.concatenate(list(Bootstrap(7, 20, seed).draws()))

    assert (draws(3) == draws(3)).all()
    assert (draws(3) != draws(4)).any()
    assert (draws(3).sum(axis=1) == 7).all()


def test_solutions_of_one_problem_are_drawn_together():
    # Two problems with values 0 and 1, a hundred copies each: a resample has mean 0, 0.5 or 1 and nothing between.
    problem = np.repeat([0, 1], 100)
    value = problem.astype(float)
    bootstrap = Bootstrap(2, 200, seed=1)
    replicates = bootstrap.of_sums(sums_by_problem(problem, np.stack([np.ones(200), value], axis=1), 2), means)
    assert set(np.round(replicates, 9)) == {0.0, 0.5, 1.0}
    measure = bootstrap.measure(0.5, replicates, 200)
    assert measure == {"value": 0.5, "low": 0.0, "high": 1.0, "n": 200}


def test_sums_and_weights_of_items_give_the_same_replicates():
    rng = np.random.default_rng(0)
    problem, value = rng.integers(0, 9, 40), rng.normal(size=40)
    bootstrap = Bootstrap(9, 50)
    by_sums = bootstrap.of_sums(sums_by_problem(problem, np.stack([np.ones(40), value], axis=1), 9), means)
    by_items = bootstrap.of_items(problem, lambda w: (w * value).sum(axis=1) / w.sum(axis=1))
    assert by_items == pytest.approx(by_sums)


def test_the_interval_of_a_mean_agrees_with_theory():
    # 400 problems of one value each, standard deviation 1: a 95 % interval is about 1.96 / 20 to both sides.
    rng = np.random.default_rng(5)
    value = rng.normal(size=400)
    value = (value - value.mean()) / value.std()
    bootstrap = Bootstrap(400, 2000)
    sums = sums_by_problem(np.arange(400), np.stack([np.ones(400), value], axis=1), 400)
    measure = bootstrap.measure(0.0, bootstrap.of_sums(sums, means), 400)
    assert measure["low"] == pytest.approx(-0.098, abs=0.012)
    assert measure["high"] == pytest.approx(0.098, abs=0.012)


def test_a_statistic_that_resamples_often_leave_undefined_has_no_interval():
    bootstrap = Bootstrap(3, 10)
    replicates = np.array([1.0] * 8 + [np.nan] * 2)
    assert bootstrap.measure(1.0, replicates, 3) == {"value": 1.0, "low": None, "high": None, "n": 3}
    assert bootstrap.measure(float("nan"), np.ones(10), 3)["value"] is None


@given(st.lists(st.sampled_from("abc")))
def test_equal_texts_are_one_problem(problems):
    numbers = problem_numbers(problems)
    for i, a in enumerate(problems):
        for j, b in enumerate(problems):
            assert (numbers[i] == numbers[j]) == (a == b)


def test_a_bootstrap_without_resamples_is_refused():
    with pytest.raises(UsageError, match="at least 2 resamples"):
        Bootstrap(3, 1)
