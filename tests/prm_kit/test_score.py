import pytest

from prm_kit.aggregate import solution_score, step_numbers
from prm_kit.errors import InputError, UsageError
from prm_kit.records import Solution
from prm_kit.score import StepScores, check_scores

SOLUTION = Solution.from_steps("1 + 1", ["1 + 1 = 2", "so 2"])


def test_a_value_is_the_probability_of_right_minus_that_of_wrong():
    # 0.7 - 0.1, and an abstention
    scores = StepScores(((0.1, 0.2, 0.7), None))
    assert scores.is_bounded
    assert scores.values == pytest.approx((0.6, None))


def test_unbounded_values_are_what_the_scorer_says_and_have_no_probability():
    scores = StepScores((None, None), (3.5, -12.0))
    check_scores([SOLUTION], [scores])
    assert not scores.is_bounded
    assert scores.values == (3.5, -12.0)
    assert step_numbers(scores) == (3.5, -12.0)
    assert solution_score(scores) == -12.0
    with pytest.raises(UsageError, match="unbounded scores are no probabilities"):
        step_numbers(scores, "p_ok")
    with pytest.raises(InputError, match="a product needs numbers in"):
        solution_score(scores, "product")


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (StepScores((None, None), (1.0,)), "1 unbounded scores for 2 steps"),
        (StepScores((None, (0.0, 0.0, 1.0)), (1.0, 2.0)), "both probabilities and unbounded scores"),
        (StepScores((None, None), (1.0, float("nan"))), "step 1: the score is not a number"),
        (StepScores(((0.5, 0.5, 0.5), None)), "step 0: .* is not a probability distribution"),
        (StepScores((None,)), "1 scores for 2 steps"),
    ],
)
def test_scores_that_cannot_be_right_are_refused_by_solution(scores, reason):
    with pytest.raises(InputError, match=f"solution {SOLUTION.id}.*{reason}"):
        check_scores([SOLUTION], [scores])
