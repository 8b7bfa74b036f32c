import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_kit.errors import UsageError
from rl.pairs import (
    PAIR_BUILDERS,
    Candidates,
    common_prefix,
    edit_distance,
    near_miss,
    prefix_sharing,
    random_pairs,
    ranked,
    self_contrast,
    success_failure,
    variance_aware,
)


def candidates(rewards, groups=None, **fields):
    ids = fields.pop("ids", [[k] for k in range(len(rewards))])
    return Candidates(groups or [0] * len(rewards), rewards, ids, **fields)


def chosen(pairs):
    return {(pair.better, pair.worse) for pair in pairs}


FULL = {
    "group": [0, 1, 0, 1, 0, 1, 0, 1],
    "reward": [0.1, 0.9, 0.7, 0.9, 0.4, 0.2, 0.7, 0.0],
    "ids": [[1, 2, 3], [1, 2], [1, 2, 4], [1, 2, 5], [1, 2, 3, 6], [9], [1, 2, 4, 7], [1, 8]],
    "correct": [False, True, True, True, False, False, None, False],
    "steps": [["a", "b"], ["a"], ["a", "c"], ["a", "b"], ["a", "b", "d"], ["x"], ["A ", "c", "e"], ["a", "q"]],
}


def test_ranked_is_every_pair_that_differs_by_more_than_eps():
    # .9 .5 .5 .4, eps .2: the first against the others only; ties give nothing
    assert chosen(ranked(candidates([0.5, 0.9, 0.5, 0.4]), 0, eps=0.2)) == {(1, 0), (1, 2), (1, 3)}
    assert ranked(candidates([1.0, 1.0]), 0) == []


def test_weights_average_over_the_pairs_of_a_problem_and_then_over_problems():
    # group 0 has 3 pairs, group 1 has 1, group 2 has none: 1 / 6 each and 1 / 2
    pairs = ranked(candidates([1, 0, 0.5, 1, 0, 1, 1], [0, 0, 0, 1, 1, 2, 2]), 0)
    assert sorted(pair.weight for pair in pairs) == pytest.approx([1 / 6] * 3 + [1 / 2])


def test_success_failure_goes_by_correctness_and_never_against_the_reward():
    asked = candidates([0.9, 0.2, 0.5, 0.1], correct=[False, True, True, False])
    assert chosen(success_failure(asked, 0)) == {(1, 3), (2, 3)}
    with pytest.raises(UsageError, match="which completions are right"):
        success_failure(candidates([0, 1]), 0)


def test_no_completion_dominates_success_failure():
    asked = candidates([1.0] * 6 + [0.0], correct=[True] * 6 + [False])
    assert len(success_failure(asked, 0, per_completion=4)) == 4


def test_variance_aware_is_best_against_worst_where_there_is_variance():
    # the second group has variance .0025
    asked = candidates([0.1, 0.9, 0.5, 0.5, 0.6], [0, 0, 0, 1, 1])
    assert chosen(variance_aware(asked, 0)) == {(1, 0), (4, 3)}
    assert chosen(variance_aware(asked, 0, least_variance=0.01)) == {(1, 0)}


def test_self_contrast_is_the_best_against_the_next_that_differs():
    assert chosen(self_contrast(candidates([0.5, 0.9, 0.88, 0.9]), 0, eps=0.05)) == {(1, 0)}
    assert self_contrast(candidates([0.9, 0.9]), 0) == []


def test_random_pairs_are_drawn_without_replacement_and_repeat_with_the_seed():
    asked = candidates([k / 10 for k in range(6)])
    assert random_pairs(asked, 1) == random_pairs(asked, 1)
    assert random_pairs(asked, 1) != random_pairs(asked, 2)
    assert len(chosen(random_pairs(asked, 3, per_group=100))) == 15


