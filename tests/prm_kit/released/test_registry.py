import json
import pickle

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen2ForTokenClassification

from prm_kit.backbone import load_trunk
from prm_kit.errors import InputError, UsageError
from prm_kit.model import Prm
from prm_kit.released.checkpoint import open_checkpoint
from prm_kit.released.convert import convert_prm
from prm_kit.released.registry import FAMILIES, HUB, family_of, load_prm

CPU = torch.device("cpu")


def opened(path):
    return open_checkpoint(path, CPU, torch.float32)


@pytest.fixture
def causal(tmp_path, config_of, llama3):
    def make(name="plain", **changes):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config_of("llama", llama3, **changes)).eval()
        model.save_pretrained(tmp_path / name)
        llama3.save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


def rename(path, **about):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **about}))
    return path


def test_every_hub_id_of_the_table_has_one_family():
    assert len(HUB) == sum(len(family.hub) for family in FAMILIES.values())
    for hub in ("Qwen/Qwen2.5-Math-7B-PRM800K", "Gen-Verse/ReasonFlux-PRM-7B"):
        assert HUB[hub] == "qwen-prm"
    assert HUB["RLHFlow/Llama3.1-8B-PRM-Deepseek-Data"] == "rlhflow"


def test_a_plain_language_model_is_recognised_by_the_name_it_was_published_under(causal):
    assert family_of(opened(causal("VersaPRM-Base-8B"))) == "versaprm"
    elsewhere = rename(causal("mine"), _name_or_path="RLHFlow/Llama3.1-8B-PRM-Mistral-Data")
    assert family_of(opened(elsewhere)) == "rlhflow"


def test_a_folder_that_could_be_several_families_is_refused_with_their_names(causal):
    path = causal()
    with pytest.raises(UsageError, match=r"LlamaForCausalLM, from which its family cannot be told; .*rlhflow, .*versa"):
        load_prm(path)
    with pytest.raises(UsageError, match=r"unknown family 'versa'. Did you mean 'versaprm'"):
        load_prm(path, family="versa")
    assert load_prm(path, family="versaprm", name="mine").name == "mine"


def test_token_classification_is_trls_unless_it_is_pures(tmp_path, config_of, qwen):
    for name, family in (("some-prm", "trl"), ("PURE-PRM-7B", "pure")):
        Qwen2ForTokenClassification(config_of("qwen2", qwen, num_labels=2)).save_pretrained(tmp_path / name)
        qwen.save_pretrained(tmp_path / name)
        assert family_of(opened(tmp_path / name)) == family


def test_a_checkpoint_of_ours_is_recognised_by_its_card(tmp_path, backbone):
    Prm.from_backbone(backbone).save(tmp_path / "ours")
    scorer = load_prm(tmp_path / "ours")
    assert type(scorer.prm) is Prm
    assert scorer.name == str(tmp_path / "ours")


@pytest.mark.filterwarnings("ignore")  # of peft, at older names and at saving an output layer
def test_an_adapter_is_merged_into_its_base_and_read_as_the_whole_model_is(causal, tmp_path, llama3, solutions):
    base = causal("Llama-PRM800K", tie_word_embeddings=False)
    model = get_peft_model(
        LlamaForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules=["q_proj", "lm_head"])
    )
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_()
    model.save_pretrained(tmp_path / "adapter")
    whole = model.merge_and_unload()
    whole.save_pretrained(tmp_path / "whole")
    llama3.save_pretrained(tmp_path / "whole")
    asked = load_prm(tmp_path / "adapter").score(solutions)  # recognised by the name of its base
    expected = load_prm(tmp_path / "whole", family="versaprm").score(solutions)
    plain = load_prm(base).score(solutions)
    for one, other, without in zip(asked, expected, plain, strict=True):
        assert one.values == pytest.approx(other.values, abs=1e-5)
        assert one.values != pytest.approx(without.values, abs=1e-3)


def test_an_adapter_whose_base_is_elsewhere_is_read_with_the_base_that_is_named(tmp_path, causal):
    (tmp_path / "adapter").mkdir()
    about = {"base_model_name_or_path": "/mnt/authors/Llama-PRM800K"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(about))
    with pytest.raises(
        InputError, match=r"its base model: /mnt/authors/.*: no such folder; name its folder with `refer"
    ):
        load_prm(tmp_path / "adapter", family="versaprm")
    with pytest.raises(InputError, match="weights must be safetensors; there are none"):
        load_prm(tmp_path / "adapter", family="versaprm", reference=causal())


