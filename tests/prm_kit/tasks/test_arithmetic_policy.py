import torch
from transformers import AutoTokenizer

from prm_kit.encode import StepEncoder
from prm_kit.policy import Policy
from prm_kit.records import Solution
from prm_kit.step_reading import default_reading
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.arithmetic_policy import STEP_MARK, arithmetic_policy, arithmetic_tokenizer


def test_the_tokenizer_gives_every_text_of_the_task_back():
    tokenizer = arithmetic_tokenizer()
    for problem, completion in ArithmeticTask().demonstrations("train", 200, 0):
        ids = tokenizer(f"{problem}\n{completion}").input_ids
        assert tokenizer.decode(ids) == f"{problem}\n{completion}"
        assert tokenizer.unk_token_id not in ids


def test_a_phrase_is_one_token_and_digits_are_told_apart():
    tokens = arithmetic_tokenizer().tokenize("Step 1: 37 - 7 = 30\nAnswer: 30\n")
    assert tokens == ["Step 1: ", "3", "7", " - ", "7", " = ", "3", "0", "\n", "Answer: ", "3", "0", "\n"]


def test_the_tokenizer_is_the_same_after_saving_and_loading(tmp_path):
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(tmp_path)
    text = "Start with 37, subtract 7, times 3.\nStep 1: 37 - 7 = 30\nSo far 30\n"
    assert AutoTokenizer.from_pretrained(tmp_path)(text).input_ids == arithmetic_tokenizer()(text).input_ids


def test_steps_are_read_at_the_reserved_mark_with_the_ids_that_the_policy_wrote():
    tokenizer = arithmetic_tokenizer()
    reading = default_reading(tokenizer)
    assert reading.mark == STEP_MARK
    solution = Solution.from_steps("Start with 1, add 2.", ["Step 1: 1 + 2 = 3", "Answer: 3"], "\n")
    encoded = StepEncoder(tokenizer, reading).encode([solution])[0]
    policy = Policy.of(arithmetic_policy(0, hidden=16, layers=1), tokenizer)
    written = policy.prompt_ids([solution.problem])[0] + policy.completion_ids([solution.completion])[0][:-1]
    assert [i for i in encoded.ids if i != tokenizer.convert_tokens_to_ids(STEP_MARK)] == written


def test_the_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, again, other = (arithmetic_policy(seed, hidden=16, layers=1) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    weights = [model.get_input_embeddings().weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
