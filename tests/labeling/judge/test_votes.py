from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.judge.votes import Outcome, critic_outcomes, tally


def test_the_commonest_label_wins_and_the_shares_are_kept():
    # step 0: three +1, one -1; step 1: two 0, one +1, one unreadable; step 2: judged by nobody
    votes = [{0: 1, 1: 0}, {0: 1, 1: 0}, {0: 1, 1: 1}, {0: -1}]
    assert tally(votes, 3) == [
        Outcome(1, (0.25, 0.0, 0.75), 4, False),
        Outcome(0, (0.0, 2 / 3, 1 / 3), 3, False),
        None,
    ]


def test_a_tie_is_no_label_and_says_so():
    assert tally([{0: 1}, {0: -1}], 1) == [Outcome(None, (0.5, 0.0, 0.5), 2, True)]


def test_unsure_is_a_vote_against_every_label_but_has_no_share():
    assert tally([{0: None}, {0: None}, {0: 1}], 1) == [Outcome(None, (0.0, 0.0, 1.0), 1, False)]
    assert tally([{0: None}], 1) == [Outcome(None, None, 0, False)]


@given(st.lists(st.dictionaries(st.integers(0, 3), st.sampled_from([-1, 0, 1, None])), max_size=9))
def test_tally_agrees_with_counting_by_hand(votes):
    for step, outcome in enumerate(tally(votes, 4)):
        said = [vote[step] for vote in votes if step in vote]
        if not said:
            assert outcome is None
            continue
        best = [value for value, n in Counter(said).items() if n == max(Counter(said).values())]
        assert outcome.value == (best[0] if len(best) == 1 else None)
        assert outcome.tied == (len(best) > 1)
        valued = [value for value in said if value is not None]
        assert outcome.votes == len(valued)
        if valued:
            assert outcome.shares == pytest.approx([float(Fraction(valued.count(v), len(valued))) for v in (-1, 0, 1)])


def test_the_critics_commonest_index_splits_the_solution():
    # of four critics two say 2, one says 0, one says that nothing is wrong
    outcomes, winner = critic_outcomes([2, 0, None, 2], 4)
    assert winner == 2
    assert outcomes == [
        Outcome(1, (0.25, 0.0, 0.75), 4, False),
        Outcome(1, (0.0, 0.0, 1.0), 3, False),
        Outcome(-1, (2 / 3, 0.0, 1 / 3), 3, False),
        None,
    ]


def test_no_error_labels_every_step_good():
    outcomes, winner = critic_outcomes([None], 2)
    assert winner is None
    assert outcomes == [Outcome(1, (0.0, 0.0, 1.0), 1, False)] * 2


def test_of_critics_that_tie_the_first_counts_and_the_tie_is_told():
    outcomes, winner = critic_outcomes([1, None], 2)
    assert winner == 1
    assert [outcome.value for outcome in outcomes] == [1, -1]
    assert all(outcome.tied for outcome in outcomes)
