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
    first_wrong_step,
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
    "step_of_token": [[0, 0, 1], [0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1, 2], [0], [0, 0, 1, 1], [0, 1]],
    "step_values": [[0.9, -0.9], [0.9], [0.9, 0.8], [0.9, 0.2], [0.9, 0.1, -0.3], [-0.9], [0.9, None, 0.4], [0.9, -1]],
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


JUDGED = {
    "ids": [[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 6, 7, 8], [9, 9], [1, 2, 3, 4]],
    "correct": [True, True, False, False, False],
    "step_of_token": [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1, 2], [0, 1], [0, 0, 1, 1]],
    "step_values": [[0.9, 0.8], [0.9, -0.2], [0.9, -0.7, -0.8], [0.9, 0.9], [0.9, None]],
}


def test_first_wrong_step_wants_a_winner_that_the_prm_likes_and_a_loser_that_it_sees_fail():
    # 0 is right and liked throughout; 1 is right by luck; 2 goes wrong in step 1, its tokens 2 and 3; the PRM sees
    # nothing wrong with 3 and 4
    asked = candidates([1.4, 1.3, 0.2, 0.5, 0.4], **JUDGED)
    (pair,) = first_wrong_step(asked, 0)
    assert (pair.better, pair.worse, pair.fork, pair.wrong) == (0, 2, 2, (2, 4))
    # at -0.5 the PRM does not mind what 1 did
    assert chosen(first_wrong_step(asked, 0, threshold=-0.5)) == {(0, 2), (1, 2)}
    assert first_wrong_step(asked, 0, eps=2.0) == []


@given(st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from([None, -0.9, 0.0, 0.9]), max_size=4)), max_size=7))
@settings(max_examples=60, deadline=None)
def test_no_pair_of_first_wrong_step_goes_against_the_answer_or_the_prm(judged):
    asked = candidates(
        [float(right) for right, _ in judged],
        correct=[right for right, _ in judged],
        step_of_token=[list(range(len(values))) for _, values in judged],
        step_values=[values for _, values in judged],
    )
    if not any(values for _, values in judged):
        with pytest.raises(UsageError, match="a PRM that values the steps"):
            first_wrong_step(asked, 0)
        return
    found = first_wrong_step(asked, 0)
    for pair in found:
        liked, values = ([x for x in judged[row][1] if x is not None] for row in (pair.better, pair.worse))
        assert judged[pair.better][0]
        assert min(liked) > 0
        assert not judged[pair.worse][0]
        assert min(values) <= 0
        assert judged[pair.worse][1][pair.wrong[0]] <= 0
    good = sum(right and any(x is not None for x in v) and all(x is None or x > 0 for x in v) for right, v in judged)
    bad = sum(not right and any(x is not None and x <= 0 for x in values) for right, values in judged)
    assert len(found) == good * bad


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


def differing(candidates, eps):
    """Every pair that may be made, the better first: slowly."""
    cut = candidates.truncated or [False] * len(candidates.group)
    return [
        (i, j)
        for i, j in itertools.permutations(range(len(candidates.group)), 2)
        if candidates.group[i] == candidates.group[j]
        and not cut[i]
        and not cut[j]
        and candidates.reward[i] - candidates.reward[j] > eps
    ]


def slow_success_failure(candidates, eps):
    right = candidates.correct
    return {(i, j) for i, j in differing(candidates, eps) if right[i] is True and right[j] is False}


def in_pairs(candidates):
    """Rows of each group that are not cut off."""
    for group in set(candidates.group):
        yield [i for i, its in enumerate(candidates.group) if its == group and not candidates.truncated[i]]


def slow_variance_aware(candidates, eps):
    found = set()
    for rows in in_pairs(candidates):
        ranks = sorted(rows, key=lambda i: (-candidates.reward[i], i))
        best, worst = ranks[:1], sorted(rows, key=lambda i: (candidates.reward[i], i))[:1]
        found |= {(i, j) for i, j in differing(candidates, eps) if [i] == best and [j] == worst}
    return found


def slow_self_contrast(candidates, eps):
    every, found = differing(candidates, eps), set()
    for rows in in_pairs(candidates):
        best, *others = sorted(rows, key=lambda i: (-candidates.reward[i], i)) or [None]
        below = [i for i in others if (best, i) in every]
        found |= {(best, i) for i in below[:1]}
    return found


def slow_near_miss(candidates, eps):
    found = set()
    for i, j in differing(candidates, eps):
        a, b = candidates.steps[i], candidates.steps[j]
        table = [[max(k, m) if not k or not m else 0 for m in range(len(b) + 1)] for k in range(len(a) + 1)]
        for k, m in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
            table[k][m] = min(table[k - 1][m] + 1, table[k][m - 1] + 1, table[k - 1][m - 1] + (a[k - 1] != b[m - 1]))
        if 1 <= table[-1][-1] <= 2 and table[-1][-1] < max(len(a), len(b)):
            found.add((i, j))
    return found


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.sampled_from([0.0, 0.25, 0.5, 1.0]),
            st.sampled_from([True, False, None]),
            st.lists(st.sampled_from("abc"), max_size=4),
            st.booleans(),
        ),
        max_size=8,
    ),
    st.sampled_from([0.0, 0.25, 0.4]),
    st.integers(0, 3),
)
@settings(max_examples=80, deadline=None)
def test_every_builder_chooses_what_its_definition_says(rows, eps, seed):
    group, reward, correct, steps, truncated = (
        (list(column) for column in zip(*rows, strict=True)) if rows else [[]] * 5
    )
    asked = Candidates(group, reward, [[k] for k in range(len(group))], correct, steps, truncated)
    every = set(differing(asked, eps))
    assert chosen(ranked(asked, seed, eps=eps)) == every
    assert chosen(success_failure(asked, seed, eps=eps, per_completion=99)) == slow_success_failure(asked, eps)
    assert chosen(variance_aware(asked, seed, eps=eps)) == slow_variance_aware(asked, eps)
    assert chosen(self_contrast(asked, seed, eps=eps)) == slow_self_contrast(asked, eps)
    assert chosen(near_miss(asked, seed, eps=eps)) == slow_near_miss(asked, eps)
    drawn = random_pairs(asked, seed, eps=eps, per_group=3)
    assert chosen(drawn) <= every
    for number in set(group):
        assert sum(group[pair.better] == number for pair in drawn) == min(3, sum(group[i] == number for i, _ in every))


def test_branches_of_one_prefix_are_prefix_sharing_pairs_by_construction():
    # nothing in common after the prefix: over whole texts 4 of 5 tokens are the same, and in group 1 none
    asked = candidates([1, 0, 0.5, 1, 0], [0, 0, 0, 1, 1], ids=[[1], [2], [3], [1], [2]], prefix=[4, 4, 4, 0, 0])
    found = prefix_sharing(asked, 0, eps=0.1)
    assert chosen(found) == {(0, 1), (0, 2), (2, 1)}
    assert chosen(prefix_sharing(asked, 0, eps=0.6)) == {(0, 1)}
    assert {pair.fork for pair in found} == {0}  # what both sides are asked with holds the prefix


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
