import re
from itertools import pairwise

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prm_kit.engines.engine import Rollout
from prm_kit.errors import InputError, UsageError
from prm_kit.policy import Policy
from prm_kit.records import Solution
from prm_kit.split import split_solution
from prm_kit.step_reading import PromptTemplate
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


def joining(pieces):
    """A tokenizer that joins exactly these pieces."""
    vocabulary = {piece: number for number, piece in enumerate(["<|end|>", *pieces])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<|end|>"))
    longest_first = sorted(pieces, key=len, reverse=True)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), "isolated")
    return Policy(
        None,
        PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>"),
        PromptTemplate(before="", after=""),
    )


def pieces_of(policy, steps, separator):
    names = {number: piece for piece, number in policy.tokenizer.get_vocab().items()}
    (lists,) = policy.prefix_ids([Solution.from_steps("?", steps, separator)])
    return [[names[number] for number in ids] for ids in lists]


def test_a_prefix_ends_as_the_policy_would_have_written_it():
    # the separator is a token, or a part of the step's last one: it belongs to the prefix
    assert pieces_of(joining(["a", "b", "\n\n"]), ["a", "b"], "\n\n") == [[], ["a", "\n\n"], ["a", "\n\n", "b"]]
    assert pieces_of(joining(["a.\n\n", "b"]), ["a.", "b"], "\n\n") == [[], ["a.\n\n"], ["a.\n\n", "b"]]
    # it is the beginning of the next step's first token: a prefix that ended in a loose space would be unheard of
    assert pieces_of(joining(["a", " ", " b"]), ["a", "b"], " ") == [[], ["a"], ["a", " b"]]
    # a token reaches from one step into the next: the text before the cut is encoded by itself
    assert pieces_of(joining(["a", ")(", ")", "(", "b"]), ["a)", "(b"], "") == [[], ["a", ")"], ["a", ")(", "b"]]


def test_prefixes_of_a_solution_begin_with_each_other_and_end_with_the_completion(policy):
    text = "Step 1: 37 - 7 = 30\nSo far 30\nStep 2: 30 * 3 = 90\nAnswer: 90\n"
    (lists,) = policy.prefix_ids([split_solution(PROBLEM, text, "newline", attached=False)])
    assert [policy.tokenizer.decode(ids) for ids in lists] == [
        "",
        *(text[: text.index(s)] for s in ("So", "Step 2", "Ans")),
        text,
    ]
    assert lists[-1] == policy.completion_ids([text])[0][:-1]
    for shorter, longer in pairwise(lists):
        assert longer[: len(shorter)] == shorter
    assert policy.prefix_ids([Solution("?", "", ())]) == [[[]]]