def test_near_miss_is_one_or_two_steps_away():
    # "a b" and "A  b" are the same; "a c" is one away; "x y z w" four; "q" one from "r", with nothing in common
    asked = candidates(
        [0, 1, 2, 3, 4, 5], steps=[["a", "b"], ["A ", "b"], ["a", "c"], ["x", "y", "z", "w"], ["q"], ["r"]]
    )
    assert chosen(near_miss(asked, 0)) == {(2, 0), (2, 1)}
    with pytest.raises(UsageError, match="near_miss needs the steps"):
        near_miss(candidates([0, 1]), 0)


def test_prefix_sharing_by_hand():
    # 0 and 1 share two of three tokens, 2 shares one of two with them
    asked = candidates([1, 0, 0.5], ids=[[1, 2, 3], [1, 2, 4], [1, 9]])
    assert chosen(prefix_sharing(asked, 0)) == {(0, 1), (0, 2), (2, 1)}
    assert chosen(prefix_sharing(asked, 0, share=0.6)) == {(0, 1)}
    assert chosen(prefix_sharing(asked, 0, least=2)) == {(0, 1)}
    assert [pair.fork for pair in prefix_sharing(asked, 0, least=2)] == [2]


def test_prefix_sharing_by_steps_sees_through_whitespace():
    asked = candidates([1, 0], ids=[[1, 2], [7, 8]], steps=[["so  x", "y"], ["So x", "z"]])
    assert prefix_sharing(asked, 0) == []
    assert chosen(prefix_sharing(asked, 0, by_steps=True)) == {(0, 1)}


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=2, max_size=9), st.integers(1, 3), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_trie_finds_what_comparing_all_finds(ids, least, source):
    rewards = [source.choice([0, 0.5, 1]) for _ in ids]
    found = chosen(prefix_sharing(candidates(rewards, ids=ids), 0, least=least, share=0.4))
    expected = set()
    for i, j in itertools.permutations(range(len(ids)), 2):
        common = next((k for k, (a, b) in enumerate(zip(ids[i], ids[j], strict=False)) if a != b), None)
        common = min(len(ids[i]), len(ids[j])) if common is None else common
        if common >= max(least, 0.4 * min(len(ids[i]), len(ids[j]))) and rewards[i] > rewards[j]:
            expected.add((i, j))
    assert found == expected


@given(st.text("abc", max_size=7), st.text("abc", max_size=7), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_banded_edit_distance_equals_the_full_one(a, b, limit):
    table = [[max(i, j) if not i or not j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i, j in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
        table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (a[i - 1] != b[j - 1]))
    assert edit_distance(a, b, limit) == min(table[-1][-1], limit + 1)


@pytest.mark.parametrize("name", PAIR_BUILDERS)
def test_pairs_stay_in_their_group_point_downhill_and_do_not_depend_on_order(name):
    build = PAIR_BUILDERS[name]
    pairs = build(Candidates(**FULL), 0)
    assert pairs
    for pair in pairs:
        assert FULL["group"][pair.better] == FULL["group"][pair.worse]
        assert pair.gap == pytest.approx(FULL["reward"][pair.better] - FULL["reward"][pair.worse])
        assert pair.gap > 0
        assert pair.fork == common_prefix(FULL["ids"][pair.better], FULL["ids"][pair.worse])
    assert sum(pair.weight for pair in pairs) == pytest.approx(1)
    if name in ("random_pairs", "variance_aware", "self_contrast"):  # these draw, or break ties by order
        return
    order = list(range(8))
    random.Random(1).shuffle(order)
    moved = build(Candidates(**{key: [values[k] for k in order] for key, values in FULL.items()}), 0)
    assert {(order[i], order[j]) for i, j in chosen(moved)} == chosen(pairs)


@pytest.mark.parametrize("name", PAIR_BUILDERS)
def test_completions_that_were_cut_off_are_in_no_pair(name):
    pairs = PAIR_BUILDERS[name](Candidates(**FULL, truncated=[True, True, True, False, False, False, False, False]), 0)
    assert not {row for pair in pairs for row in (pair.better, pair.worse)} & {0, 1, 2}
