import json
from dataclasses import replace

import pytest
import torch

from prm_kit.errors import UsageError
from rl.batch import Batch
from rl.objective import pair_loss, policy_loss, update_of, value_loss
from rl.pair_losses import PairTensors
from rl.pairs import Candidates
from rl.presets import ALGORITHMS, algorithm

POLICY = [name for name, preset in ALGORITHMS.items() if preset.surrogate]
PAIR = [name for name, preset in ALGORITHMS.items() if preset.pairs]


def losses(preset, update, batch, new, entropy, values):
    total = policy_loss(preset, update, batch, new, entropy).total
    return total + value_loss(preset, update, batch, values) if preset.critic else total


@pytest.mark.parametrize("name", POLICY)
def test_every_preset_runs_and_any_cut_of_its_update_adds_up(random_batch, name):
    preset = ALGORITHMS[name]
    batch = random_batch(seed=12, reference=bool({"greedy rollout", "reference rollout"} & preset.needs))
    update = update_of(preset, batch)
    assert torch.isfinite(update.advantage_BT).all()
    assert update.advantage_BT.abs().max() > 0
    generator = torch.Generator().manual_seed(0)
    new = (batch.old_BT + 0.2 * torch.randn(batch.old_BT.shape, generator=generator)).requires_grad_()
    entropy = torch.rand(new.shape, generator=generator).requires_grad_()
    values = (batch.values_BT + 0.1).requires_grad_()
    whole = losses(preset, update, batch, new, entropy, values)
    parts = [
        losses(preset, update.select(rows), batch.select(rows), new[rows], entropy[rows], values[rows])
        for rows in torch.randperm(len(new), generator=generator).split(5)
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-5)
    gradients = [torch.autograd.grad(loss, new, retain_graph=True)[0] for loss in (whole, sum(parts))]
    assert torch.allclose(*gradients, atol=1e-6)
    assert gradients[0][~update.mask_BT].abs().max() == 0
    assert gradients[0].abs().max() > 0


@pytest.mark.parametrize("name", PAIR)
def test_every_preset_of_pairs_lowers_its_loss_along_its_gradient(name):
    preset = ALGORITHMS[name]
    ids = [[1, 2, 3], [1, 2, 4], [1, 2, 5], [1, 3, 5]]
    candidates = Candidates(
        [0] * 4, [1, 0, 0.6, 0.2], ids, correct=[True, False, True, False], step_of_token=[[0, 0, 1]] * 4,
        step_values=[[0.5, 0.5], [0.5, -0.5]] * 2,
    )  # fmt: skip
    built = preset.pairs.builder(candidates, 0)
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(4, 3, generator=generator)
    batch_fields = {
        "group_B": torch.zeros(4, dtype=torch.long), "mask_BT": torch.ones(4, 3, dtype=torch.bool),
        "reward_B": torch.tensor([1, 0, 0.6, 0.2]), "max_tokens": 8, "old_BT": old, "reference_BT": old,
    }  # fmt: skip
    batch, tensors = Batch(**batch_fields), PairTensors.of(built)
    new = old.clone().requires_grad_()
    before = pair_loss(preset, batch, tensors, new)
    (gradient,) = torch.autograd.grad(before, new)
    after = pair_loss(preset, batch, tensors, new - 0.1 * gradient)
    assert after < before
    with pytest.raises(UsageError, match="pair route"):
        update_of(preset, batch)


def test_grpo_in_full_by_hand(make_batch):
    # rewards 1, 0: A = .7071, -.7071; on policy, KL 0; sequence mean of -A: 0; gradient -A / (2 x 3)
    batch = make_batch([1, 0], old_BT=torch.zeros(2, 3), reference_BT=torch.zeros(2, 3))
    update = update_of(ALGORITHMS["grpo"], batch)
    new = torch.zeros(2, 3, requires_grad=True)
    loss = policy_loss(ALGORITHMS["grpo"], update, batch, new)
    assert loss.total.item() == pytest.approx(0, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss.total, new)
    assert gradient[:, 0].tolist() == pytest.approx([-0.70711 / 6, 0.70711 / 6], abs=1e-5)
    assert set(loss.parts) == {"policy", "divergence"}
    json.dumps(loss.parts)


def test_deepseekmaths_process_supervision_in_full_by_hand(make_batch):
    # as in the test of the credit: steps 1, 0 | 0, 1, 1; the outcome has weight 0 and adds nothing
    batch = make_batch([0, 0], steps=[[1.0, 0.0], [0.0, 1.0, 1.0]])
    found = update_of(algorithm("grpo-process", {"divergence": None}), batch)
    assert found.outcome_BT.abs().max() == 0
    assert found.advantage_BT[1, ::2].tolist() == pytest.approx([0.36515, 1.4606, 0.7303], abs=1e-4)


def test_kl_in_the_reward_moves_the_credit(make_batch):
    # rloo: R - .03 x sum k1 before the baseline: 1 - .03 x .6 = .982 and 0: A = +-.982
    old = torch.tensor([[0.1, 0.2, 0.3], [0.0, 0.0, 0.0]])
    batch = make_batch([1, 0], old_BT=old, reference_BT=torch.zeros(2, 3))
    assert update_of(ALGORITHMS["rloo"], batch).advantage_BT[:, 0].tolist() == pytest.approx([0.982, -0.982])


