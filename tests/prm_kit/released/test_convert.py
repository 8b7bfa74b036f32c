import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForTokenClassification,
    LlamaForCausalLM,
    MistralForCausalLM,
    MistralModel,
    Qwen2ForCausalLM,
    Qwen2ForTokenClassification,
    Qwen2Model,
)

from prm_kit.causal import causal_from_backbone
from prm_kit.errors import InputError, UsageError
from prm_kit.model import Prm
from prm_kit.prm_scorer import PrmScorer
from prm_kit.released import convert
from prm_kit.released.convert import SAMPLES, convert_prm
from prm_kit.released.registry import FAMILIES, load_prm
from prm_kit.serve.exports import export

CAUSAL = {
    "math-shepherd": ("mistral", MistralForCausalLM, "mistral"),
    "math-psa": ("qwen2", Qwen2ForCausalLM, "qwen"),
    "versaprm": ("llama", LlamaForCausalLM, "llama3"),
    "rlhflow": ("llama", LlamaForCausalLM, "llama3"),
    "trl": ("qwen2", Qwen2ForTokenClassification, "qwen"),
    "pure": ("qwen2", Qwen2ForTokenClassification, "qwen"),
}


@pytest.fixture
def source(tmp_path, request, config_of, save_twin, qwen):
    def make(family):
        torch.manual_seed(0)
        if family == "skywork":
            config = config_of("qwen2", qwen)
            head = torch.nn.Linear(16, 1)
            tensors = {f"model.{key}": tensor for key, tensor in Qwen2Model(config).state_dict().items()}
            tensors |= {f"v_head.summary.{key}": tensor for key, tensor in head.state_dict().items()}
            return save_twin(tmp_path / "source", config, tensors, qwen)
        kind, model, tokenizer = CAUSAL[family]
        tokenizer = request.getfixturevalue(tokenizer)
        changes = {"num_labels": 2} if family in ("trl", "pure") else {}
        model(config_of(kind, tokenizer, **changes)).save_pretrained(tmp_path / "source")
        tokenizer.save_pretrained(tmp_path / "source")
        return tmp_path / "source"

    return make


