import pytest
import torch
from transformers import Qwen2ForCausalLM

from prm_kit.encode import TooLongError
from prm_kit.errors import InputError, UsageError
from prm_kit.records import Solution
from prm_kit.released.registry import load_prm


@pytest.fixture
def twin(tmp_path, config_of, qwen):
    """The PRM and its reference in two folders, with their models."""
    models = []
    for seed, name in enumerate(("prm", "reference")):
        torch.manual_seed(seed)
        models.append(Qwen2ForCausalLM(config_of("qwen2", qwen)).eval())
        models[-1].save_pretrained(tmp_path / name)
        qwen.save_pretrained(tmp_path / name)
    return models


def token_log_probabilities(model, ids):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def rule(model, reference, tokenizer, solution):
    """The model card's snippet for one solution; its rendered lengths less two are indices into the predictions."""
    steps = list(solution.steps)

    def rendered(content):
        turns = [{"role": "user", "content": solution.problem}, {"role": "assistant", "content": content}]
        return tokenizer.apply_chat_template(turns, tokenize=False)

    ids = tokenizer.encode(rendered("\n\n".join(steps)), add_special_tokens=False)
    ends = []
    for k in range(len(steps) + 1):
        text = rendered("\n\n".join(steps[:k])).strip()
        if k not in (0, len(steps)):
            text += "\n\n"
        ends.append(len(tokenizer.encode(text, add_special_tokens=False)) - 2)
    ratio = token_log_probabilities(model, ids) - token_log_probabilities(reference, ids)
    mask = torch.zeros(len(ids))
    mask[ends[0] :] = 1
    total = (0.001 * ratio * mask[1:]).cumsum(0)
    return ids, [total[end].item() for end in ends[1:]]


def test_scores_are_cumulative_log_ratios_up_to_where_the_authors_read(tmp_path, twin, qwen, solutions):
    scorer = load_prm(tmp_path / "prm", family="eurus", reference=tmp_path / "reference")
    for solution, scores in zip(solutions, scorer.score(solutions), strict=True):
        ids, expected = rule(*twin, qwen, solution)
        (encoded,) = scorer.prm.encoder.encode([solution])
        assert encoded.ids == ids
        assert not scores.is_bounded
        assert scores.values == pytest.approx(expected, abs=1e-6)
        assert max(map(abs, expected)) > 1e-4


def test_a_solution_is_never_cut_and_the_reference_must_be_of_one_vocabulary(tmp_path, twin, qwen, mistral, solutions):
    scorer = load_prm(tmp_path / "prm", family="eurus", reference=tmp_path / "reference")
    long = Solution.from_steps("Add.", ["1 + 1 + 1" * 200])
    with pytest.raises(TooLongError, match=long.id):
        scorer.score([long])
    mistral.save_pretrained(tmp_path / "reference")
    with pytest.raises(InputError, match=r"its vocabulary is not that of .*: not its reference"):
        load_prm(tmp_path / "prm", family="eurus", reference=tmp_path / "reference")


def test_a_reference_that_is_not_there_is_named(tmp_path, twin, monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UsageError, match=r"Qwen2.5-Math-7B-Instruct: no such folder, and not to be had from the hub"):
        load_prm(tmp_path / "prm", family="eurus")
