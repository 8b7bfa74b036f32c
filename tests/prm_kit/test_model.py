import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForTokenClassification,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from prm_kit.card import PrmCard, read_card
from prm_kit.errors import InputError, UsageError
from prm_kit.model import Prm
from prm_kit.records import Solution
from prm_kit.step_reading import NEW_MARK, PromptTemplate, StepReading

WORDS = ["[UNK]", "[PAD]", "<|step|>", "<|other|>", *map(str, range(10)), "+", "=", "so", "\n"]
SOLUTION = Solution.from_steps("1 + 2", ["1 + 2 = 3", "so 3"], " ")
SHAPE = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def make_tokenizer(words: list[str] = WORDS, special: tuple[str, ...] = ("<|step|>",)) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", extra_special_tokens=list(special)
    )


def make_causal(family: str = "qwen2") -> torch.nn.Module:
    config_class, model_class = FAMILIES[family]
    torch.manual_seed(0)
    return model_class(config_class(**SHAPE))


def logits(prm: Prm, solution: Solution = SOLUTION) -> torch.Tensor:
    (one,) = prm.encoder.encode([solution])
    position_N = torch.tensor(one.read_positions)
    with torch.no_grad():
        return prm.read_logits(torch.tensor([one.ids]), None, torch.zeros_like(position_N), position_N)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    Prm.from_backbone(make_causal(), make_tokenizer()).save(tmp_path / "prm")
    return tmp_path / "prm"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_loads_with_plain_transformers_and_gives_equal_logits(tmp_path, family):
    prm = Prm.from_backbone(make_causal(family), make_tokenizer(), seed=3)
    prm.save(tmp_path / "prm")
    loaded = Prm.load(tmp_path / "prm")
    plain = AutoModelForTokenClassification.from_pretrained(tmp_path / "prm")
    (one,) = prm.encoder.encode([SOLUTION])
    with torch.no_grad():
        plain_NK = plain(input_ids=torch.tensor([one.ids])).logits[0, one.read_positions]
    torch.testing.assert_close(logits(loaded), logits(prm), atol=0, rtol=0)
    torch.testing.assert_close(plain_NK, logits(prm), atol=1e-6, rtol=1e-6)
    assert loaded.card == prm.card
    assert not loaded.head.bias.requires_grad
    assert loaded.head.weight.dtype == torch.float32


def test_the_checkpoint_says_what_servers_need(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForTokenClassification"]
    assert config["id2label"] == {"0": "-1", "1": "0", "2": "+1"}
    assert (config["classifier_dropout"], config["pad_token_id"]) == (0.0, 1)
    assert "auto_map" not in config
    with safe_open(checkpoint / "model.safetensors", framework="pt") as tensors:
        assert {key.split(".")[0] for key in tensors.keys()} == {"model", "score"}  # noqa: SIM118
        assert tensors.get_tensor("score.bias").tolist() == [0, 0, 0]
        assert tensors.get_tensor("score.weight").dtype == torch.float32
    card = json.loads((checkpoint / "prm.json").read_text())
    assert (card["mark_id"], card["labels"], card["neutral_policy"]) == (2, [-1, 0, 1], "keep")
    assert card["reading"] == {"mark": "<|step|>", "template": {"before": "", "after": "\n"}}


def test_the_head_is_seeded_and_starts_near_even_odds():
    prm, same, other = (Prm.from_backbone(make_causal(), make_tokenizer(), seed=seed) for seed in (5, 5, 6))
    assert torch.equal(prm.head.weight, same.head.weight)
    assert not torch.equal(prm.head.weight, other.head.weight)
    assert (logits(prm).softmax(-1) - 1 / 3).abs().max() < 0.2


def test_training_the_prm_leaves_the_policy_it_came_from_alone():
    causal, tokenizer = make_causal(), make_tokenizer()
    before = {name: weight.clone() for name, weight in causal.state_dict().items()}
    prm = Prm.from_backbone(causal, tokenizer)
    logits_NK = prm.read_logits(torch.tensor([[4, 2]]), None, torch.tensor([0]), torch.tensor([1]))
    logits_NK.sum().backward()
    torch.optim.SGD(prm.model.parameters(), lr=1.0).step()
    assert all(torch.equal(weight, before[name]) for name, weight in causal.state_dict().items())
    assert causal.config.num_labels == 2
    assert prm.tokenizer is not tokenizer


def test_padding_on_the_right_changes_no_logit():
    prm = Prm.from_backbone(make_causal(), make_tokenizer())
    (one,) = prm.encoder.encode([SOLUTION])
    ids_BT = torch.tensor([one.ids + [1] * 5, [4] * (len(one.ids) + 5)])
    mask_BT = torch.tensor([[1] * len(one.ids) + [0] * 5, [1] * (len(one.ids) + 5)])
    position_N = torch.tensor(one.read_positions)
    with torch.no_grad():
        padded_NK = prm.read_logits(ids_BT, mask_BT, torch.zeros_like(position_N), position_N)
    torch.testing.assert_close(padded_NK, logits(prm), atol=1e-5, rtol=0)


def test_a_mark_that_the_vocabulary_lacks_is_added_and_the_embeddings_grow(tmp_path):
    reading = StepReading(mark=NEW_MARK, template=PromptTemplate(before="", after="\n"))
    tokenizer = make_tokenizer()
    prm = Prm.from_backbone(make_causal(), tokenizer, reading=reading)
    rows = prm.model.get_input_embeddings().weight
    assert prm.card.mark_id == len(WORDS)
    assert rows.shape[0] == len(WORDS) + 1
    torch.testing.assert_close(rows[-1], rows[:-1].mean(0))
    assert NEW_MARK not in tokenizer.get_vocab()
    prm.save(tmp_path / "prm")
    torch.testing.assert_close(logits(Prm.load(tmp_path / "prm")), logits(prm))


def test_bfloat16_keeps_the_head_as_it_was_stored(checkpoint):
    whole, half = Prm.load(checkpoint), Prm.load(checkpoint, dtype=torch.bfloat16)
    assert half.trunk.norm.weight.dtype == torch.bfloat16
    assert torch.equal(half.head.weight, whole.head.weight)
    assert half.head.bias.tolist() == [0, 0, 0]
    torch.testing.assert_close(logits(half), logits(whole), atol=0.05, rtol=0)


def test_a_backbone_directory_gives_the_same_prm_as_the_built_model(tmp_path):
    causal, tokenizer = make_causal(), make_tokenizer()
    causal.save_pretrained(tmp_path / "backbone")
    tokenizer.save_pretrained(tmp_path / "backbone")
    prm = Prm.from_backbone(tmp_path / "backbone", max_tokens=7)
    assert torch.equal(logits(prm), logits(Prm.from_backbone(causal, tokenizer)))
    assert (prm.card.max_tokens, prm.card.base_model) == (7, str(tmp_path / "backbone"))


def test_a_tokenizer_beside_a_qwen2_configuration_is_loaded_as_its_file_says(checkpoint):
    # AutoTokenizer would take Qwen2's own byte-level pipeline for it, because of the model type
    loaded = Prm.load(checkpoint)
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.encoder.encode([SOLUTION])[0].ids[:4]) == ["1", "+", "2", "\n"]


