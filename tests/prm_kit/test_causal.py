import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, GemmaConfig, GemmaForCausalLM, GPT2Config, GPT2LMHeadModel

from prm_kit.backbone import load_language_model, load_tokenizer
from prm_kit.causal import causal_from_backbone, check_product, load_causal
from prm_kit.checkpoints import load_own
from prm_kit.errors import InputError, UsageError
from prm_kit.model import Prm
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Solution

SOLUTIONS = [
    Solution.from_steps("3 + 4 ?", ["3 + 4 = 7", "so 7"], "\n"),
    Solution.from_steps("9 + 4 ?", ["so 9 + 4 = 12"], "\n"),
]


def next_token(model, encoded, ids):
    """Softmax over two tokens of the language model's own logits, at the marks: the published read-out."""
    with torch.inference_mode():
        logits = model(torch.tensor([encoded.ids])).logits[0]
    return logits[encoded.read_positions][:, list(ids)].softmax(-1)


@pytest.fixture
def trained(language_model):
    """As training would leave it: other rows for the two tokens, and another trunk."""
    prm = causal_from_backbone(language_model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in (prm.head.weight, *prm.trunk.parameters()):
            parameter.add_(0.05 * torch.randn_like(parameter))
    return prm


def test_it_says_what_the_language_model_says_of_the_two_tokens(language_model):
    prm = causal_from_backbone(language_model)
    model = load_language_model(language_model, torch.float32)
    wrong, right = prm.card.verdict_ids
    assert load_tokenizer(language_model).convert_ids_to_tokens([wrong, right]) == ["-", "+"]
    scores = PrmScorer(prm).score(SOLUTIONS)
    for encoded, score in zip(prm.encoder.encode(SOLUTIONS), scores, strict=True):
        expected = next_token(model, encoded, (wrong, right))
        found = torch.tensor(score.probabilities)
        torch.testing.assert_close(found[:, [0, 2]], expected, atol=1e-6, rtol=0)
        assert (found[:, 1] == 0).all()


def test_its_checkpoint_is_a_plain_language_model_with_the_same_scores(trained, tmp_path):
    trained.save(tmp_path / "prm")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "prm", dtype=torch.float32)
    before = PrmScorer(trained).score(SOLUTIONS)
    for encoded, score in zip(trained.encoder.encode(SOLUTIONS), before, strict=True):
        expected = next_token(plain, encoded, trained.card.verdict_ids)
        torch.testing.assert_close(torch.tensor(score.probabilities)[:, [0, 2]], expected, atol=1e-6, rtol=0)
    again = load_own(tmp_path / "prm")
    assert again.card == trained.card
    assert PrmScorer(again).score(SOLUTIONS) == before


def test_only_the_two_rows_of_the_output_layer_change_and_the_embeddings_are_let_go(trained, language_model, tmp_path):
    trained.save(tmp_path / "prm")
    before = load_file(f"{language_model}/model.safetensors")
    after = load_file(tmp_path / "prm/model.safetensors")
    changed = (after["lm_head.weight"] != before["model.embed_tokens.weight"]).any(dim=1).nonzero()[:, 0]
    assert sorted(changed.tolist()) == sorted(trained.card.verdict_ids)
    assert torch.equal(after["model.embed_tokens.weight"], trained.trunk.embed_tokens.weight)
    assert AutoConfig.from_pretrained(tmp_path / "prm").tie_word_embeddings is False


def test_the_rows_are_read_as_they_were_stored_when_the_trunk_is_rounded(trained, tmp_path):
    trained.save(tmp_path / "prm")
    again = load_causal(tmp_path / "prm", dtype=torch.bfloat16)
    assert again.trunk.dtype == torch.bfloat16
    assert torch.equal(again.head.weight, trained.head.weight)


def test_words_that_are_no_single_token_are_refused(language_model):
    with pytest.raises(UsageError, match=r"'right' is not one token"):
        causal_from_backbone(language_model, verdict_tokens=("-", "right"))
    with pytest.raises(UsageError, match=r"are the same token"):
        causal_from_backbone(language_model, verdict_tokens=("+", "+"))


def test_logits_that_are_more_than_a_product_are_refused(language_model):
    model = load_language_model(language_model, torch.float32)
    check_product(model, (3, 4))
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(UsageError, match=r"more than a product with the hidden state \(final_logit_softcapping\)"):
        check_product(model, (3, 4))


def test_another_family_is_read_as_well_and_one_whose_head_servers_do_not_know_is_refused(language_model, tmp_path):
    tokenizer = load_tokenizer(language_model)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8}
    gemma = GemmaConfig(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, **sizes)
    gpt2 = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=32)
    for name, model in (("gemma", GemmaForCausalLM(gemma)), ("gpt2", GPT2LMHeadModel(gpt2))):
        tokenizer.save_pretrained(tmp_path / name)
        model.save_pretrained(tmp_path / name)
    assert len(PrmScorer(causal_from_backbone(tmp_path / "gemma")).score(SOLUTIONS)) == 2
    with pytest.raises(UsageError, match=r"GPT2ForTokenClassification is not called `score`"):
        causal_from_backbone(tmp_path / "gpt2")


def test_a_trunk_without_an_output_layer_is_no_language_model(backbone):
    with pytest.raises(InputError, match=r"tensors are missing .* such as lm_head.weight"):
        load_language_model(backbone, torch.float32)


def test_a_checkpoint_that_is_something_else_is_refused(trained, tmp_path):
    path = tmp_path / "prm"
    trained.save(path)
    with pytest.raises(InputError, match=r"of the kind causal"):
        Prm.load(path)
    card = json.loads((path / "prm.json").read_text())
    (path / "prm.json").write_text(json.dumps(card | {"verdict_ids": [3, 4000]}))
    with pytest.raises(InputError, match=r"verdict_ids \(3, 4000\) are beyond the 30 outputs"):
        load_own(path)
    (path / "prm.json").write_text(json.dumps(card | {"verdict_ids": None}))
    with pytest.raises(InputError, match=r"not a causal PRM"):
        load_own(path)
