import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from prm_kit.errors import UsageError
from rl.advantages import critic_steps
from rl.credit import (
    CREDITS,
    difference,
    discounted_sum,
    first_error,
    gae_steps,
    last,
    mean,
    min_form,
    min_to_go,
    prime,
    process_supervision,
    progress,
    to_tokens,
)

WRONG = [0.9, 0.8, 0.1, 0.3]
"""The reference's wrong solution."""

FILLERS = [0.95] * 8


def steps_of(rule, row, make_batch, **fields):
    return rule(make_batch([0], steps=[row], **fields)).value_BS[0].tolist()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (discounted_sum, [2.1, 1.2, 0.4, 0.3]),
        (partial(discounted_sum, gamma=0.5), [0.9 + 0.4 + 0.025 + 0.0375, 0.8 + 0.05 + 0.075, 0.1 + 0.15, 0.3]),
        (min_form, [0.1, 0.1, 0.1, 0.0]),
        (min_to_go, [0.1, 0.1, 0.1, 0.3]),
        (mean, [0.525] * 4),
        (last, [0.3] * 4),
        (difference, WRONG),
        (partial(progress, start=0.5), [0.4, -0.1, -0.7, 0.2]),
        (partial(first_error, threshold=0.5), [0.9, 0.8, 0.1, 0.0]),
    ],
)
def test_credit_by_hand(make_batch, rule, expected):
    assert steps_of(rule, WRONG, make_batch) == pytest.approx(expected, abs=1e-6)


def test_pures_soft_minimum_by_hand(make_batch):
    # weights e^-9, e^-8, e^-1, e^-3 over their sum
    weights = [math.exp(-r / 0.1) for r in WRONG]
    paid = [w / sum(weights) * r for w, r in zip(weights, WRONG, strict=True)]
    expected = [sum(paid[k:]) for k in range(4)]
    assert steps_of(partial(min_form, temperature=0.1), WRONG, make_batch) == pytest.approx(expected, abs=1e-6)
    assert expected[0] == pytest.approx(0.125, abs=5e-4)


def test_process_supervision_by_hand(make_batch):
    # steps 1, 0 | 0, 1, 1: mean .6, sample variance (3 x .16 + 2 x .36) / 4 = .3, std .5477; z = .7303 and -1.0954
    batch = make_batch([0, 0], steps=[[1.0, 0.0], [0.0, 1.0, 1.0]])
    good, bad = 0.4 / math.sqrt(0.3), -0.6 / math.sqrt(0.3)
    found = process_supervision(batch).value_BS
    assert found[0, :2].tolist() == pytest.approx([good + bad, bad], abs=1e-5)
    assert found[1].tolist() == pytest.approx([bad + 2 * good, 2 * good, good], abs=1e-5)


def test_prime_by_hand(make_batch):
    # means .5 and .2: the first's steps lose .2, the second's .5
    batch = make_batch([0, 0], steps=[[0.6, 0.4], [0.2]])
    found = prime(batch).value_BS
    assert found[0].tolist() == pytest.approx([0.6, 0.2])
    assert found[1, 0].item() == pytest.approx(-0.3)


def test_gae_over_steps_by_hand(make_batch):
    # V at step starts .5 and .4, rewards .2, 1, gamma .9, lam .5: d1 = 1 - .4 = .6; d0 = .2 + .36 - .5 = .06
    # A1 = .6, A0 = .06 + .45 x .6 = .33
    batch = make_batch([0], steps=[[0.2, 1.0]], values_BT=torch.tensor([[0.5, 9, 0.4, 9]]))
    credit, counted = to_tokens(gae_steps(batch, gamma=0.9, lam=0.5), batch)
    assert critic_steps(credit, counted, batch)[0].tolist() == pytest.approx([0.33, 0.33, 0.6, 0.6])


def test_a_step_without_tokens_is_the_state_that_the_next_one_starts_from(make_batch):
    batch = make_batch(
        [0], steps=[[0.2, 0.3, 1.0]], step_lengths=[[2, 0, 2]], values_BT=torch.tensor([[0.5, 9, 0.4, 9]])
    )
    found = gae_steps(batch, lam=0.0).value_BS[0].tolist()
    assert found == pytest.approx([0.2 + 0.4, 0.3 + 0.4, 1.0])


def test_every_token_gets_the_credit_of_its_step(make_batch):
    batch = make_batch([0, 0], steps=[[0.9, 0.1], [0.5]], step_lengths=[[1, 3], [2]], pad=1)
    credit, counted = to_tokens(difference(batch), batch)
    assert credit[0].tolist() == pytest.approx([0.9, 0.1, 0.1, 0.1, 0])
    assert counted.tolist() == [[True] * 4 + [False], [True] * 2 + [False] * 3]


