import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.card import ReadoutName
from prm_kit.errors import InputError, UsageError
from prm_kit.readout import READOUTS, readout_named, step_rewards

KNOWN = [name for name, readout in READOUTS.items() if readout.log_probabilities]


def outputs(name: str) -> int:
    return len(READOUTS[name].labels) * (4 if READOUTS[name].members else 1)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slow(name: str, row: list[float]) -> list[float]:
    """Probabilities of one step, from the definitions."""
    if name == "sigmoid":
        return [1 - sigmoid(row[0]), 0.0, sigmoid(row[0])]
    if name == "ordinal":
        above, best = sigmoid(row[0]), sigmoid(row[0] - math.log(1 + math.exp(row[1])))
        return [1 - above, above - best, best]
    parts = [row[start : start + 3] for start in range(0, len(row), 3)] if len(row) > 2 else [row]
    members = [[math.exp(x) / sum(map(math.exp, part)) for x in part] for part in parts]
    mean = [sum(column) / len(members) for column in zip(*members, strict=True)]
    return mean if len(mean) == 3 else [mean[0], 0.0, mean[1]]


@given(st.sampled_from(KNOWN), st.data())
def test_probabilities_are_those_of_the_slow_definition(name, data):
    rows = data.draw(st.lists(st.lists(st.floats(-8, 8), min_size=outputs(name), max_size=outputs(name)), min_size=1))
    found = READOUTS[name].probabilities(torch.tensor(rows, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([slow(name, row) for row in rows], dtype=torch.float64))


@given(st.sampled_from(KNOWN), st.data())
def test_they_sum_to_one_and_none_is_negative_whatever_the_head_says(name, data):
    row = data.draw(st.lists(st.floats(-1e4, 1e4, width=32), min_size=outputs(name), max_size=outputs(name)))
    found = READOUTS[name].probabilities(torch.tensor([row]))
    assert found.dtype == torch.float32
    assert (found >= 0).all()
    assert found.sum().item() == pytest.approx(1, abs=1e-5)


def test_cumulative_logits_by_hand():
    # a = ln 3: p(better than -1) = 3/4. g = ln(e^ln3 - 1) = ln 2, so softplus(g) = ln 3 and b = 0: p(+1) = 1/2.
    found = READOUTS["ordinal"].probabilities(torch.tensor([[math.log(3), math.log(2)]]))
    assert found.tolist()[0] == pytest.approx([0.25, 0.25, 0.5])


def test_an_ordinal_logarithm_loses_no_digits_where_the_difference_would():
    # sigmoid(40) - sigmoid(39.97) is 0 in float32; log p(0) = log sigmoid(40) + log sigmoid(-b) + log sigmoid(-3.5)
    log = READOUTS["ordinal"].log_probabilities(torch.tensor([[40.0, -3.5]]))[0, 1].item()
    best = 40 - math.log1p(math.exp(-3.5))
    assert log == pytest.approx(-best - math.log1p(math.exp(3.5)), rel=1e-6)


def test_members_that_agree_are_certain_and_members_that_differ_are_not():
    readout = READOUTS["ensemble"]
    same, apart = [9.0, 0.0, 0.0] * 2, [90.0, 0.0, 0.0, 0.0, 0.0, 90.0]
    found = readout.uncertainty(torch.tensor([same, apart, [0.0] * 6]))
    # one member sure of -1 and one sure of +1: entropy of (1/2, 0, 1/2) less 0 = ln 2; all unsure alike: 0
    assert found.tolist() == pytest.approx([0, math.log(2), 0], abs=1e-6)


@given(st.lists(st.floats(-20, 20), min_size=12, max_size=12))
def test_disagreement_is_the_mean_divergence_of_the_members_from_their_mean(row):
    logits = torch.tensor([row], dtype=torch.float64)
    members = torch.softmax(logits.reshape(4, 3), dim=-1)
    mean = members.mean(dim=0)
    divergence = (members * (members / mean).log().nan_to_num(neginf=0)).sum() / 4
    assert READOUTS["ensemble"].uncertainty(logits).item() == pytest.approx(divergence.item(), abs=1e-6)


def test_the_names_are_those_of_the_card_and_outputs_are_named():
    assert set(READOUTS) == set(ReadoutName.__args__)
    assert READOUTS["classes"].id2label(3) == {0: "-1", 1: "0", 2: "+1"}
    assert READOUTS["ensemble"].id2label(6)[4] == "0 (1)"
    assert [READOUTS["ensemble"].fits(k) for k in (3, 6, 7)] == [False, True, False]
    assert [READOUTS["binary"].fits(k) for k in (1, 2, 4)] == [False, True, False]


def test_a_score_without_bounds_gives_no_probabilities_and_an_unknown_name_is_refused():
    with pytest.raises(InputError, match=r"no probabilities"):
        READOUTS["unbounded"].probabilities(torch.zeros(1, 1))
    with pytest.raises(UsageError, match=r"unknown readout 'clases'. Did you mean 'classes'"):
        readout_named("clases")


def test_step_rewards_are_what_was_reached_or_what_each_step_added():
    assert step_rewards([0.5, 0.25, 1.0], "cumulative") == [0.5, 0.25, 1.0]
    assert step_rewards([0.5, 0.25, 1.0], "difference") == [0.5, -0.25, 0.75]
    assert step_rewards([], "difference") == []
