"""A test per cell of the table: credit rule x estimator."""

from dataclasses import replace

import pytest
import torch

from prm_kit.errors import UsageError
from rl.advantages import ESTIMATORS
from rl.compatibility import MEANING, REFUSED, RESISTS, SEES_STEPS, WITHOUT_OWN_ROW, cell, check_cell, table
from rl.credit import CREDITS, to_tokens

CELLS = [(credit, estimator) for credit in CREDITS for estimator in ESTIMATORS]
RUNNING = [pair for pair in CELLS if pair not in REFUSED]
WRONG = [0.8, 0.6, -0.8, -0.4]
OTHERS = [[0.9, 0.7, 0.8], [0.5, -0.6], [0.2, 0.9, 0.4, 0.3]]
FILLER = 0.95


def advantage(credit, estimator, batch):
    credit_BT, counted_BT = to_tokens(CREDITS[credit](batch), batch)
    return ESTIMATORS[estimator](credit_BT, counted_BT, batch)


def test_the_table_has_every_cell_and_every_sign_has_a_meaning():
    signs = {sign for row in table().values() for sign in row.values()}
    assert signs <= set(MEANING)
    assert [(credit, estimator) for credit, row in table().items() for estimator in row] == CELLS
    assert set(RESISTS) == set(CREDITS)
    assert set(ESTIMATORS) >= SEES_STEPS | WITHOUT_OWN_ROW


@pytest.mark.parametrize(("credit", "estimator"), sorted(REFUSED))
def test_a_senseless_cell_is_refused_by_name(credit, estimator):
    assert cell(credit, estimator) == "-"
    with pytest.raises(UsageError, match=f"credit {credit} with estimator {estimator}: "):
        check_cell(credit, estimator)


@pytest.fixture(scope="module")
def one_step(random_batch):
    """Every solution has one step, scored by its outcome."""
    batch = random_batch(seed=5)
    return replace(batch, step_BT=torch.zeros_like(batch.step_BT), step_rewards_BS=batch.reward_B[:, None])


def expected_outcomes(sign, batch):
    """What the estimator is to be applied to, by slow loops."""
    expected = batch.reward_B.clone()
    for row in range(len(expected)):
        same = [
            k for k in range(len(expected)) if batch.group_B[k] == batch.group_B[row] and not batch.is_reference_B[k]
        ]
        rewards = batch.reward_B[same]
        if sign == "z":
            expected[row] = (batch.reward_B[row] - rewards.mean()) / (rewards.std() + 1e-6)
        if sign == "l":
            others = [k for k in same if k != row]
            expected[row] = batch.reward_B[row] - batch.reward_B[others].mean()
    return expected


@pytest.mark.parametrize(("credit", "estimator"), RUNNING)
def test_one_step_scored_by_its_outcome_is_what_the_table_says(one_step, credit, estimator):
    outcome_BT = expected_outcomes(cell(credit, estimator), one_step)[:, None].expand(one_step.mask_BT.shape)
    expected = ESTIMATORS[estimator](outcome_BT, one_step.mask_BT, one_step)
    assert torch.allclose(advantage(credit, estimator, one_step), expected, atol=1e-4)
    assert expected.abs().max() > 0.01


@pytest.mark.parametrize(("credit", "estimator"), RUNNING)
def test_order_of_rows_and_padding_change_no_cell(random_batch, credit, estimator):
    batch = random_batch(seed=6)
    found = advantage(credit, estimator, batch)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(advantage(credit, estimator, batch.select(order)), found[order], atol=1e-5)

    def wider(tensor, value):
        return torch.cat([tensor, torch.full_like(tensor[:, :2], value)], dim=1)

    padded = replace(
        batch,
        mask_BT=wider(batch.mask_BT, False),
        step_BT=wider(batch.step_BT, 0),
        step_rewards_BS=wider(batch.step_rewards_BS, torch.nan),
        old_BT=wider(batch.old_BT, 7),
        reference_BT=wider(batch.reference_BT, 8),
        rollout_BT=wider(batch.rollout_BT, 9),
        values_BT=wider(batch.values_BT, 9),
    )
    assert torch.allclose(advantage(credit, estimator, padded)[:, :-2], found, atol=1e-6)


def group(make_batch, steps, step_lengths):
    """The wrong solution, as it is or gamed, beside three others and one to compare with."""
    rows = [steps, *OTHERS, [0.3]]
    lengths = [step_lengths, *([2] * len(row) for row in rows[1:])]
    batch = make_batch([0.0, 1, 0, 1, 0], steps=rows, step_lengths=lengths)
    return replace(
        batch,
        is_reference_B=torch.tensor([False] * 4 + [True]),
        values_BT=torch.full(batch.mask_BT.shape, 0.25),
        old_BT=torch.zeros(batch.mask_BT.shape),
        reference_BT=torch.zeros(batch.mask_BT.shape),
    )


ATTACKS = {
    "split": ([0.8, 0.8, 0.6, -0.8, -0.8, -0.4], [1, 1, 2, 1, 1, 2], 0),
    "split the best": ([0.8, 0.8, 0.6, -0.8, -0.4], [1, 1, 2, 2, 2], 0),
    "prepend": ([FILLER] * 8 + WRONG, [1] * 8 + [2] * 4, 8),
    "append": (WRONG + [FILLER] * 8, [2] * 4 + [1] * 8, 0),
}
"""Steps, tokens of each step, and the token at which the original text begins."""


def gain(found, honest, start):
    """The most that the first token, or one that was there before, gains."""
    return max((found[0, 0] - honest[0, 0]).item(), (found[0, start : start + 8] - honest[0, :8]).max().item())


OWN_SHARE = {"group_mean", "mixed_baseline"}
"""Baselines that the row's own mean moves by its share of the group, here a quarter."""

PROMISED = [
    (credit, estimator, attack)
    for credit, estimator in RUNNING
    for attack in ("split", "prepend", "append")
    if attack in RESISTS[credit]
    and (estimator not in SEES_STEPS if attack == "split" else estimator in WITHOUT_OWN_ROW | OWN_SHARE)
]


@pytest.mark.parametrize(("credit", "estimator", "attack"), PROMISED)
def test_nothing_is_gained_where_the_rule_resists(make_batch, credit, estimator, attack):
    steps, lengths, start = ATTACKS[attack]
    honest_batch, gamed_batch = group(make_batch, WRONG, [2] * 4), group(make_batch, steps, lengths)
    honest, gamed = (advantage(credit, estimator, batch) for batch in (honest_batch, gamed_batch))
    if attack == "split":
        assert torch.allclose(gamed[:, :8], honest[:, :8], atol=1e-6)
    else:
        lost = advantage(credit, "uncentred", honest_batch)[0, :8].mean() - (
            advantage(credit, "uncentred", gamed_batch)[0].sum() / gamed_batch.lengths_B[0]
        )
        share = 0.25 * max(lost.item(), 0.0) if estimator in OWN_SHARE else 0.0
        assert gain(gamed, honest, start) <= share + 1e-6


@pytest.mark.parametrize("credit", CREDITS)
def test_what_is_not_promised_is_indeed_gained(make_batch, credit):
    honest = advantage(credit, "uncentred", group(make_batch, WRONG, [2] * 4))
    for attack in {"split", "prepend", "append"} - RESISTS[credit]:
        gains = []
        for steps, lengths, start in (ATTACKS[attack], ATTACKS["split the best"])[: 1 + (attack == "split")]:
            gains.append(gain(advantage(credit, "uncentred", group(make_batch, steps, lengths)), honest, start))
        assert max(gains) > 1e-3, attack
