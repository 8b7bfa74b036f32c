import pytest

from prm_kit.errors import InputError
from prm_kit.evaluate.raters import RaterScorer
from prm_kit.records import Annotation, Rater, Solution, StepLabel, step_hash


def test_labels_become_certain_scores_shares_stay_and_the_rest_abstains():
    solution = Solution.from_steps("p", ["a", "b", "c", "d"])
    labels = (
        StepLabel(0, 1, step_hash("a")),
        StepLabel(1, -1, step_hash("b"), shares=(0.75, 0.0, 0.25)),
        StepLabel(2, None, step_hash("c")),
    )
    scorer = RaterScorer.of("rule", [Annotation(solution.id, Rater("rule", "r"), labels)])
    assert scorer.score([solution])[0].probabilities == ((0.0, 0.0, 1.0), (0.75, 0.0, 0.25), None, None)
    assert scorer.score([Solution.from_steps("q", ["a"])])[0].probabilities == (None,)


def test_a_rater_that_said_nothing_is_refused():
    with pytest.raises(InputError, match="rater:rule/x: no annotation"):
        RaterScorer.of("rater:rule/x", [])
