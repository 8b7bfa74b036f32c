from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.errors import InputError
from prm_kit.label_distribution import fold_neutral
from prm_kit.records import Annotation, Labelled, Rater, Solution, StepLabel, step_hash
from prm_kit.targets import prefix_keys, targets_of

PERSON = Rater("human", "a")
OTHER = Rater("human", "b")


def labelled(values, steps=None, rater=PERSON, **fields) -> Labelled:
    solution = Solution.from_steps("p", steps or [f"s{i}" for i in range(len(values))], **fields)
    return Labelled(solution, Annotation.of(solution, rater, values))


def soft(shares) -> Labelled:
    """One step a pair of shares of -1 and +1."""
    solution = Solution.from_steps("p", [f"s{i}" for i in range(len(shares))])
    labels = tuple(
        StepLabel(i, None, step_hash(text), shares=share)
        for i, (text, share) in enumerate(zip(solution.steps, shares, strict=True))
    )
    return Labelled(solution, Annotation(solution.id, PERSON, labels))


def test_values_become_classes_and_what_was_not_judged_becomes_nothing():
    found = targets_of([labelled([1, None, 0, -1])])
    [item] = found.items
    assert item.steps == (0, 2, 3)
    assert item.distributions == ((0, 0, 1), (0, 1, 0), (1, 0, 0))
    assert found.labels == {"-1": 1, "0": 1, "+1": 1, "soft": 0, "null": 1}
    assert found.masses == (1, 1, 1)
    assert found.prior == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_shares_stay_soft():
    found = targets_of([soft([(0.3, 0.0, 0.7)])])
    assert found.items[0].distributions == ((0.3, 0.0, 0.7),)
    assert found.masses == (0.3, 0.0, 0.7)


@pytest.mark.parametrize(
    ("policy", "hard", "mixed"),
    [
        ("keep", (0, 1, 0), (0.2, 0.6, 0.2)),
        ("positive", (0, 0, 1), (0.2, 0, 0.8)),
        ("negative", (1, 0, 0), (0.8, 0, 0.2)),
        ("half", (0.5, 0, 0.5), (0.5, 0, 0.5)),
        ("drop", None, (0.5, 0, 0.5)),
    ],
)
def test_a_neutral_label_goes_where_the_policy_says(policy, hard, mixed):
    assert fold_neutral((0.0, 1.0, 0.0), policy) == hard
    assert fold_neutral((0.2, 0.6, 0.2), policy) == pytest.approx(mixed)
    assert fold_neutral((1.0, 0.0, 0.0), policy) == (1, 0, 0)


@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda x: sum(x) > 0.1),
    st.sampled_from(["keep", "positive", "negative", "half", "drop"]),
)
def test_no_policy_makes_or_loses_mass(parts, policy):
    distribution = tuple(part / sum(parts) for part in parts)
    folded = fold_neutral(distribution, policy)
    if folded is None:
        assert policy == "drop"
        assert distribution[1] > 0.99
    else:
        assert sum(folded) == pytest.approx(1.0)
        assert policy == "keep" or folded[1] == 0


def test_dropped_neutral_labels_are_counted():
    found = targets_of([labelled([1, 0]), labelled([0], ["other"])], neutral_policy="drop")
    assert found.count == 1
    assert found.dropped_labels == {"neutral": 2}
    assert found.dropped_solutions == {"no usable label": 1}


def test_labels_after_the_first_error_are_masked_only_when_asked():
    item = labelled([1, -1, 1, 0])
    assert targets_of([item]).items[0].steps == (0, 1, 2, 3)
    masked = targets_of([item], mask_after_first_error=True)
    assert masked.items[0].steps == (0, 1)
    assert masked.dropped_labels == {"after the first error": 2}


def test_a_share_that_is_surely_wrong_is_an_error_and_one_that_may_be_is_not():
    found = targets_of([soft([(0.9, 0, 0.1), (1.0, 0, 0), (0.5, 0, 0.5)])], mask_after_first_error=True)
    assert found.items[0].steps == (0, 1)


def test_a_step_after_the_same_prefix_counts_once():
    trunk = labelled([1, 1], ["a", "b"])
    branch = labelled([1, -1], ["a", "c"])
    found = targets_of([trunk, branch])
    assert [item.steps for item in found.items] == [(0, 1), (1,)]
    assert found.dropped_labels == {"repeats another prefix and step": 1}
    assert found.conflicts == 0
    assert found.count == 3


def test_raters_who_disagree_are_averaged_and_reported():
    found = targets_of([labelled([1, 1]), labelled([-1, 1], rater=OTHER)])
    assert found.items[0].distributions == ((0.5, 0, 0.5), (0, 0, 1))
    assert len(found.items) == 1
    assert found.conflicts == 1
    assert found.dropped_solutions == {"every label repeats another": 1}


