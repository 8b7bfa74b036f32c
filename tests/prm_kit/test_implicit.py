import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import prm_kit.implicit as module
from prm_kit.checkpoints import load_own
from prm_kit.encode import TooLongError
from prm_kit.errors import InputError, UsageError
from prm_kit.implicit import implicit_from_backbone, log_probabilities_at
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Solution

SOLUTIONS = [
    Solution.from_steps("3 + 4 ?", ["3 + 4 = 7", "so 7"], "\n"),
    Solution.from_steps("9 + 4 + 1 ?", ["so 9 + 4 = 12", "again", "12 + 1 = 13"], "\n"),
    Solution.from_steps("5 ?", ["5"], "\n"),
]


@pytest.fixture
def prm(language_model):
    """A language model that has moved away from its reference."""
    prm = implicit_from_backbone(language_model, beta=0.5)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in prm.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return prm


def slow_rewards(prm, solution: Solution) -> list[float]:
    """Token by token over the text of problem and steps, with whole log-softmaxes."""

    def encode(text: str) -> list[int]:
        return prm.tokenizer.encode(text, add_special_tokens=False)

    ids = encode(solution.problem) + encode("\n")
    reward, found, previous = 0.0, [], 0
    for _, end in solution.spans:
        for token in encode(solution.completion[previous:end]):
            for model, sign in ((prm.model, 1), (prm.reference, -1)):
                with torch.inference_mode():
                    logits = model(torch.tensor([ids])).logits[0, -1].double()
                reward += sign * prm.beta * torch.log_softmax(logits, -1)[token].item()
            ids = [*ids, token]
        previous = end
        found.append(reward)
    return found


def test_a_steps_score_is_the_log_ratio_of_everything_up_to_its_end(prm):
    for solution, score in zip(SOLUTIONS, PrmScorer(prm).score(SOLUTIONS), strict=True):
        assert score.probabilities == (None,) * len(solution.spans)
        assert not score.is_bounded
        assert list(score.values) == pytest.approx(slow_rewards(prm, solution), abs=1e-5)


def test_differences_sum_to_the_reward_of_the_whole(prm):
    cumulative = PrmScorer(prm).score(SOLUTIONS)
    prm.card = prm.card.model_copy(update={"step_score": "difference"})
    for whole, parts in zip(cumulative, PrmScorer(prm).score(SOLUTIONS), strict=True):
        assert sum(parts.values) == pytest.approx(whole.values[-1], abs=1e-6)
        assert parts.values[0] == whole.values[0]


def test_a_model_that_is_its_own_reference_rewards_nothing(language_model):
    for score in PrmScorer(implicit_from_backbone(language_model)).score(SOLUTIONS):
        assert all(value == 0 for value in score.values)


def test_scores_are_the_same_alone_and_in_a_batch(prm):
    together = PrmScorer(prm, token_budget=10_000).score(SOLUTIONS)
    alone = [PrmScorer(prm).score([solution])[0] for solution in SOLUTIONS]
    for one, other in zip(together, alone, strict=True):
        assert list(one.values) == pytest.approx(list(other.values), abs=1e-6)


def test_no_mark_is_shown_and_a_step_is_read_at_its_own_last_token(prm):
    [encoded] = prm.encoder.encode(SOLUTIONS[:1])
    words = prm.tokenizer.convert_ids_to_tokens(encoded.ids)
    assert prm.card.reading.mark not in words
    assert [words[position] for position in encoded.read_positions] == ["7", "7"]
    assert words[encoded.prompt_length :][:5] == ["3", "+", "4", "=", "7"]


def test_its_checkpoint_is_a_plain_language_model_with_its_reference_beside_it(prm, tmp_path):
    prm.save(tmp_path / "prm")
    again = load_own(tmp_path / "prm")
    assert again.card == prm.card
    assert PrmScorer(again).score(SOLUTIONS) == PrmScorer(prm).score(SOLUTIONS)
    plain, reference = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("prm", "prm/reference"))
    ids = torch.tensor([[3, 4, 5]])
    torch.testing.assert_close(plain(ids).logits, prm.model(ids).logits)
    torch.testing.assert_close(reference(ids).logits, prm.reference(ids).logits)


@given(st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_log_probabilities_and_their_gradient_are_the_same_in_pieces(tokens, seed):
    torch.manual_seed(seed)
    layer, hidden = torch.nn.Linear(4, 7, bias=False), torch.randn(tokens, 4, requires_grad=True)
    token = torch.randint(0, 7, (tokens,))
    expected = torch.log_softmax(layer(hidden), -1).gather(-1, token[:, None])[:, 0]
    wanted = torch.autograd.grad(expected.sum(), [hidden, layer.weight])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE", 21)  # three tokens a piece
        found = log_probabilities_at(layer, hidden, token, 7)
    torch.testing.assert_close(found, expected)
    for one, other in zip(torch.autograd.grad(found.sum(), [hidden, layer.weight]), wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_no_piece_is_larger_than_allowed(prm, monkeypatch):
    monkeypatch.setattr(module, "_PIECE", 60)
    sizes = []
    prm.model.lm_head.register_forward_hook(lambda _, inputs, output: sizes.append(output.numel()))
    PrmScorer(prm, token_budget=10_000).score(SOLUTIONS)
    assert max(sizes) <= 60
    assert sum(sizes) > 60


def test_a_solution_beyond_the_limit_is_refused_not_cut(prm):
    prm.card = prm.card.model_copy(update={"max_tokens": 15})
    with pytest.raises(TooLongError, match=SOLUTIONS[1].id):
        PrmScorer(prm, too_long="window").score(SOLUTIONS)


def test_what_does_not_belong_together_is_refused(prm, backbone, language_model, tmp_path):
    with pytest.raises(UsageError, match=r"where each solution begins"):
        prm.read_logits(torch.zeros(1, 3, dtype=torch.long), None, torch.zeros(1).long(), torch.zeros(1).long())
    prm.save(tmp_path / "prm")
    card = json.loads((tmp_path / "prm/prm.json").read_text())
    (tmp_path / "prm/prm.json").write_text(json.dumps(card | {"beta": None}))
    with pytest.raises(InputError, match=r"not an implicit PRM with its beta"):
        load_own(tmp_path / "prm")
    (tmp_path / "prm/prm.json").write_text(json.dumps(card))
    stored = load_file(tmp_path / "prm/reference/model.safetensors")
    stored.pop("model.norm.weight")
    save_file(stored, tmp_path / "prm/reference/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"reference: 1 tensors are missing .* model.norm.weight"):
        load_own(tmp_path / "prm")


def test_a_reference_of_another_vocabulary_is_refused(language_model, tmp_path):
    other = implicit_from_backbone(language_model)
    other.tokenizer.add_tokens(["more"])
    other.model.save_pretrained(tmp_path)
    other.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"vocabulary is not that of"):
        implicit_from_backbone(language_model, reference=tmp_path)