@pytest.mark.parametrize("scheme", ["legacy", "first", "always"])
def test_sentencepiece_puts_its_dummy_prefix_where_one_text_would_have_it(
    scheme, metaspace, tmp_path, config_of, solutions
):
    # rule 6: "We", tokenised apart, begins with a prefix of its own that "1: We" has as a space
    tokenizer = metaspace[scheme]
    MistralForCausalLM(config_of("mistral", tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = load_prm(tmp_path, family="math-shepherd").prm.encoder
    for solution in solutions:
        steps = "\n".join(f"Step {k + 1}: {step} ки" for k, step in enumerate(solution.steps))
        assert encoder.encode([solution])[0].ids == tokenizer.encode(f"{solution.problem} {steps}")
    apart = [token for step in solutions[0].steps for token in tokenizer.encode(step, add_special_tokens=False)]
    assert tokenizer.convert_tokens_to_ids("▁We") in apart


def test_pickles_are_refused_with_what_to_do_and_never_read(causal, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    path = causal()
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    for load in (lambda: load_prm(path, family="versaprm"), lambda: load_trunk(path, torch.float32)):
        with pytest.raises(InputError, match=r"pytorch_model\.bin is a pickle, .*refs/pr/N"):
            load()
    assert not (tmp_path / "exploded").exists()


def test_damaged_and_incomplete_weights_are_refused_by_file(causal, tmp_path):
    path = causal("cut")
    weights = path / "model.safetensors"
    whole = weights.read_bytes()
    for broken in (whole[:-100], whole[:5], b"", b"\xff" * 64):
        weights.write_bytes(broken)
        for load in (lambda: load_prm(path, family="versaprm"), lambda: load_trunk(path, torch.float32)):
            with pytest.raises(InputError, match=r"model\.safetensors: damaged or truncated"):
                load()
    weights.write_bytes(whole)
    tensors = load_file(weights)
    index = {"weight_map": dict.fromkeys(tensors, "model-00001-of-00002.safetensors") | {"x": "model-2.safetensors"}}
    weights.rename(path / "model-00001-of-00002.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"names model-2\.safetensors, which is missing"):
        load_prm(path, family="versaprm")
    save_file({"y": torch.zeros(1)}, path / "model-2.safetensors")
    with pytest.raises(InputError, match="names the tensor x, which no file holds"):
        load_prm(path, family="versaprm")


def test_remote_code_without_a_native_reader_is_refused(causal):
    path = rename(causal(), model_type="mystery", auto_map={"AutoModel": "mystery.Mystery"})
    with pytest.raises(
        InputError, match=r"config\.json: .*mystery.*it brings its own code \(auto_map\), which is never"
    ):
        load_prm(path, family="versaprm")


def test_a_score_that_is_not_a_number_names_the_solution_and_the_step(causal, llama3, solutions):
    path = causal()
    scorer = load_prm(path, family="versaprm")
    with torch.no_grad():
        scorer.prm.head.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"solution [0-9a-f]{32}, step \d: the score is not a number"):
        scorer.score(solutions)


def test_what_is_neither_a_folder_nor_a_hub_id_is_refused_without_asking_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: asked.append((a, k)) or str(tmp_path))
    with pytest.raises(InputError, match="no such folder"):
        load_prm("./nowhere/at/all")
    assert asked == []
    assert opened("owner/name@refs/pr/7").published == "owner/name"
    ((repository, options),) = asked
    assert (repository, options["revision"]) == (("owner/name",), "refs/pr/7")
    assert not any(pattern.endswith((".bin", ".py", ".pt")) for pattern in options["allow_patterns"])


@pytest.fixture
def trained_adapter(tmp_path, config_of, qwen):
    """An adapter with a head of its own, as TRL's trainer saves it, on a plain language model; and the model."""
    torch.manual_seed(0)
    model = Qwen2ForTokenClassification(config_of("qwen2", qwen, num_labels=2))
    base = Qwen2ForCausalLM(config_of("qwen2", qwen))
    base.model.load_state_dict(model.model.state_dict())
    base.save_pretrained(tmp_path / "base")
    qwen.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(model, LoraConfig(task_type="TOKEN_CLS", r=2))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_()
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", adapted.eval()


@pytest.mark.filterwarnings("ignore")  # of peft
def test_an_adapter_with_a_head_is_merged_into_the_base_that_is_named(trained_adapter, tmp_path, solutions):
    path, adapted = trained_adapter
    scorer = load_prm(path, family="trl", reference=tmp_path / "base")
    one = scorer.prm.encoder.encode(solutions[:1])[0]
    with torch.no_grad():
        right = adapted(input_ids=torch.tensor([one.ids])).logits[0, one.read_positions].softmax(-1)[:, 1]
    (scores,) = scorer.score(solutions[:1])
    assert [p[2] for p in scores.probabilities] == pytest.approx(right.tolist(), abs=1e-5)
    done = convert_prm(path, tmp_path / "out", family="trl", reference=tmp_path / "base")
    assert done.difference <= 1e-6


@pytest.mark.filterwarnings("ignore")  # of peft
def test_an_adapter_whose_tensors_do_not_fit_is_refused_and_never_left_out(trained_adapter, tmp_path):
    path, _ = trained_adapter
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    renamed = {name.replace(".model.model.", ".model."): tensor for name, tensor in tensors.items()}
    fewer = {name: tensor for name, tensor in tensors.items() if ".layers.1." not in name}
    for changed in (renamed, fewer):
        save_file(changed, file)
        with pytest.raises(InputError, match=r"tensors do not fit the base model, such as .*layers\.\d\..*lora_A"):
            load_prm(path, family="trl", reference=tmp_path / "base")


@pytest.mark.parametrize("about", [{}, {"base_model_name_or_path": "."}])
def test_an_adapter_that_names_no_base_or_itself_is_refused(tmp_path, about):
    (tmp_path / "adapter_config.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="an adapter that names no base model; name its folder with `reference`"):
        load_prm(tmp_path, family="trl")


@pytest.mark.parametrize("said", [{"a": 1}, "Qwen2ForTokenClassification", [], None])
def test_architectures_that_are_no_list_of_names_say_nothing(causal, said):
    assert opened(rename(causal(), architectures=said)).architecture == ""