@pytest.mark.parametrize("family", [*CAUSAL, "skywork"])
def test_the_converted_checkpoint_gives_the_published_scores(family, source, tmp_path, solutions):
    published = load_prm(source(family), family=family)
    done = convert_prm(tmp_path / "source", tmp_path / "out", family=family)
    assert (done.family, done.readout) == (family, "sigmoid" if family == "skywork" else "binary")
    assert done.difference <= 1e-6
    ours = load_prm(tmp_path / "out")
    assert type(ours.prm) is Prm
    for one, other in zip(published.score([*solutions, *SAMPLES]), ours.score([*solutions, *SAMPLES]), strict=True):
        assert other.values == pytest.approx(one.values, abs=1e-6)
    plain = AutoModelForTokenClassification.from_pretrained(tmp_path / "out")
    assert plain.config.architectures[0].endswith("ForTokenClassification")
    (encoded,) = ours.prm.encoder.encode(solutions[:1])
    with torch.no_grad():
        logits = plain(input_ids=torch.tensor([encoded.ids])).logits[0, encoded.read_positions]
    right = logits[:, 0].sigmoid() if family == "skywork" else logits.softmax(-1)[:, 1]
    assert [p[2] for p in published.score(solutions[:1])[0].probabilities] == pytest.approx(right.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("head", "outputs", "readout"), [("score_head", 3, "classes"), ("v_head.summary", 1, "unbounded")]
)
def test_heads_without_a_mark_or_without_bounds_are_converted_as_they_are(
    head, outputs, readout, tmp_path, config_of, save_twin, mistral, solutions
):
    tokenizer = type(mistral)(tokenizer_object=mistral.backend_tokenizer, unk_token="<unk>", bos_token="<s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["[PRM]"]} if outputs == 1 else {"pad_token": "<s>"})
    config = config_of("mistral", tokenizer, score_dimension=3)
    torch.manual_seed(0)
    trunk, layer = MistralModel(config), torch.nn.Linear(16, outputs)
    tensors = {f"model.{key}": tensor for key, tensor in trunk.state_dict().items()}
    tensors |= {f"{head}.{key}": tensor for key, tensor in layer.state_dict().items()}
    save_twin(tmp_path / "source", config, tensors, tokenizer)
    published = load_prm(tmp_path / "source").score(solutions)
    assert convert_prm(tmp_path / "source", tmp_path / "out").readout == readout
    ours = load_prm(tmp_path / "out").score(solutions)
    assert [one.values for one in ours] == [pytest.approx(one.values, abs=1e-6) for one in published]
    assert ours[0].is_bounded is (outputs == 3)


def test_the_number_format_stays_as_it_is_stored(tmp_path, config_of, llama3, solutions):
    torch.manual_seed(0)
    LlamaForCausalLM(config_of("llama", llama3)).to(torch.bfloat16).save_pretrained(tmp_path / "source")
    llama3.save_pretrained(tmp_path / "source")
    assert convert_prm(tmp_path / "source", tmp_path / "out", family="versaprm").difference <= 1e-6
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert stored["model.layers.0.mlp.up_proj.weight"].dtype == torch.bfloat16
    assert stored["score.weight"].dtype == torch.float32
    one, other = (
        load_prm(tmp_path / name, family=family, dtype=torch.bfloat16).score(solutions)
        for name, family in (("source", "versaprm"), ("out", None))
    )
    assert one == other


def test_a_causal_prm_of_ours_is_converted_too(tmp_path, config_of, qwen):
    Qwen2ForCausalLM(config_of("qwen2", qwen)).save_pretrained(tmp_path / "lm")
    qwen.save_pretrained(tmp_path / "lm")
    prm = causal_from_backbone(tmp_path / "lm")
    prm.save(tmp_path / "causal")
    done = convert_prm(tmp_path / "causal", tmp_path / "out")
    assert done.family == "own"
    assert PrmScorer(prm).score(SAMPLES)[0].values == pytest.approx(done.after[0].values, abs=1e-6)
    with pytest.raises(UsageError, match="is a token-classification checkpoint of ours already"):
        convert_prm(tmp_path / "out", tmp_path / "again")


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.not_convertible])
def test_what_has_no_token_classification_form_is_refused_with_the_reason(family, source, tmp_path):
    source("math-psa")
    with pytest.raises(UsageError) as refusal:
        convert_prm(tmp_path / "source", tmp_path / "out", family=family)
    assert f"a PRM of the family {family} has no token-classification form" in str(refusal.value)
    assert FAMILIES[family].not_convertible in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_where_scores_differ_or_something_else_lies(source, tmp_path, monkeypatch):
    source("versaprm")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is no PRM checkpoint, so it is not replaced"):
        convert_prm(tmp_path / "source", tmp_path / "notes", family="versaprm")
    monkeypatch.setattr(convert, "most_different", lambda *_: 2e-6)
    with pytest.raises(InputError, match="scores differ by 2e-06 after conversion; nothing was written"):
        convert_prm(tmp_path / "source", tmp_path / "out", family="versaprm")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "source"]


def test_a_sidecar_that_is_another_tokenizers_is_refused(source, tmp_path):
    source("versaprm")
    convert_prm(tmp_path / "source", tmp_path / "out", family="versaprm")
    file = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    file["model"]["merges"] = file["model"]["merges"][:10]
    (tmp_path / "out" / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(InputError, match="the tokenizer"):
        load_prm(tmp_path / "out")


def test_a_layout_whose_mark_text_can_hold_is_not_exported_to_servers_that_look_for_it(source, tmp_path):
    convert_prm(source("versaprm"), tmp_path / "out", family="versaprm")
    with pytest.raises(
        UsageError, match="is no special token: a server that looks for it in the ids would find others"
    ):
        export("vllm", tmp_path / "out", tmp_path / "vllm")


def test_the_number_format_of_a_causal_prm_of_ours_stays_too(tmp_path, config_of, qwen):
    Qwen2ForCausalLM(config_of("qwen2", qwen)).to(torch.bfloat16).save_pretrained(tmp_path / "lm")
    qwen.save_pretrained(tmp_path / "lm")
    prm = causal_from_backbone(tmp_path / "lm", verdict_tokens=("Yes", "No"), dtype=torch.bfloat16)
    prm.save(tmp_path / "source")
    assert convert_prm(tmp_path / "source", tmp_path / "out").difference == 0.0
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {name for name, tensor in tensors.items() if tensor.dtype != torch.bfloat16} == {
        "score.weight",
        "score.bias",
    }