def test_tokens_of_a_step_that_is_not_there_are_refused(make_batch):
    batch = make_batch([0], steps=[[0.9, 0.1]])
    with pytest.raises(UsageError, match="row 0, token 3: it belongs to step 7 of 2"):
        to_tokens(difference(batch), replace(batch, step_BT=torch.tensor([[0, 0, 1, 7]])))


@pytest.mark.parametrize("name", CREDITS)
def test_abstained_steps_move_nothing_and_get_nothing(make_batch, name):
    nan = float("nan")
    values = torch.tensor([[0.5, 9, 0.4, 9, 0.3, 9], [0.2, 9, 0.1, 9, 9, 9]])
    with_gap = make_batch(
        [0, 0], steps=[[0.9, nan, 0.1], [0.3, nan]], step_lengths=[[2, 2, 2], [2, 2]], values_BT=values
    )
    without = make_batch(
        [0, 0],
        steps=[[0.9, 0.1], [0.3]],
        step_lengths=[[2, 2], [2]],
        values_BT=torch.tensor([[0.5, 9, 0.3, 9], [0.2, 9, 9, 9]]),
    )
    gap, whole = CREDITS[name](with_gap), CREDITS[name](without)
    assert gap.credited_BS.tolist() == [[True, False, whole.credited_BS[0, 1].item()], [True, False, False]]
    assert gap.value_BS[0, [0, 2]].tolist() == pytest.approx(whole.value_BS[0].tolist(), abs=1e-6)
    assert gap.value_BS[1, 0].item() == pytest.approx(whole.value_BS[1, 0].item(), abs=1e-6)
    assert gap.value_BS[~gap.credited_BS].abs().max() == 0


@pytest.mark.parametrize("name", ["process_supervision", "prime"])
def test_group_centred_credit_of_a_single_solution_is_none(make_batch, name):
    assert not CREDITS[name](make_batch([0, 0], groups=[0, 1], steps=[[0.9, 0.1], [0.3]])).credited_BS.any()


@pytest.mark.parametrize(
    ("name", "fillers_first", "fillers_last", "split", "merged"),
    [
        ("discounted_sum", 9.7, 9.7, 4.8, 0.1),
        ("mean", 0.808, 0.808, 0.686, 0.1),
        ("min_form", 0.1, 0.1, 0.1, 0.1),
        ("min_to_go", 0.1, 0.1, 0.1, 0.1),
        ("difference", 0.95, 0.9, 0.9, 0.1),
    ],
)
def test_the_first_token_under_padding_as_the_reference_tables_it(
    make_batch, name, fillers_first, fillers_last, split, merged
):
    versions = [FILLERS + WRONG, WRONG + FILLERS, [0.9] * 4 + WRONG[1:], [0.1]]
    found = [steps_of(CREDITS[name], row, make_batch)[0] for row in versions]
    assert found == pytest.approx([fillers_first, fillers_last, split, merged], abs=1e-3)


def test_a_soft_minimum_can_be_moved_by_many_steps_and_the_hard_one_cannot(make_batch):
    # The trap: 10,000 steps that score .95 beside one that scores -.2, at temperature .1; bound: .1 x log 10,001 = .92.
    row = [0.95] * 10_000 + [-0.2]
    batch = make_batch([0], steps=[row], step_lengths=[[0] * 10_000 + [2]])
    soft = min_form(batch, temperature=0.1).value_BS[0, 0].item()
    assert -0.2 < soft <= -0.2 + 0.1 * math.log(len(row))
    assert soft > -0.12
    assert min_form(batch).value_BS[0, 0].item() == pytest.approx(-0.2)


@pytest.mark.parametrize("name", ["min_form", "min_to_go", "mean", "last", "difference", "first_error"])
def test_bounded_rules_never_exceed_the_largest_score(random_batch, name):
    batch = random_batch(seed=4)
    largest = torch.nan_to_num(batch.step_rewards_BS).abs().amax(1, keepdim=True)
    assert (CREDITS[name](batch).value_BS.abs() <= largest + 1e-6).all()


@pytest.mark.parametrize("name", CREDITS)
def test_rows_without_scores_have_no_credit_and_disturb_nobody(make_batch, name):
    nan = float("nan")
    values = torch.tensor([[0.5, 9, 0.4, 9], [0.2, 9, 9, 9], [0.2, 9, 9, 9]])
    three = make_batch([0] * 3, steps=[[0.9, 0.1], [0.3], [nan]], values_BT=values)
    two = make_batch([0] * 2, steps=[[0.9, 0.1], [0.3]], values_BT=values[:2])
    assert torch.equal(CREDITS[name](three).value_BS[:2], CREDITS[name](two).value_BS)
    assert not CREDITS[name](three).credited_BS[2].any()


def test_infinite_step_rewards_are_refused(make_batch):
    with pytest.raises(UsageError, match="row 1: a step reward is infinite"):
        mean(make_batch([0, 0], steps=[[0.1], [float("inf")]]))