def test_families_whose_head_servers_could_not_load_are_refused():
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(UsageError, match="not called `score`"):
        Prm.from_backbone(gpt2, make_tokenizer())
    bert = BertModel(BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    with pytest.raises(UsageError, match="not called `score`"):
        Prm.from_backbone(bert, make_tokenizer())
    with pytest.raises(UsageError, match="needs its tokenizer"):
        Prm.from_backbone(make_causal())
    with pytest.raises(InputError, match="backbone cannot be loaded"):
        Prm.from_backbone("/nowhere/at/all")


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def without_weight(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def only_pickle(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def other_tokenizer(path: Path) -> None:
    words = [*WORDS[:2], WORDS[3], WORDS[2], *WORDS[4:]]
    make_tokenizer(words).save_pretrained(path)


def same_mark_other_words(path: Path) -> None:
    make_tokenizer([*WORDS[:5], "other", *WORDS[6:]]).save_pretrained(path)


DAMAGE = {
    "prm.json is missing": lambda path: (path / "prm.json").unlink(),
    "prm.json: Invalid JSON": lambda path: (path / "prm.json").write_text("{"),
    "neutral_policy: Input should be 'keep'": lambda path: change(path / "prm.json", neutral_policy="fold"),
    "prm.json: colour: Extra": lambda path: change(path / "prm.json", colour="red"),
    r"labels \(1, 0, -1\) are not": lambda path: change(path / "prm.json", labels=[1, 0, -1]),
    "safetensors; pytorch_model.bin is a pickle": only_pickle,
    "safetensors; there are none": lambda path: (path / "model.safetensors").unlink(),
    "damaged or truncated": lambda path: (path / "model.safetensors").write_bytes(b"\xff" * 64),
    "1 tensors are missing.* model.norm.weight": without_weight,
    "config.json: the checkpoint brings its own code": lambda path: change(path / "config.json", auto_map={"A": "b.C"}),
    "tokenizer_config.json: the checkpoint brings its own code": lambda path: change(
        path / "tokenizer_config.json", auto_map={"A": "b.C"}
    ),
    "config.json: cannot be read": lambda path: (path / "config.json").write_text("[[["),
    "id2label": lambda path: change(path / "config.json", id2label={"0": "+1", "1": "0", "2": "-1"}),
    "is token 3 of the tokenizer, but 2 in prm.json": other_tokenizer,
    "tokenizer gives other ids": same_mark_other_words,
    "no special token of this tokenizer": lambda path: make_tokenizer(special=()).save_pretrained(path),
    "has no head|another shape|cannot be loaded": lambda path: change(path / "config.json", vocab_size=10**12),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_damaged_or_foreign_checkpoint_is_refused_with_the_reason(checkpoint, reason):
    DAMAGE[reason](checkpoint)
    with pytest.raises(InputError, match=reason):
        Prm.load(checkpoint)


def test_the_card_is_read_without_the_weights(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    assert read_card(checkpoint) == PrmCard.model_validate_json((checkpoint / "prm.json").read_bytes())


def test_saving_replaces_a_checkpoint_as_a_whole(checkpoint):
    (checkpoint / "stray").write_text("")
    prm = Prm.load(checkpoint)
    prm.card = prm.card.model_copy(update={"training_data": ("abc",)})
    prm.save(checkpoint)
    assert not (checkpoint / "stray").exists()
    assert Prm.load(checkpoint).card.training_data == ("abc",)
