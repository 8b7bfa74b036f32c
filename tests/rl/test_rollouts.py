from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from prm_kit.engines.engine import Rollout
from prm_kit.engines.transformers_engine import TransformersEngine
from prm_kit.errors import UsageError
from prm_kit.policy import Policy
from prm_kit.records import Problem, Solution
from prm_kit.step_reading import PromptTemplate
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from rl.rollouts import Sampler, steps_of_tokens

PROBLEM = Problem("Start with 37, subtract 7, times 3.", "90")
TEXT = "Step 1: 37 - 7 = 30\nStep 2: 30 * 3 = 90\nAnswer: 90\n"


class Says:
    """An engine that writes the given completions, sample by sample."""

    def __init__(self, policy, *texts, finish="stop"):
        self.policy, self.texts, self.finish, self.limits = policy, texts, finish, []

    def generate(self, prefixes, n, limits):
        self.limits.append(limits)
        return [[self._rollout(self.texts[sample % len(self.texts)]) for sample in range(n)] for _ in prefixes]

    def _rollout(self, text):
        ids = tuple(self.policy.completion_ids([text])[0])
        ids = ids if self.finish == "stop" else ids[:-1]
        return Rollout(ids, (-0.5,) * len(ids), self.finish)


@pytest.fixture(scope="module")
def policy():
    return Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer())


def sampler(policy, engine, **fields):
    return Sampler(policy, engine, **{"split": "newline", "max_new_tokens": 80, **fields})


def test_every_token_knows_its_step(policy):
    (one,) = sampler(policy, Says(policy, TEXT)).groups([PROBLEM], 1, round=0)[0]
    assert one.solution.completion == TEXT
    assert [text.split(":")[0] for text in one.solution.steps] == ["Step 1", "Step 2", "Answer"]
    assert len(one.step_of_token) == len(one.rollout.ids)
    spoken = ["", "", ""]
    for token, step in zip(one.rollout.ids[:-1], one.step_of_token, strict=False):
        spoken[step] += policy.text(Rollout((token,), (), "length"))
    # the line end belongs to the step that it ends, the end of the sequence to the last step
    assert spoken == ["Step 1: 37 - 7 = 30\n", "Step 2: 30 * 3 = 90\n", "Answer: 90\n"]
    assert one.step_of_token[-1] == 2


def test_a_completion_without_text_or_end_is_a_rollout_like_any_other(policy):
    (empty,) = sampler(policy, Says(policy, "")).groups([PROBLEM], 1, round=0)[0]
    assert (empty.solution.spans, empty.step_of_token) == ((), (0,))
    (cut,) = sampler(policy, Says(policy, TEXT, finish="length")).groups([PROBLEM], 1, round=0)[0]
    assert len(cut.step_of_token) == len(cut.rollout.ids)
    assert cut.step_of_token[-1] == 2


def test_rounds_are_sampled_anew_and_the_same_round_alike(policy):
    engine = Says(policy, TEXT)
    sampling = sampler(policy, engine, seed=3)
    for number in (0, 1, 1):
        sampling.groups([PROBLEM], 2, round=number)
    seeds = [limits.seed for limits in engine.limits]
    assert seeds[0] != seeds[1] == seeds[2]
    sampling.groups([PROBLEM], 1, round=0, greedy=True)
    assert engine.limits[-1].temperature == 0.0


def test_a_problem_that_stands_twice_in_an_update_is_answered_anew_each_time(policy):
    sampling = sampler(policy, TransformersEngine(policy.model))
    once, again = sampling.groups([PROBLEM, PROBLEM], 3, round=0)
    alone = sampling.groups([PROBLEM], 3, round=0)[0]
    assert [one.rollout for one in once] == [one.rollout for one in alone]
    assert [one.rollout.ids for one in once] != [one.rollout.ids for one in again]


def test_problems_without_room_are_refused_before_the_run(policy):
    with pytest.raises(UsageError, match="Start with 37"):
        sampler(policy, Says(policy, TEXT), max_new_tokens=10**6).check([PROBLEM])
    with pytest.raises(UsageError, match="newline"):
        sampler(policy, Says(policy, TEXT), split="newlin").check([PROBLEM])


def test_tokens_cut_in_another_way_than_the_tokenizer_would_end_where_they_end():
    text = "ab ab\nüab 数"
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator([text] * 9, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    policy = Policy.of(None, fast, PromptTemplate(before="", after=""))
    canonical = policy.completion_ids([text])[0][:-1]
    assert policy.token_ends(canonical) == [end for _, end in backend.encode(text).offsets]
    single = [backend.token_to_id(letter) for letter in "".join(backend.encode(text).tokens)]
    assert len(single) == len(text.encode()) > len(canonical)
    # one token a byte: "ü" has two, "数" three, and each of them belongs to the step that the character belongs to
    assert policy.token_ends(single) == [1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11, 11, 11]
    # long completions are read in parts, with the same result as from the start every time, whatever was sampled
    sampled = Random(0)
    for ids in (single * 15, [sampled.randrange(1, len(fast)) for _ in range(300)]):
        said = [policy.text(Rollout(tuple(ids[:count]), (), "length")) for count in range(len(ids) + 1)]
        common = [next((k for k, (a, b) in enumerate(zip(one, said[-1], strict=False)) if a != b),
                       min(len(one), len(said[-1]))) for one in said[1:]]  # fmt: skip
        slow = [min(k + (len(one) > k), len(said[-1])) for k, one in zip(common, said[1:], strict=True)]
        assert policy.token_ends(ids) == slow


def test_a_nul_that_the_policy_writes_does_not_end_the_run():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(["a"], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    policy = Policy.of(None, fast, PromptTemplate(before="", after=""))
    nul, letter = fast.convert_tokens_to_ids(["Ā", "a"])
    assert policy.text(Rollout((letter, nul, letter), (), "length")) == "a\ufffda"
    assert policy.token_ends([letter, nul, letter]) == [1, 2, 3]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_tokens_are_dealt_to_steps_as_a_slow_loop_does_it(lengths, data):
    steps = ["x" * length for length in lengths]
    solution = Solution.from_steps("p", steps, "\n")
    length = len(solution.completion)
    ends = sorted(data.draw(st.lists(st.integers(1, length), min_size=1, max_size=8)))
    slow = [max([0, *(k for k, (start, _) in enumerate(solution.spans) if start < end)]) for end in ends]
    assert steps_of_tokens(solution, ends) == slow
