import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.aggregate import AGGREGATIONS, aggregate, solution_score, step_numbers
from prm_kit.errors import InputError, UsageError
from prm_kit.score import StepScores

SCORES = StepScores(((0.1, 0.1, 0.8), None, (0.5, 0.2, 0.3)))


def test_a_step_becomes_its_value_or_its_chance_of_not_being_wrong():
    value = step_numbers(SCORES, "value")
    assert value[1] is None
    assert [value[0], value[2]] == pytest.approx([0.7, -0.2])
    ok = step_numbers(SCORES, "p_ok")
    assert ok[1] is None
    assert [ok[0], ok[2]] == pytest.approx([0.9, 0.5])


def test_the_four_aggregations_by_hand():
    numbers = [0.9, 0.5, 0.8]
    # min .5; last .8; .9 * .5 * .8 = .36; (.9 + .5 + .8) / 3 = .7333
    found = {how: aggregate(numbers, how) for how in AGGREGATIONS}
    assert found == pytest.approx({"min": 0.5, "last": 0.8, "product": 0.36, "mean": 2.2 / 3})


def test_an_abstained_step_is_skipped_or_makes_the_score_none_as_asked():
    assert aggregate([0.9, None, 0.8, None], "last") == 0.8
    assert aggregate([0.9, None], "min", abstained="none") is None
    assert aggregate([None, None], "mean") is None
    assert aggregate([], "product") is None


def test_a_solution_scores_the_chance_that_its_worst_step_is_not_wrong():
    assert solution_score(SCORES) == pytest.approx(0.5)


@given(st.lists(st.floats(0, 1), min_size=1), st.randoms())
def test_all_but_last_ignore_the_order_of_steps(numbers, random):
    shuffled = numbers[:]
    random.shuffle(shuffled)
    for how in ("min", "product", "mean"):
        assert aggregate(shuffled, how) == pytest.approx(aggregate(numbers, how))
    assert math.isclose(aggregate(numbers, "last"), numbers[-1])


def test_a_product_of_values_below_zero_is_refused():
    with pytest.raises(InputError, match="step 1: a product needs numbers in"):
        aggregate([0.5, -0.5], "product")


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'product'"):
        aggregate([0.5], "produkt")
    with pytest.raises(UsageError, match="unknown step number"):
        step_numbers(SCORES, "p_good")
