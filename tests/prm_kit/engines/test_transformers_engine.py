import math

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from prm_kit.engines.engine import Limits
from prm_kit.engines.transformers_engine import TransformersEngine, choose
from prm_kit.errors import UsageError
from prm_kit.tasks.arithmetic_policy import arithmetic_policy

PREFIXES = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14], [5, 6, 7, 8], [20]]
STOP = (1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = arithmetic_policy(0, hidden=16, layers=2).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0)  # far from uniform, so that a wrong position or mask shows
    return model


def plain_log_probabilities(model, prefix, ids, temperature=1.0):
    """One forward over prefix and continuation, no cache, no padding: the slow reference."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prefix, *ids]])).logits[0] / temperature
    return [logits[len(prefix) - 1 + i].log_softmax(-1)[token].item() for i, token in enumerate(ids)]


def test_log_probabilities_are_those_of_a_plain_forward(model):
    rollouts = TransformersEngine(model).generate(PREFIXES, 4, Limits(12, STOP, seed=1))
    for prefix, group in zip(PREFIXES, rollouts, strict=True):
        assert len(group) == 4
        for rollout in group:
            expected = plain_log_probabilities(model, prefix, rollout.ids)
            assert rollout.log_probabilities == pytest.approx(expected, abs=1e-5)


def test_alone_equals_batched(model):
    limits = Limits(12, STOP, seed=2)
    together = TransformersEngine(model).generate(PREFIXES, 3, limits)
    for max_rows in (1, 2, 3, 7):
        again = TransformersEngine(model, max_rows=max_rows).generate(PREFIXES, 3, limits)
        assert [[r.ids for r in group] for group in again] == [[r.ids for r in group] for group in together]
    for prefix, group in zip(PREFIXES, together, strict=True):
        alone = TransformersEngine(model).generate([prefix], 3, limits)[0]
        assert [r.ids for r in alone] == [r.ids for r in group]


def test_a_rollout_ends_at_its_first_stop_token_or_at_the_limit(model):
    rollouts = [r for g in TransformersEngine(model).generate(PREFIXES, 8, Limits(6, STOP, seed=0)) for r in g]
    assert {r.finish for r in rollouts} == {"stop", "length"}
    for rollout in rollouts:
        assert not set(rollout.ids[:-1]) & set(STOP)
        assert (rollout.ids[-1] in STOP) == (rollout.finish == "stop")
        assert len(rollout.ids) == 6 or rollout.finish == "stop"
        assert len(rollout.ids) == len(rollout.log_probabilities)


def test_temperature_0_takes_the_likeliest_token_of_a_plain_forward(model):
    rollouts = TransformersEngine(model).generate(PREFIXES, 2, Limits(8, (1,), temperature=0.0))
    for prefix, (first, second) in zip(PREFIXES, rollouts, strict=True):
        assert first == second
        ids = list(prefix)
        for token in first.ids:
            with torch.inference_mode():
                assert int(model(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)


def test_the_seed_fixes_the_rollouts_and_samples_differ(model):
    engine = TransformersEngine(model)
    first = engine.generate(PREFIXES[:2], 4, Limits(8, (1,), seed=5))
    torch.manual_seed(99)  # the global generator has no part in it
    assert engine.generate(PREFIXES[:2], 4, Limits(8, (1,), seed=5)) == first
    assert engine.generate(PREFIXES[:2], 4, Limits(8, (1,), seed=6)) != first
    assert len({rollout.ids for rollout in first[0]}) > 1


def test_tokens_are_drawn_as_often_as_their_probability_says():
    # p = (0.5, 0.3, 0, 0.2) at temperature 1; at 0.5 the squares 0.25 : 0.09 : 0 : 0.04
    logits_V = torch.tensor([0.5, 0.3, 0.0, 0.2]).log()
    uniform_B = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    token_B, log_probability_B = choose(logits_V.expand(1000, 4), uniform_B, 1.0)
    assert torch.bincount(token_B, minlength=4).tolist() == [500, 300, 0, 200]
    assert log_probability_B[0].item() == pytest.approx(math.log(0.5), abs=1e-6)
    token_B, log_probability_B = choose(logits_V.expand(1000, 4), uniform_B, 0.5)
    counts = torch.bincount(token_B, minlength=4).tolist()
    assert counts == pytest.approx([658, 237, 0, 105], abs=1)
    assert log_probability_B[0].item() == pytest.approx(math.log(0.5), abs=1e-6)  # the model's own, not the tempered


@pytest.mark.parametrize("size", [3, 128, 129, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_token_is_what_inverting_the_whole_distribution_in_float64_gives(size, temperature):
    generator = torch.Generator().manual_seed(size)
    logits_BV = torch.randn(400, size, generator=generator) * 3
    uniform_B = torch.rand(400, generator=generator, dtype=torch.float64)
    token_B, log_probability_B = choose(logits_BV, uniform_B, temperature)
    cumulative_BV = (logits_BV.double() / temperature).softmax(-1).cumsum(-1)
    assert torch.equal(token_B, (cumulative_BV <= uniform_B[:, None]).sum(-1))
    expected_B = logits_BV.log_softmax(-1).gather(1, token_B[:, None])[:, 0]
    assert torch.allclose(log_probability_B, expected_B, atol=1e-6)


def test_a_rare_token_in_the_shadow_of_a_likely_one_is_not_lost():
    # 0.999999 beside a million tokens that share the rest: in float32 a running sum near 1 would swallow each of them
    logits_V = torch.full((1_000_001,), 1e-12).log()
    logits_V[0] = math.log(1 - 1e-6)
    uniform_B = 1 - 1e-6 + torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64) * 1e-6
    token_B, _ = choose(logits_V.expand(3, -1), uniform_B, 1.0)
    assert token_B.tolist() == pytest.approx([100_000, 500_000, 900_000], abs=80_000)


def test_a_model_whose_logits_are_not_numbers_shows_in_the_log_probabilities():
    _, log_probability_B = choose(torch.full((2, 200), torch.nan), torch.tensor([0.1, 0.9], dtype=torch.float64), 1.0)
    assert log_probability_B.isnan().all()


def test_a_uniform_number_next_to_1_never_draws_a_token_without_weight():
    logits_BV = torch.tensor([[0.0, 1.0, -torch.inf, -torch.inf]])
    token_B, _ = choose(logits_BV, torch.tensor([1.0 - 2**-53], dtype=torch.float64), 1.0)
    assert token_B.tolist() == [1]


def test_the_training_mode_is_put_back(model):
    model.train()
    TransformersEngine(model).generate([[5]], 1, Limits(2, (1,)))
    assert model.training
    model.eval()


def test_what_cannot_be_continued_is_refused(model):
    engine = TransformersEngine(model)
    with pytest.raises(UsageError, match="prefix 1 has no tokens"):
        engine.generate([[5], []], 1, Limits(2, (1,)))
    with pytest.raises(UsageError, match="at least 1"):
        engine.generate([[5]], 0, Limits(2, (1,)))
    with pytest.raises(UsageError, match="max_new_tokens"):
        Limits(0, (1,))
    with pytest.raises(UsageError, match="temperature"):
        Limits(1, (1,), temperature=float("nan"))
    assert engine.generate([], 1, Limits(2, (1,))) == []


@pytest.mark.parametrize("window", [False, True])
def test_rows_that_leave_early_leave_the_others_as_they_were(window):
    torch.manual_seed(0)
    options = {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1} if window else {}
    config = Qwen2Config(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        **options,
    )
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0)
    limits = Limits(14, (1, 2, 3), seed=4)
    together = TransformersEngine(model).generate([[5, 6, 7], [8, 9]], 9, limits)
    assert len({len(rollout.ids) for group in together for rollout in group}) > 3
    for prefix, group in zip([[5, 6, 7], [8, 9]], together, strict=True):
        for rollout in group:
            expected = plain_log_probabilities(model, prefix, rollout.ids)
            assert rollout.log_probabilities == pytest.approx(expected, abs=1e-4)
