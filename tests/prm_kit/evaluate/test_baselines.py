import pytest

from prm_kit.errors import InputError
from prm_kit.evaluate.baselines import (
    ALL_CORRECT,
    GuesserScorer,
    LengthScorer,
    RandomScorer,
    class_prior,
    trivial_scorers,
)
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.score import check_scores


def labelled(values, problem="p", long=(), **fields):
    steps = [f"{problem} step {i} " + "x" * (80 if i in long else 1) for i in range(len(values))]
    solution = Solution.from_steps(problem, steps, **fields)
    return Labelled(solution, Annotation.of(solution, Rater("human", "a"), values))


TRAIN = [
    labelled([1, -1], f"p{i}", long=(1,), is_correct=False) for i in range(8)
] + [labelled([1, 1, 0], f"q{i}", is_correct=True) for i in range(8)]  # fmt: skip


def test_the_class_prior_is_the_share_of_each_label_among_judged_steps():
    # 8 times (+1, -1) and 8 times (+1, +1, 0): 8 of 40 are -1, 8 are 0, 24 are +1
    assert class_prior(TRAIN).probabilities == pytest.approx((0.2, 0.2, 0.6))


def test_lengths_alone_find_the_wrong_steps_that_are_long():
    scorer = LengthScorer.fit(TRAIN)
    (short, long), (other, _) = (
        score.values for score in scorer.score([TRAIN[0].solution, labelled([1, 1], "new").solution])
    )
    assert long < 0 < short
    assert other > 0


def test_the_guesser_names_the_commonest_index_where_the_answer_is_wrong():
    evaluated = [
        *[labelled([1, -1, None], f"a{i}", is_correct=False) for i in range(3)],
        labelled([-1, None], "b", is_correct=False),
        labelled([1, 1, 1], "c", is_correct=True),
        labelled([-1], "d", is_correct=None),
    ]
    guesser = GuesserScorer.fit(evaluated)
    assert guesser.index == 1
    values = [score.values for score in guesser.score([item.solution for item in evaluated])]
    assert values[0] == (1.0, -1.0, 1.0)
    assert values[4] == (1.0, 1.0, 1.0)
    assert values[5] == (None,)  # nobody says whether the answer is right
    assert guesser.score([labelled([-1], "e", is_correct=False).solution])[0].values == (-1.0,)  # only one step there


def test_random_scores_do_not_depend_on_the_company():
    solutions = [item.solution for item in TRAIN]
    scorer = RandomScorer(seed=2)
    assert scorer.score(solutions)[3] == scorer.score([solutions[3]])[0]
    assert scorer.score(solutions) != RandomScorer(seed=3).score(solutions)


def test_every_trivial_scorer_answers_every_step_with_a_distribution():
    scorers, missing = trivial_scorers(TRAIN, TRAIN)
    solutions = [item.solution for item in TRAIN]
    for scorer in scorers:
        check_scores(solutions, scorer.score(solutions))
    assert len({scorer.name for scorer in scorers}) == 5
    assert missing == []
    assert scorers[0].score(solutions)[0].probabilities == (ALL_CORRECT,) * 2


def test_what_the_data_do_not_allow_is_named_instead_of_left_out_silently():
    only_right = [labelled([1, 1])]
    scorers, missing = trivial_scorers(only_right, only_right)
    assert [scorer.name for scorer in scorers] == ["all correct", "random", "class prior"]
    assert len(missing) == 2
    assert "at least two classes" in missing[0]


def test_baselines_refuse_data_that_they_cannot_be_fitted_on():
    with pytest.raises(InputError, match="two classes"):
        LengthScorer.fit([labelled([1, 1])])
    with pytest.raises(InputError, match="final answer is right"):
        GuesserScorer.fit([labelled([-1])])
    with pytest.raises(InputError, match="labelled -1"):
        GuesserScorer.fit([labelled([1], is_correct=True)])
    with pytest.raises(InputError, match="judged training steps"):
        class_prior([labelled([None])])
