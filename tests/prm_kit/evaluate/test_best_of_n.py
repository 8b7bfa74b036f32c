import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.errors import InputError
from prm_kit.evaluate.best_of_n import Candidate, best_of_n, curves


def candidates(problem, *rows):
    return [Candidate(problem, answer, right, {"s": score}) for answer, right, score in rows]


# p: answers 1 1 2 2 with 1 right: votes tie, so majority counts 1/2; the best score is on a wrong one
# q: answers 5 none 5 7 with 5 right: majority 1; the two best scores tie, one of them right: 1/2
TWO = [
    *candidates("p", ("1", True, 0.1), ("1", True, 0.2), ("2", False, 0.9), ("2", False, 0.3)),
    *candidates("q", ("5", True, 0.8), (None, False, 0.8), ("5", True, 0.1), ("7", False, 0.0)),
]


def test_figures_worked_by_hand():
    found = {name: figure["value"] for name, figure in best_of_n(TWO).items()}
    assert found == {"pass@1": 0.5, "majority": 0.75, "best of 4 by s": 0.25, "pass@4": 1.0}


def test_figures_count_problems_and_lie_in_their_intervals():
    for figure in best_of_n(TWO).values():
        assert figure["n"] == 2
        assert figure["low"] <= figure["value"] <= figure["high"]


def test_the_order_of_the_candidates_changes_nothing():
    # problems stay in order of first appearance: the resamples are drawn by their number
    shuffled = random.Random(0).sample(TWO[1:4], 3) + random.Random(1).sample(TWO[4:], 4)
    assert best_of_n([TWO[0], *shuffled]) == best_of_n(TWO)


def test_nothing_stated_has_no_majority():
    assert best_of_n(candidates("p", (None, False, 0.1), (None, False, 0.2)))["majority"]["value"] == 0.0


def test_uneven_groups_and_uneven_scores_are_refused():
    with pytest.raises(InputError, match=r"different numbers of candidates: \[3, 4\]"):
        best_of_n(TWO[1:])
    with pytest.raises(InputError, match="none at all"):
        best_of_n([])
    with pytest.raises(InputError, match="scored in different ways"):
        best_of_n([TWO[0], Candidate("p", "1", True, {"other": 1.0})])


# three candidates of one problem: right and scored 0.9; wrong and 0.5; wrong and 0.5. Over the three pairs:
# best: {0.9, 0.5} twice, right; {0.5, 0.5} wrong: 2/3. pass@2: 2/3 too. random: 1/3.
# majority over pairs of the answers 1, 2, 2: {1, 2} ties twice: 1/2 each; {2, 2}: 0. So 1/3.
# votes weighed by the score: {1: 0.9, 2: 0.5} twice, right; {2: 1.0}: wrong. 2/3. All three: 0.9 against 1.0: 0.
THREE = candidates("p", ("1", True, 0.9), ("2", False, 0.5), ("2", False, 0.5))


def test_curves_worked_by_hand():
    found = curves(THREE, resamples=10)
    values = {name: [round(figure["value"], 12) for figure in line] for name, line in found["curves"].items()}
    third = round(1 / 3, 12)
    assert (found["sizes"], found["problems"], found["sampled"]) == ([1, 2, 3], [1, 1, 1], False)
    assert values == {
        "random": [third] * 3,
        "majority": [third, third, 0.0],
        "oracle": [third, round(2 / 3, 12), 1.0],
        "best by s": [third, round(2 / 3, 12), 1.0],
        "vote by s": [third, round(2 / 3, 12), 0.0],
    }


@given(
    st.lists(
        st.tuples(st.sampled_from([None, "1", "2", "3"]), st.sampled_from([0.0, 0.25, 0.5])), min_size=1, max_size=6
    ),
    st.integers(1, 6),
)
def test_every_figure_is_the_mean_over_all_subsets_of_picking_with_split_ties(said, size):
    size = min(size, len(said))
    group = candidates("p", *((answer, answer == "1", score) for answer, score in said))
    found = curves(group, sizes=(size,), resamples=2)["curves"]
    subsets = list(itertools.combinations(group, size))
    for name, slow in (("best by s", slow_best), ("majority", slow_vote), ("vote by s", slow_weighed)):
        assert found[name][0]["value"] == pytest.approx(sum(map(slow, subsets)) / len(subsets))
    assert found["oracle"][0]["value"] == pytest.approx(
        sum(any(one.is_correct for one in subset) for subset in subsets) / len(subsets)
    )


def slow_best(subset):
    top = max(one.scores["s"] for one in subset)
    picked = [one.is_correct for one in subset if one.scores["s"] == top]
    return sum(picked) / len(picked)


def slow_vote(subset, weight=lambda one: 1.0):
    votes = {}
    for one in subset:
        if one.final_answer is not None:
            votes[one.final_answer] = votes.get(one.final_answer, 0.0) + weight(one)
    top = [answer for answer, sum_ in votes.items() if sum_ == max(votes.values())]
    return sum(answer == "1" for answer in top) / len(top) if top else 0.0


def slow_weighed(subset):
    return slow_vote(subset, lambda one: one.scores["s"])


def test_drawn_subsets_are_said_and_come_close_to_all_of_them():
    rng = random.Random(0)
    group = candidates("p", *((str(rng.randrange(3)), False, rng.random()) for _ in range(16)))
    group = [Candidate("p", one.final_answer, one.final_answer == "1", one.scores) for one in group]
    found = curves(group, sizes=(6,), resamples=2)
    exact = [slow_weighed(subset) for subset in itertools.combinations(group, 6)]
    assert found["sampled"] is True
    assert found["curves"]["vote by s"][0]["value"] == pytest.approx(sum(exact) / len(exact), abs=0.04)


def test_a_problem_counts_at_the_sizes_that_it_has_candidates_for():
    found = curves([*THREE, *candidates("q", ("1", True, 0.1))], resamples=10)
    assert found["problems"] == [2, 1, 1]
    assert found["curves"]["random"][0]["value"] == pytest.approx((1 / 3 + 1) / 2)


@pytest.mark.parametrize("scale", [1.0, 1e-13, 1e-200])
def test_votes_weigh_the_same_however_small_the_products_are(scale):
    group = candidates("p", ("1", True, 3 * scale), ("2", False, scale), ("2", False, scale))
    assert curves(group, sizes=(3,), resamples=2)["curves"]["vote by s"][0]["value"] == 1.0


def test_an_unscored_candidate_is_picked_last_and_has_no_weighed_vote():
    group = [Candidate("p", "1", True, {"s": None}), Candidate("p", "2", False, {"s": -5.0})]
    assert curves(group, voted=(), resamples=2)["curves"]["best by s"][1]["value"] == 0.0
    with pytest.raises(InputError, match="a vote cannot be weighed by 's' = None"):
        curves(group, resamples=2)
    with pytest.raises(InputError, match=r"'s' = -5\.0: weights are numbers from 0 up"):
        curves(group[1:], resamples=2)
