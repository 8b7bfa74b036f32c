import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from prm_kit.errors import InputError, UsageError
from prm_kit.model import Prm
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Solution
from prm_kit.serve.exports import QWEN_MARK, export
from prm_kit.serve.golden import golden_items, read_golden, samples, write_golden


def saved(prm: Prm, path) -> str:
    with torch.no_grad():
        prm.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    prm.save(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(backbone, tmp_path_factory):
    return saved(Prm.from_backbone(backbone), tmp_path_factory.mktemp("prm") / "checkpoint")


def test_golden_scores_are_the_scorers_and_survive_the_file(checkpoint, tmp_path):
    prm = Prm.load(checkpoint)
    assert write_golden(prm, tmp_path) == 16
    items = read_golden(tmp_path / "golden.jsonl")
    assert items == golden_items(prm)
    solutions = [Solution(item.problem, item.completion, tuple(item.spans)) for item in items]
    assert solutions == samples()
    assert {len(solution.spans) for solution in solutions} == {1, 2, 3, 4}
    for item, scores, one in zip(items, PrmScorer(prm).score(solutions), prm.encoder.encode(solutions), strict=True):
        assert (item.ids, item.read_positions) == (one.ids, one.read_positions)
        assert [prm.card.mark_id] * len(item.spans) == [item.ids[position] for position in item.read_positions]
        assert item.probabilities == list(scores.probabilities)
        assert [pytest.approx(row, abs=1e-6) for row in item.outputs] == [list(p) for p in scores.probabilities]


def test_samples_beyond_the_longest_sequence_are_left_out(checkpoint):
    prm = Prm.load(checkpoint)
    shortest = min(len(item.ids) for item in golden_items(prm))
    prm.card = prm.card.model_copy(update={"max_tokens": shortest})
    assert {len(item.ids) for item in golden_items(prm)} == {shortest}


@pytest.mark.parametrize("text", [None, "", "{", '{"ids": []}'])
def test_a_golden_file_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "golden.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match="golden"):
        read_golden(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"golden\.jsonl: no UTF-8 text"):
        read_golden(path)


@pytest.mark.parametrize(
    ("target", "architecture"),
    [("vllm", "Qwen2ForTokenClassification"), ("sglang", "Qwen2ForSequenceClassification")],
)
def test_exports_are_the_same_weights_under_another_line(checkpoint, tmp_path, target, architecture):
    done = export(target, checkpoint, tmp_path / "out")
    config = json.loads((done.out / "config.json").read_text())
    before = json.loads((checkpoint / "config.json").read_text())
    assert config == before | {"architectures": [architecture], "prm": config["prm"]}
    assert config["prm"]["mark_id"] == 2
    weights = done.out / "model.safetensors"
    assert weights.samefile(checkpoint / "model.safetensors")
    assert not load_file(weights)["score.bias"].any()  # stored, and zero
    assert done.golden == len(read_golden(done.out / "golden.jsonl"))
    item = read_golden(done.out / "golden.jsonl")[3]
    model = AutoModelForTokenClassification.from_pretrained(done.out)  # goes by the family, not by the line
    logits = model(torch.tensor([item.ids])).logits[0, item.read_positions]
    torch.testing.assert_close(logits.softmax(-1), torch.tensor(item.outputs), rtol=0, atol=1e-6)


def test_the_commands_say_where_steps_are_read_and_notes_what_the_server_leaves_out(checkpoint, tmp_path):
    prm = Prm.load(checkpoint)
    prm.card = prm.card.model_copy(update={"temperature": 1.5})
    prm.save(tmp_path / "warm")
    done = export("vllm", tmp_path / "warm", tmp_path / "out")
    assert """--pooler-config '{"tok_pooling_type": "STEP", "step_tag_id": 2}'""" in done.command
    assert done.notes == ("the server does not divide by the card's temperature 1.5",)
    item = golden_items(prm)[0]
    assert item.outputs[0] != pytest.approx(list(item.probabilities[0]))  # with and without the temperature


def extra_0_prm(readout: str) -> Prm:
    mark, index = QWEN_MARK
    words = ["[UNK]", "[PAD]", *map(str, range(20)), "+", "is", "What"]
    backend = Tokenizer(models.WordLevel({**{word: n for n, word in enumerate(words)}, mark: index}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", extra_special_tokens=[mark]
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = Qwen2Config(vocab_size=index + 1, num_key_value_heads=1, max_position_embeddings=128, **sizes)
    return Prm.from_backbone(Qwen2ForCausalLM(config), tokenizer, readout=readout, neutral_policy="negative")


@pytest.mark.parametrize("readout", ["binary", "sigmoid"])
def test_two_classes_become_vllms_qwen_prm_exactly(readout, tmp_path):
    checkpoint = saved(extra_0_prm(readout), tmp_path / "prm")
    done = export("vllm-qwen-prm", checkpoint, tmp_path / "out")
    config = json.loads((done.out / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForProcessRewardModel"]
    index = json.loads((done.out / "model.safetensors.index.json").read_text())["weight_map"]
    tensors = {name: load_file(done.out / file)[name] for name, file in index.items()}
    kept = load_file(checkpoint / "model.safetensors")
    assert set(tensors) - set(kept) == {f"score.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")}
    assert set(kept) - set(tensors) == {"score.weight", "score.bias"}
    trunk = Prm.load(checkpoint).trunk
    for item in read_golden(done.out / "golden.jsonl")[:4]:
        with torch.no_grad():
            hidden = trunk(input_ids=torch.tensor([item.ids])).last_hidden_state[0, item.read_positions]
        inner = (hidden @ tensors["score.0.weight"].T + tensors["score.0.bias"]).relu()
        two = (inner @ tensors["score.2.weight"].T + tensors["score.2.bias"]).softmax(-1)
        torch.testing.assert_close(two, torch.tensor(item.outputs), rtol=0, atol=1e-6)
        right = torch.tensor([p[2] for p in item.probabilities])
        torch.testing.assert_close(two[:, 1], right, rtol=0, atol=1e-6)


def test_what_a_server_cannot_express_is_refused_by_name(backbone, checkpoint, tmp_path):
    with pytest.raises(UsageError, match="Qwen2ForProcessRewardModel cannot express three classes"):
        export("vllm-qwen-prm", checkpoint, tmp_path / "out")
    two = Prm.from_backbone(backbone, readout="binary", neutral_policy="negative")
    two.save(tmp_path / "two")
    with pytest.raises(UsageError, match=r"reads at <extra_0> \(id 151651\), not at <\|prm_step\|> \(id 2\)"):
        export("vllm-qwen-prm", tmp_path / "two", tmp_path / "out")
    with pytest.raises(UsageError, match="unknown target 'vlm'"):
        export("vlm", checkpoint, tmp_path / "out")
    with pytest.raises(UsageError, match="is the checkpoint itself"):
        export("vllm", checkpoint, checkpoint)
    ordinal = Prm.from_backbone(backbone, readout="ordinal")
    ordinal.save(tmp_path / "ordinal")
    with pytest.raises(UsageError, match="vLLM cannot express the read-out 'ordinal'"):
        export("vllm", tmp_path / "ordinal", tmp_path / "out")
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    config["architectures"] = ["GptOssForTokenClassification"]
    (tmp_path / "two" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="SGLang cannot serve GptOssForTokenClassification"):
        export("sglang", tmp_path / "two", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_bias_is_refused_where_the_server_would_leave_it_at_random(backbone, tmp_path):
    prm = Prm.from_backbone(backbone)
    with torch.no_grad():
        prm.head.bias.fill_(0.5)
    prm.save(tmp_path / "prm")
    with pytest.raises(UsageError, match="bias must be stored and zero"):
        export("sglang", tmp_path / "prm", tmp_path / "out")


def test_a_head_without_a_bias_is_refused_by_the_tensors_name(tmp_path):
    checkpoint = saved(extra_0_prm("binary"), tmp_path / "prm")
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["score.bias"]
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    for target in ("vllm", "vllm-qwen-prm", "sglang"):
        with pytest.raises(InputError, match=r"score\.bias"):
            export(target, checkpoint, tmp_path / "out")


def test_an_export_replaces_checkpoints_alone(checkpoint, tmp_path):
    export("vllm", checkpoint, tmp_path / "out")
    export("sglang", checkpoint, tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    for out in (tmp_path / "other", tmp_path / "other" / "thesis.txt"):
        with pytest.raises(UsageError, match="exists and is no PRM checkpoint"):
            export("vllm", checkpoint, out)
    assert (tmp_path / "other" / "thesis.txt").read_text() == "years of work"