def test_the_same_step_after_another_prefix_or_problem_is_another_step():
    a = Solution.from_steps("p", ["a", "b"])
    b = Solution.from_steps("p", ["c", "b"])
    c = Solution.from_steps("q", ["a", "b"])
    d = replace(a, spans=((0, 4),))  # both steps in one
    keys = [key for solution in (a, b, c, d) for key in prefix_keys(solution)]
    assert len(set(keys)) == len(keys)
    assert prefix_keys(Solution.from_steps("p", ["a", "x"]))[0] == prefix_keys(a)[0]


def test_an_outcome_is_read_at_the_last_step():
    right = labelled([1, -1], is_correct=True)
    wrong = labelled([1, 1, 1], is_correct=False)
    found = targets_of([right, wrong], target="outcome")
    assert [(item.steps, item.distributions) for item in found.items] == [((1,), ((0, 0, 1),)), ((2,), ((1, 0, 0),))]
    assert found.outcome_from == {"is_correct": 2}


def test_an_unknown_outcome_comes_from_the_labels_or_is_left_out():
    by_label = [labelled([1, -1, None]), labelled([None, 0], ["x", "y"]), labelled([1, None], ["v", "w"])]
    found = targets_of(by_label, target="outcome")
    assert [item.distributions for item in found.items] == [((1, 0, 0),), ((0, 0, 1),)]
    assert found.outcome_from == {"labels": 2}
    assert found.dropped_solutions == {"outcome unknown": 1}


def test_an_outcome_read_off_an_unfinished_branch_is_counted_apart():
    found = targets_of([labelled([None, 1], meta={"branch_step": 1})], target="outcome")
    assert found.outcome_from == {"labels of a branch": 1}


def test_a_label_of_another_text_solution_or_step_is_refused():
    solution, annotation = labelled([1, 1])
    moved = replace(annotation, labels=(replace(annotation.labels[0], step_hash="0"),))
    with pytest.raises(InputError, match=r"step 0: the label was made for another text"):
        targets_of([Labelled(solution, moved)])
    with pytest.raises(InputError, match=r"is about solution .*, not"):
        targets_of([Labelled(solution, replace(annotation, solution_id="0"))])
    beyond = replace(annotation, labels=(replace(annotation.labels[0], step=7),))
    with pytest.raises(InputError, match=r"label of step 7, but it has 2"):
        targets_of([Labelled(solution, beyond)])


def test_every_label_is_accounted_for():
    data = [labelled([1, None, 0]), labelled([1, -1, 1], ["s0", "z", "y"]), labelled([0], ["q"]), soft([(0.5, 0, 0.5)])]
    found = targets_of(data, neutral_policy="drop", mask_after_first_error=True)
    given_labels = sum(found.labels.values()) - found.labels["null"]
    # soft s0 repeats 1 on s0 twice over; neutral twice; y after the error
    assert given_labels == found.count + sum(found.dropped_labels.values()) == 7
    assert found.dropped_labels == {"neutral": 2, "after the first error": 1, "repeats another prefix and step": 2}


def test_shares_beside_a_value_count_only_where_shares_are_learnt():
    solution = Solution.from_steps("p", ["s"])
    label = StepLabel(0, 1, step_hash("s"), shares=(0.375, 0.0, 0.625), count=8)
    both = [Labelled(solution, Annotation(solution.id, PERSON, (label,)))]
    assert targets_of(both).items[0].distributions == ((0, 0, 1),)
    assert targets_of(both, prefer_shares=True).items[0].distributions == ((0.375, 0.0, 0.625),)


def test_a_value_of_wrong_is_a_first_error_also_where_its_shares_are_learnt():
    solution = Solution.from_steps("p", ["s", "t"])
    shares = (0.75, 0.0, 0.25)
    labels = tuple(StepLabel(i, -1, step_hash(text), shares=shares) for i, text in enumerate(["s", "t"]))
    found = targets_of(
        [Labelled(solution, Annotation(solution.id, PERSON, labels))], prefer_shares=True, mask_after_first_error=True
    )
    assert found.items[0].steps == (0,)
    assert found.dropped_labels == {"after the first error": 1}


def test_whole_solutions_keep_the_steps_that_they_share_and_only_the_same_ones_count_once():
    trunk = labelled([1, 1, -1], ["a", "b", "c"])
    branch = labelled([1, 1, 1], ["a", "b", "d"])
    again = labelled([1, -1, -1], ["a", "b", "c"], OTHER)
    found = targets_of([trunk, branch, again], whole_solutions=True)
    assert [item.solution.id for item in found.items] == [trunk.solution.id, branch.solution.id]
    assert [item.steps for item in found.items] == [(0, 1, 2), (0, 1, 2)]
    # b was called right twice and wrong once: the mean stands wherever b does
    middle = pytest.approx((1 / 3, 0, 2 / 3))
    assert [item.distributions[1] for item in found.items] == [middle, middle]
    assert found.conflicts == 1
    assert found.dropped_labels == {"repeats another solution": 3}
    assert found.dropped_solutions == {"every label repeats another": 1}
    assert [item.steps for item in targets_of([trunk, branch]).items] == [(0, 1, 2), (2,)]
