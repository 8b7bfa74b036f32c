import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prm_kit.encode import TooLongError
from prm_kit.errors import InputError, UsageError
from prm_kit.records import Solution
from prm_kit.segments import SegmentEncoder, SegmentReading

WORDS = ["[UNK]", "<s>", "<step>", "Q", "A", "1", "2", "3", "so", "+", "done"]


@pytest.fixture(scope="module")
def tokenizer():
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", bos_token="<s>", extra_special_tokens=["<step>"]
    )


def read(encoded):
    return " ".join(WORDS[index] for index in encoded.ids), encoded.read_positions


def test_every_part_stands_where_the_layout_says_and_steps_are_read_at_their_marks(tokenizer):
    # <s> Q 1 A | 1 so 2 done + | <s> 2 so 3 done +: the marks "+" are tokens 8 and 14
    reading = SegmentReading(
        before="<s>",
        problem_before="Q ",
        after=" A",
        first_lead=" {number} so ",
        lead=" {number} so ",
        tail=" done",
        mark=" +",
        between="<s>",
    )
    (encoded,) = SegmentEncoder(tokenizer, reading).encode([Solution.from_steps("1", ["2", "3"])])
    assert read(encoded) == ("<s> Q 1 A 1 so 2 done + <s> 2 so 3 done +", [8, 14])
    assert encoded.prompt_length == 4


def test_without_a_mark_a_step_is_read_at_its_own_last_token_or_some_before(tokenizer):
    solution = Solution.from_steps("1", ["2 so", "3 so 1"])
    for back, expected in ((0, [2, 5]), (1, [1, 4])):
        encoder = SegmentEncoder(tokenizer, SegmentReading(read_back=back))
        (encoded,) = encoder.encode([solution])
        assert read(encoded) == ("1 2 so 3 so 1", expected)
        assert encoder.mark_id == -1


def test_a_step_without_a_token_to_be_read_at_is_refused(tokenizer):
    bare = SegmentEncoder(tokenizer, SegmentReading(own_numbers=False))
    solution = Solution.from_steps("1", ["2", "Step 2: "])
    with pytest.raises(InputError, match=f"solution {solution.id}, step 1: the tokenizer makes no token of ''"):
        bare.encode([solution])


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ("Step 3: so", "so"),
        ("step 12. so", "so"),
        ("  Step 1 : so", "so"),
        ("Stepping so", "Stepping so"),
        ("Step 2.5 so", "Step 2.5 so"),
        ("Step 2:5 so", "5 so"),
    ],
)
def test_a_number_of_the_steps_own_is_taken_away_where_the_layout_numbers(step, text):
    assert SegmentReading(own_numbers=False).step_text(step, 1) == text
    assert SegmentReading().step_text(step, 1) == step


def test_white_space_is_taken_away_and_lines_joined_where_the_layout_says():
    assert SegmentReading(trim=True).step_text(" so \n", 1) == "so"
    assert SegmentReading(one_line=True).step_text("1\n\n2\n3", 1) == "1  2 3"
    assert SegmentReading(trim=True, problem_after=" A").problem_text("  1 ") == "1  A"
    assert SegmentReading(lead="{number}: ").step_text("{number}", 2) == "2: {number}"


def test_a_long_solution_goes_into_windows_or_is_refused(tokenizer):
    # prompt "1", each step two tokens: four fit one step beside the prompt and no more than that with 4, two with 5
    solution = Solution.from_steps("1", ["2", "3", "2"])
    encoder = SegmentEncoder(tokenizer, SegmentReading(mark="<step>"))
    with pytest.raises(TooLongError, match=f"solution {solution.id}: 7 tokens, more than the 5 allowed"):
        encoder.encode([solution], 5)
    found = encoder.encode([solution], 5, "window")
    assert [one.steps for one in found] == [[0, 1], [2]]
    assert read(found[1]) == ("1 3 <step> 2 <step>", [4])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from([*WORDS, "x"]), min_size=1).map(" ".join), min_size=1, max_size=5))
def test_each_step_is_read_once_at_the_mark_and_prefixes_are_prefixes(tokenizer, steps):
    # the words hold "<step>" and "<s>" too: as text they are unknown words, never the tokens
    encoder = SegmentEncoder(tokenizer, SegmentReading(before="<s>", mark="<step>"))
    (whole,) = encoder.encode([Solution.from_steps("so", steps)])
    assert [index for index, token in enumerate(whole.ids) if token == 2] == whole.read_positions
    assert whole.ids.count(1) == 1
    for k in range(1, len(steps)):
        (part,) = encoder.encode([Solution.from_steps("so", steps[:k])])
        assert whole.ids[: len(part.ids)] == part.ids


def test_servers_can_find_a_mark_that_is_one_special_token(tokenizer):
    for mark, back, found in (("<step>", 0, True), ("<step>", 1, False), (" +", 0, False), (" so <step>", 0, False)):
        encoder = SegmentEncoder(tokenizer, SegmentReading(mark=mark, read_back=back))
        assert encoder.is_read_at_a_special_token is found


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(UsageError, match="object is a slow tokenizer"):
        SegmentEncoder(object(), SegmentReading())
