import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.errors import UsageError
from prm_kit.formats.folding import Folding, Holds, LeftOut, fold, soft_value
from prm_kit.records import Solution, StepLabel, step_hash


def folded(values, holds=None, **policies):
    """Fold label values: an int is hard, a tuple is shares, None is no label."""
    solution = Solution.from_steps("p", [f"s{i}" for i in range(len(values))])
    labels = [
        None
        if value is None
        else StepLabel(i, None, step_hash(f"s{i}"), shares=value)
        if isinstance(value, tuple)
        else StepLabel(i, value, step_hash(f"s{i}"))
        for i, value in enumerate(values)
    ]
    return fold(solution, labels, Folding(**policies), holds or Holds(), "two")


@pytest.mark.parametrize(("policy", "value"), [("positive", 1), ("negative", -1)])
def test_a_neutral_label_goes_where_the_policy_says(policy, value):
    assert folded([1, 0, -1], neutral_policy=policy).targets == (1, value, -1)


def test_a_neutral_label_without_a_policy_is_an_error_that_names_the_choices():
    """P8-1, P8-2: nothing is folded silently."""
    with pytest.raises(UsageError, match="positive, negative, drop or half"):
        folded([1, 0])


def test_half_needs_a_format_with_floats():
    assert folded([0], Holds(soft=True), neutral_policy="half").targets == (0.5,)
    with pytest.raises(UsageError, match="no half label"):
        folded([0], neutral_policy="half")


def test_drop_leaves_the_solution_out_where_every_step_needs_a_label():
    assert folded([1, 0], Holds(missing=True), neutral_policy="drop").targets == (1, None)
    with pytest.raises(LeftOut, match="dropped"):
        folded([1, 0], neutral_policy="drop")


def test_a_missing_label_is_an_error_left_out_or_cut_off():
    with pytest.raises(UsageError, match="missing_policy"):
        folded([1, -1, None])
    with pytest.raises(LeftOut):
        folded([1, -1, None], missing_policy="drop")
    cut = folded([1, -1, None], missing_policy="cut")
    assert (cut.solution.steps, cut.targets) == (("s0", "s1"), (1, -1))
    with pytest.raises(LeftOut, match="before the last labelled"):
        folded([1, None, -1], missing_policy="cut")
    with pytest.raises(LeftOut, match="no step"):
        folded([None], missing_policy="cut")


def test_where_a_format_ends_at_the_first_error_nothing_after_it_is_needed_or_kept():
    for after in (None, 1, -1):
        assert folded([1, -1, after], Holds(missing_after_error=True)).targets == (1, -1, None)
    with pytest.raises(UsageError):
        folded([1, None, -1], Holds(missing_after_error=True))


def test_a_soft_label_needs_a_threshold_or_a_format_with_floats():
    with pytest.raises(UsageError, match="threshold"):
        folded([(0.3, 0.0, 0.7)])
    assert folded([(0.3, 0.0, 0.7)], Holds(soft=True)).targets == (0.7,)
    assert folded([(0.3, 0.0, 0.7), (0.5, 0.0, 0.5), (0.6, 0.0, 0.4)], threshold=0.5).targets == (1, 1, -1)


def test_votes_for_neutral_follow_the_policy():
    shares = (0.2, 0.5, 0.3)
    assert soft_value(shares, "positive", "x") == pytest.approx(0.8)
    assert soft_value(shares, "negative", "x") == pytest.approx(0.3)
    assert soft_value(shares, "half", "x") == pytest.approx(0.55)
    assert soft_value(shares, "drop", "x") == pytest.approx(0.6)  # 0.3 / (0.2 + 0.3)
    assert soft_value((0.0, 1.0, 0.0), "drop", "x") is None
    with pytest.raises(UsageError, match="votes for 0"):
        soft_value(shares, "keep", "x")


@given(st.lists(st.sampled_from([-1, 0, 1, None]), min_size=1, max_size=8))
def test_keep_changes_no_label(values):
    assert folded(values, Holds(neutral=True, missing=True)).targets == tuple(values)


@given(
    st.lists(st.sampled_from([-1, 0, 1, None]), min_size=1, max_size=8),
    st.sampled_from(["positive", "negative"]),
    st.sampled_from(["drop", "cut"]),
)
def test_what_a_two_class_format_gets_is_one_of_two_classes_on_every_step(values, policy, missing):
    try:
        result = folded(values, neutral_policy=policy, missing_policy=missing)
    except LeftOut:
        return
    assert set(result.targets) <= {-1, 1}
    assert len(result.targets) == len(result.solution.spans)
