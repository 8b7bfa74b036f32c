import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.prm import PrmLabeler
from prm_kit.errors import InputError, UsageError
from prm_kit.records import Rater, Solution
from prm_kit.score import StepScores

RATER = Rater("prm", "scripted", "1")


class Says:
    """A scorer that says what it is told."""

    name = "scripted"

    def __init__(self, *probabilities):
        self.probabilities = probabilities

    def score(self, solutions):
        return [StepScores(self.probabilities) for _ in solutions]


def label(*probabilities, steps=None, **options):
    solution = Solution.from_steps("?", [f"step {i}" for i in range(steps or len(probabilities))])
    (found,) = PrmLabeler(Says(*probabilities), RATER, **options).label([solution])
    return found


def test_a_step_gets_the_likeliest_class_and_the_probabilities_are_its_shares():
    found = label((0.7, 0.2, 0.1), (0.1, 0.6, 0.3), (0.0, 0.1, 0.9))
    assert found.values(3) == (-1, 0, 1)
    assert found.labels[1].shares == (0.1, 0.6, 0.3)
    assert found.meta == {"steps": 3}


def test_it_abstains_below_the_confidence_and_leaves_no_share_to_train_on():
    found = label((0.7, 0.2, 0.1), (0.1, 0.1, 0.8), min_confidence=0.75)
    assert found.values(2) == (None, 1)
    assert found.labels[0].shares is None
    assert found.labels[0].comment == "abstains: -1 at 0.70"


def test_what_the_scorer_abstains_from_gets_no_label():
    assert [one.step for one in label(None, (0.0, 0.0, 1.0)).labels] == [1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=3, max_size=3), st.floats(0, 1), st.floats(0, 1))
def test_more_confidence_never_labels_more_and_never_otherwise(weights, low, high):
    shares = tuple(w / sum(weights) for w in weights)
    less, more = (label(shares, min_confidence=at).values(1)[0] for at in sorted((low, high)))
    assert more in (less, None)


def test_a_confidence_that_is_no_probability_and_scores_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="min_confidence"):
        label((0.0, 0.0, 1.0), min_confidence=80)
    with pytest.raises(InputError, match="1 scores for 2 steps"):
        label((0.0, 0.0, 1.0), steps=2)


def test_scores_without_bounds_make_no_labels(monkeypatch):
    monkeypatch.setattr(Says, "score", lambda *_: [StepScores((None,), (3.0,))])
    with pytest.raises(UsageError, match="scripted: its scores are without bounds, so no label follows from them"):
        label(None)
