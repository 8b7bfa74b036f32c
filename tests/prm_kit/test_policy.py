import pytest
from transformers import PreTrainedTokenizerFast

from prm_kit.encode import PromptTemplate
from prm_kit.engines.engine import Rollout
from prm_kit.errors import InputError, UsageError
from prm_kit.policy import Policy
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer

PROBLEM = "Start with 37, subtract 7, times 3."


@pytest.fixture(scope="module")
def policy():
    return Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer())


def test_the_prompt_is_the_template_around_the_problem(policy):
    assert policy.tokenizer.decode(policy.prompt_ids([PROBLEM])[0]) == PROBLEM + "\n"
    template = PromptTemplate(before="<|end|>Answer: ", after="\n\n")
    other = Policy(policy.model, policy.tokenizer, template)
    assert other.tokenizer.decode(other.prompt_ids([PROBLEM])[0]) == f"<|end|>Answer: {PROBLEM}\n\n"


def test_text_never_becomes_a_special_token(policy):
    for ids in (policy.prompt_ids(["<|end|>"])[0], policy.completion_ids(["<|end|>"])[0][:-1]):
        assert policy.tokenizer.eos_token_id not in ids


def test_a_completion_ends_with_the_stop_token_and_reads_back_without_it(policy):
    ids = policy.completion_ids(["Answer: 90\n"])[0]
    assert ids[-1] in policy.stop_ids
    assert policy.text(Rollout(tuple(ids), (0.0,) * len(ids), "stop")) == "Answer: 90\n"
    assert policy.text(Rollout(tuple(ids[:-1]), (0.0,) * (len(ids) - 1), "length")) == "Answer: 90\n"


def test_a_saved_policy_asks_the_same_prompt(policy, tmp_path):
    template = PromptTemplate(before="", after=" = ")
    Policy(policy.model, policy.tokenizer, template).save(tmp_path)
    loaded = Policy.load(tmp_path)
    assert loaded.template == template
    assert loaded.stop_ids == policy.stop_ids
    (tmp_path / "policy.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="not JSON"):
        Policy.load(tmp_path)


def test_a_folder_without_a_model_and_a_tokenizer_without_an_end_are_refused(policy, tmp_path):
    with pytest.raises(InputError, match="no causal language model"):
        Policy.load(tmp_path)
    endless = PreTrainedTokenizerFast(tokenizer_object=policy.tokenizer.backend_tokenizer)
    with pytest.raises(UsageError, match="no end-of-sequence token"):
        Policy(policy.model, endless, policy.template)
