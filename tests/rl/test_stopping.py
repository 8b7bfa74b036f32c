import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.errors import UsageError
from prm_kit.settings import validated
from rl.stopping import StopRules, stop_reason


def held_out(*sampled):
    return [{"part": "held_out", "sampled": value} for value in sampled]


def trained(n=5, **values):
    return [{"part": "train", **values}] * n


def test_without_a_rule_a_run_goes_on():
    assert stop_reason(StopRules(), [*held_out(1.0), *trained(no_signal=1.0, kl=9.0, alarms=[])]) is None


def test_the_accuracy_that_was_asked_for_ends_a_run_by_its_latest_evaluation():
    rules = StopRules(accuracy=0.5)
    assert stop_reason(rules, held_out(0.6, 0.49)) is None
    assert stop_reason(rules, held_out(0.1, 0.5)) == "held-out accuracy is 0.500, and 0.5 was asked for"


def test_patience_counts_evaluations_since_the_best():
    rules = StopRules(patience=2)
    # the best is the second; after it come one, then two that are no better (a tie is none)
    assert stop_reason(rules, held_out(0.2, 0.4, 0.3)) is None
    assert "0.400 for 2 evaluations" in stop_reason(rules, held_out(0.2, 0.4, 0.3, 0.4))
    assert stop_reason(rules, held_out(0.2, 0.4, 0.3, 0.41)) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 4))
def test_patience_is_what_counting_by_hand_gives(reached, patience):
    best, stale = -1.0, 0
    for value in reached:
        best, stale = (value, 0) if value > best else (best, stale + 1)
    assert (stop_reason(StopRules(patience=patience), held_out(*reached)) is not None) == (stale >= patience)


def test_an_alarm_ends_a_run_if_it_is_of_the_kind():
    lines = trained(1, alarms=[{"kind": "prm", "text": "steps grow longer"}])
    assert stop_reason(StopRules(alarm="any"), lines) == "alarm: steps grow longer"
    assert stop_reason(StopRules(alarm="prm"), lines) is not None
    assert stop_reason(StopRules(alarm="policy"), lines) is None
    assert stop_reason(StopRules(alarm="any"), [*lines, *held_out(0.5)]) is not None
    assert stop_reason(StopRules(alarm="any"), [*lines, *trained(1)]) is None  # an alarm of long ago


def test_shares_and_divergences_are_those_of_five_updates():
    # signal: (0.5 + 4 x 1) / 5 = 0.9; a skipped update has no figure and counts as 1
    lines = [*trained(1, no_signal=0.5), *trained(4, skipped=1)]
    assert "90% of the groups" in stop_reason(StopRules(no_signal=0.89), lines)
    assert stop_reason(StopRules(no_signal=0.9), lines) is None
    assert stop_reason(StopRules(no_signal=0.1), lines[1:]) is None  # four are too few
    # kl: (0 + 4 x 0.5) / 5 = 0.4
    lines = [*trained(1, kl=0.0), *trained(4, kl=0.5)]
    assert "0.4 nats" in stop_reason(StopRules(kl=0.39), lines)
    assert stop_reason(StopRules(kl=0.4), lines) is None


def test_a_rule_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'patience'"):
        validated(StopRules, {"patienc": 2}, "recipe")
