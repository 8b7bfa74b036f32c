import random

import pytest

from prm_kit.errors import InputError
from prm_kit.evaluate.best_of_n import Candidate, best_of_n


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
