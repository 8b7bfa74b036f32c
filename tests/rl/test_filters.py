from dataclasses import replace
from functools import partial

import pytest
import torch

from prm_kit.errors import UsageError
from rl.filters import (
    GROUP_FILTERS,
    ROW_FILTERS,
    accuracy_within,
    adaptive_difficulty,
    mixed_outcomes,
    not_solved,
    reward_per_token,
    shortest,
    step_quality_per_token,
)

NAN = float("nan")


def test_dynamic_sampling_keeps_groups_with_both_outcomes(make_batch):
    batch = make_batch([0] * 7, groups=[0, 1, 0, 1, 2, 2, 3], correct_B=torch.tensor([1.0, 1, 0, 1, 0, 0, NAN]))
    assert mixed_outcomes(batch).tolist() == [True, False, True, False, False, False, False]


def test_a_shaped_reward_does_not_make_an_all_wrong_group_look_mixed(make_batch):
    # The trap: length penalties and format crumbs differ, correctness does not.
    batch = make_batch([0.2, -0.3, 0.1], correct_B=torch.zeros(3))
    assert not mixed_outcomes(batch).any()


def test_accuracy_within_takes_its_bounds_in(make_batch):
    batch = make_batch([0] * 5, correct_B=torch.tensor([1.0, 0, 0, 0, 0]))
    assert accuracy_within(batch).all()
    assert not accuracy_within(batch, low=0.3).any()


def test_shortest_and_ties(make_batch):
    batch = make_batch([0] * 4, lengths=[5, 2, 3, 2])
    assert shortest(batch, (), k=2).tolist() == [False, True, False, True]
    assert shortest(batch, (), k=9).all()
    with pytest.raises(UsageError, match="k = 0"):
        shortest(batch, (), k=0)


def test_reward_per_token_is_not_fooled_by_negative_rewards(make_batch):
    # The trap: -1 / 10 tokens is more than -1 / 2 tokens. Shifted, both are 0 and the shorter one wins the tie.
    batch = make_batch([-1, -1, 1], lengths=[10, 2, 5])
    assert reward_per_token(batch, (), k=1).tolist() == [False, False, True]
    assert reward_per_token(batch, (), k=2).tolist() == [False, True, True]


def test_step_quality_does_not_pay_for_more_steps(make_batch):
    # the same 4 tokens and scores, cut into two or four steps; the third scores less; the last has no score
    batch = make_batch(
        [0] * 4, steps=[[0.5, 0.5], [0.5] * 4, [0.1, 0.1], [NAN]], step_lengths=[[2, 2], [1] * 4, [2, 2], [2]]
    )
    assert step_quality_per_token(batch, (), k=2).tolist() == [True, True, False, False]
    assert step_quality_per_token(batch, (), k=3).tolist() == [True, True, True, False]


def test_adaptive_difficulty_keeps_more_of_hard_problems(make_batch):
    # earlier groups' means 0 to 1: median .5, upper quartile .75; these groups have .2, .6 and .9
    history = [k / 100 for k in range(101)]
    batch = make_batch([0.2] * 3 + [0.6] * 3 + [0.9] * 3, lengths=[1, 2, 3] * 3, groups=[0] * 3 + [1] * 3 + [2] * 3)
    kept = adaptive_difficulty(batch, history, sizes=(3, 2, 1))
    assert kept.tolist() == [True, True, True, True, True, False, True, False, False]
    assert adaptive_difficulty(batch, history[:10], sizes=(3, 2, 1)).all()


def test_history_resampling_drops_what_all_rollouts_solved_and_keeps_what_none_did():
    outcomes = {3: [1, 1, 1], 4: [1, 0, 1], 5: [0, 0, 0]}
    assert not_solved(outcomes) == {4, 5}
    assert not_solved(outcomes, solved_at=0.6) == {5}
    with pytest.raises(UsageError, match="problem 7: outcomes"):
        not_solved({7: [0.5]})


@pytest.mark.parametrize("name", [*GROUP_FILTERS, *ROW_FILTERS])
def test_order_and_names_of_groups_change_no_filter(random_batch, name):
    batch = random_batch(seed=11)
    batch = replace(batch, reward_B=batch.reward_B + torch.arange(12) * 1e-3)
    if name in ROW_FILTERS:
        number = {"sizes": (3, 2, 1), "warm_up": 1} if name == "adaptive_difficulty" else {"k": 2}
        keep = partial(ROW_FILTERS[name], history=[0.3, 0.5, 0.7], **number)
    else:
        keep = GROUP_FILTERS[name]
    if name in ("shortest", "adaptive_difficulty"):  # no ties, which go by order
        batch = replace(batch, mask_BT=torch.arange(16)[None] < torch.arange(1, 13)[:, None], old_BT=None,
                        reference_BT=None, rollout_BT=None, values_BT=None, step_BT=None)  # fmt: skip
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    moved = replace(batch.select(order), group_B=-batch.group_B[order])
    assert torch.equal(keep(moved), keep(batch)[order])