def test_ppo_pays_the_kl_where_it_arises(make_batch):
    # without whitening, V = 0, lambda 1: A_t = R - .05 x sum of k1 from t on
    old = torch.tensor([[0.1, 0.2, 0.3]])
    batch = make_batch([1], old_BT=old, reference_BT=torch.zeros(1, 3), values_BT=torch.zeros(1, 3))
    preset = algorithm("ppo", {"finish": None, "estimator": {"name": "gae_tokens", "lam": 1.0}})
    assert update_of(preset, batch).advantage_BT[0].tolist() == pytest.approx([0.97, 0.975, 0.985])


def test_filtered_rows_have_no_advantage_and_still_count_in_the_denominator(make_batch):
    # gfpo-filter, k 2 of 3: rewards 1, 0 of the short ones: mean .5, population std .5: A = 1, -1; 2 + 3 + 5 tokens
    batch = make_batch([1, 0, 1], lengths=[2, 3, 5])
    preset = algorithm("gfpo-filter", {"row_filter": {"name": "shortest", "k": 2}})
    update = update_of(preset, batch)
    assert update.advantage_BT[:, 0].tolist() == pytest.approx([1, -1, 0], abs=1e-5)
    assert update.weight_B.tolist() == pytest.approx([0.1] * 3)


def test_cut_off_completions_gain_nothing_by_their_steps_and_keep_what_they_lose(make_batch):
    steps = [[0.9, 0.8], [0.9, -0.9], [0.5]]
    plain = make_batch([1, 0, 1], steps=steps, truncated_B=torch.tensor([False] * 3))
    cut = replace(plain, truncated_B=torch.tensor([True, True, False]))
    whole, found = (update_of(ALGORITHMS["rloo-min"], batch).process_BT for batch in (plain, cut))
    assert whole[0].max() > 0
    assert found[0].max() == 0
    assert whole[1].max() < 0
    assert torch.equal(found[1:], whole[1:])


def test_reference_rollouts_train_nothing_and_are_in_no_denominator(make_batch):
    batch = make_batch([1, 0, 0.25], is_reference_B=torch.tensor([False, False, True]))
    update = update_of(ALGORITHMS["remax"], batch)
    assert update.weight_B.tolist() == [0.5, 0.5, 0]
    assert not update.mask_BT[2].any()


def test_likelihood_is_averaged_over_the_tokens_of_right_rollouts(make_batch):
    # right rows have 2 + 4 tokens, mu .1: .1 / 6 each
    batch = make_batch([1, -1, 1], lengths=[2, 3, 4], correct_B=torch.tensor([1.0, 0, 1]), old_BT=torch.zeros(3, 4))
    update = update_of(ALGORITHMS["vapo-gae"], batch)
    assert update.likelihood_B.tolist() == pytest.approx([0.1 / 6, 0, 0.1 / 6])
    loss = policy_loss(ALGORITHMS["vapo-gae"], update, batch, torch.full((3, 4), -0.5, requires_grad=True))
    assert loss.parts["likelihood"] == pytest.approx(0.1 * 0.5)


def test_what_a_part_needs_and_the_batch_lacks_is_said(make_batch):
    with pytest.raises(UsageError, match="reward_penalty needs old_BT"):
        update_of(ALGORITHMS["rloo"], make_batch([1, 0]))
    update = update_of(ALGORITHMS["grpo"], make_batch([1, 0]))
    with pytest.raises(UsageError, match="divergence needs reference_BT"):
        policy_loss(ALGORITHMS["grpo"], update, make_batch([1, 0], old_BT=torch.zeros(2, 3)), torch.zeros(2, 3))


HONEST = ([0.8, 0.6, -0.8, -0.4], [6, 6, 6, 6])
"""Step scores and tokens of a wrong solution."""

GAMED = {
    "ten thousand separators": ([0.9] * 10_000 + HONEST[0], [1] * 10_000 + HONEST[1], True),
    "separators that fit": ([0.9] * 30 + HONEST[0], [1] * 30 + HONEST[1], False),
    "one huge step": ([-0.8], [24], False),  # a PRM that sees the error in it
    "answer, then filler": (HONEST[0] + [0.95] * 10, HONEST[1] + [3] * 10, False),
    "a repeated right step": ([0.8] * 6 + HONEST[0][1:], [6] * 6 + HONEST[1][1:], False),
}


@pytest.mark.parametrize("attack", GAMED)
def test_gaming_steps_gains_nothing_under_the_default_dense_preset(make_batch, attack):
    steps, lengths, cut_off = GAMED[attack]

    def advantage(own, own_lengths, truncated):
        batch = make_batch(
            [0.0, 1.0, 0.0, 1.0],
            steps=[own, [0.9, 0.8], [0.5, -0.6], [0.9, 0.7, 0.9]],
            step_lengths=[own_lengths, [6, 6], [6, 6], [6, 6, 6]],
            truncated_B=torch.tensor([truncated, False, False, False]),
            max_tokens=20_000,
        )
        return update_of(ALGORITHMS["rloo-min"], batch).advantage_BT[0, : sum(own_lengths)]

    honest, gamed = advantage(*HONEST, False), advantage(steps, lengths, cut_off)
    assert (gamed <= honest.max() + 1e-6).all()
    added_first = attack not in ("one huge step", "answer, then filler")
    original = gamed[-24:] if added_first else gamed[:24]
    assert (original <= honest + 1e-6).all()
    assert gamed[0] <= honest[0] + 1e-6
