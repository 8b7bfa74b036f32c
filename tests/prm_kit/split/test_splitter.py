"""The promises of `split` as a whole: lossless, never inside a block, capped, English and Chinese."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.errors import InputError, UsageError
from prm_kit.records import Solution
from prm_kit.split import METHODS, Split, resplit, split, split_solution, summarise, think_steps

CHAIN = (
    "First, we add: 17 + 23 = 40.\n\nThen the formula\n\\[\nx = 40\n\n+ 2\n\\]\nholds.\n\nSo the answer is \\boxed{42}."
)


def steps(text, method="auto", **options):
    return [text[start:end] for start, end in split(text, method, **options).spans]


def test_blank_lines_separate_steps_and_a_formula_stays_whole():
    found = split(CHAIN)
    assert steps(CHAIN) == [
        "First, we add: 17 + 23 = 40.",
        "Then the formula\n\\[\nx = 40\n\n+ 2\n\\]\nholds.",
        "So the answer is \\boxed{42}.",
    ]
    assert (found.method, found.answer_step, found.capped) == ("blank_line", 2, 0)
    assert CHAIN[slice(*found.answer)] == "42"


def test_line_ends_separate_the_steps_of_a_text_without_blank_lines():
    text = "48 / 2 = <<48/2=24>>24 clips in May.\n48 + 24 = <<48+24=72>>72 clips.\n#### 72"
    assert steps(text) == text.split("\n")
    assert split(text).method == "newline"


def test_sentences_are_the_last_resort():
    text = "Tom has 3.5 kg, i.e. 3500 g. He sells 500 g. The answer is 3000."
    assert steps(text) == ["Tom has 3.5 kg, i.e. 3500 g.", "He sells 500 g.", "The answer is 3000."]
    assert split(text).method == "sentence"


def test_step_markers_win_over_blank_lines_and_the_conclusion_is_a_step():
    text = "We plan.\n\n**Step 1**\n\nAdd.\n\nIt is 5.\n\n**Step 2**\n\nDouble.\n\nTherefore, it is 10."
    assert steps(text) == [
        "We plan.",
        "**Step 1**\n\nAdd.\n\nIt is 5.",
        "**Step 2**\n\nDouble.",
        "Therefore, it is 10.",
    ]
    assert split(text).method == "marker"


def test_a_list_within_a_longer_text_is_left_to_the_blank_lines():
    text = "We will do the following:\n\n1. Add.\n2. Halve.\n\nNow add: 4.\n\nNow halve: 2.\n\nIt is 2."
    assert split(text).method == "blank_line"
    assert "1. Add.\n2. Halve." in steps(text)


def test_a_text_that_is_a_numbered_list_is_cut_at_its_numbers():
    text = "1. Add:\n   - 2 + 2 = 4\n\n   It is 4.\n2. Halve:\n   - 4 / 2 = 2\nTherefore, it is 2."
    assert steps(text) == ["1. Add:\n   - 2 + 2 = 4\n\n   It is 4.", "2. Halve:\n   - 4 / 2 = 2", "Therefore, it is 2."]


def test_chinese_text_is_split_as_english_is():
    assert steps("解：先求总数，3+4=7。\n\n再求一半：\n\n\\[7\\div 2=3.5\\]\n\n答案是3.5。") == [
        "解：先求总数，3+4=7。",
        "再求一半：\n\n\\[7\\div 2=3.5\\]",
        "答案是3.5。",
    ]
    assert steps("第一步：3+4=7。第二步：7*2=14。") == ["第一步：3+4=7。", "第二步：7*2=14。"]
    assert steps("步骤1：求和。\n得7。\n步骤2：翻倍。\n得14。\n\n所以答案是14。") == [
        "步骤1：求和。\n得7。",
        "步骤2：翻倍。\n得14。",
        "所以答案是14。",
    ]
    assert steps("小明有3.5元。他花了1元！还剩2.5元。") == ["小明有3.5元。", "他花了1元！", "还剩2.5元。"]


def test_too_few_blank_lines_for_the_text_give_way_to_line_ends():
    text = "a is 1.\nb is 2.\nc is 3.\nd is 4.\n\nThe answer is 4."
    assert len(steps(text)) == 5
    # Two paragraphs of 900 characters: coarser than the limit of 768 bytes a piece on average.
    long = "\n\n".join(["\n".join(["Some words. " * 12] * 6)] * 3)
    assert split(long).method == "newline"


def test_a_step_token_cuts_everywhere_and_belongs_to_no_step():
    text = "Step 1: a ки\nStep 2: \\( b ки c \\) ки\nки"
    assert steps(text, "token", token="ки") == ["Step 1: a", "Step 2: \\( b", "c \\)"]


@pytest.mark.parametrize(
    ("text", "expected", "thought"),
    [
        ("<think>\na\n\nb\n</think>\n\nc\n\nd", ["a", "b", "c", "d"], (0, 1)),
        ("<think>a\n\nb", ["a", "b"], (0, 1)),
        ("a\n\nb</think>c", ["a", "b", "c"], (0, 1)),
        ("<think>\n\n</think>c\n\nd", ["c", "d"], ()),
        ("<think>```\na</think>```\n\nc", ["```\na", "```\n\nc"], (0,)),
    ],
)
def test_think_tags_end_steps_and_are_none(text, expected, thought):
    found = split(text, "blank_line")
    assert steps(text, "blank_line") == expected
    assert found.think_steps == thought


def test_each_section_is_split_by_its_own_structure():
    text = "<think>a is 1.\nb is 2.\n</think>Step 1: a\n\nStep 2: b"
    assert split(text).method == "newline+marker"


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\r\n \t\r\n", "<think></think>", "<think>\n</think>\n"])
@pytest.mark.parametrize("method", ["auto", "blank_line", "newline", "marker", "sentence"])
def test_blank_text_has_no_steps(text, method):
    assert split(text, method).spans == ()


def test_carriage_returns_change_nothing():
    for method in ("auto", "blank_line", "newline", "marker", "sentence"):
        text = CHAIN + "\n\n```\na\n\nb\n```\n\n| a |\n|---|\n| b |"
        dos = text.replace("\n", "\r\n")
        assert [step.replace("\r\n", "\n") for step in steps(dos, method)] == steps(text, method)


def test_the_answer_step_is_the_one_that_states_it():
    assert split("a\n\nb").answer_step is None
    assert split("It is \\boxed{4}.\n\nCheck: 2 + 2 = 4.").answer_step == 0


def test_one_huge_step_is_cut_and_the_cut_is_reported():
    text = "so we add one more and " * 2000
    found = split(text, max_step_tokens=100)
    assert found.capped == 1
    # 46,000 bytes are 15,333 tokens by the estimate: 154 steps of 100, some more as each word is rounded up to tokens.
    assert 154 <= len(found.spans) <= 205
    assert split(text, max_step_tokens=None).capped == 0
    assert len(split(text).spans) > 1  # capped by default


def test_exactly_the_pieces_of_a_method_are_there_for_the_asking():
    text = "We get:\n\n\\[ x \\]\n\n## Next\n\nb"
    assert len(steps(text, "blank_line")) == 2
    assert steps(text, "blank_line", attached=False) == ["We get:", "\\[ x \\]", "## Next", "b"]


def test_two_thousand_steps_and_a_megabyte_are_split():
    text = "\n\n".join(f"{k} + 1 = {k + 1}, and $x_{{{k}}}$ is {k}." for k in range(2000))
    assert len(split(text).spans) == 2000
    text = ("We have \\(a\\) and then some more words here. " * 10 + "\n\n") * 2200
    assert len(text) > 950_000
    assert len(split(text).spans) == 2200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "blankline"}, "Did you mean 'blank_line'"),
        ({"method": "token"}, "needs the step token"),
        ({"method": "newline", "token": "ки"}, "takes no step token"),
        ({"max_step_tokens": 0}, "at least 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        split("a", **options)


def test_what_is_no_text_is_refused():
    with pytest.raises(InputError, match="bytes"):
        split(b"a")


PARTS = [
    *("We get", "so x.", "Therefore, y.", "The answer is 4", "word " * 30, "a" * 90, "1.5", "é", "三只苹果。", "因此"),
    *(
        "\n",
        "\n\n",
        "\r\n\r\n",
        " ",
        "\t",
        "\u3000",
        "\u200b",
        "---",
        "## H",
        "Step 1:",
        "Step 2:",
        "1. ",
        "2. ",
        "第一步",
    ),
    *(
        "\\[",
        "\\]",
        "\\(",
        "\\)",
        "$",
        "$$",
        "\\begin{a}",
        "\\end{a}",
        "```",
        "|a|",
        "|-|",
        "<<",
        ">>",
        "\\boxed{",
        "}",
    ),
    *("<think>", "</think>", "ки", "#### 4", ":", "**"),
]
BLOCKS = [
    "\\[\nu\n\nv. W\n\\]",
    "$$\nu\n\n$$",
    "\\begin{b}\nu\n\n1. v\n\\end{b}",
    "```\nu\n\nStep 1: v\n```",
    "|u|\n|-|\n|v|",
]


@given(st.lists(st.sampled_from(PARTS), max_size=25).map("".join), st.sampled_from(sorted(METHODS)))
def test_spans_and_gaps_give_back_the_text_and_gaps_hold_no_words(text, method):
    token = "ки" if method == "token" else None
    for limit in (None, 20):
        found = split(text, method, token=token, max_step_tokens=limit)
        edges = [0, *(edge for span in found.spans for edge in span), len(text)]
        assert edges == sorted(edges)
        gaps = "".join(text[a:b] for a, b in list(pairwise(edges))[::2])
        assert not re.sub(r"</?think>|ки" if token else r"</?think>", "", gaps).strip()
        for start, end in found.spans:
            assert text[start:end] == text[start:end].strip() != ""
            assert not re.search(r"</?think>", text[start:end])
        assert all(0 <= a <= b <= len(text) for a, b in (*found.think, *filter(None, [found.answer])))
        Solution("p", text, found.spans)


@given(
    st.lists(
        st.sampled_from(["So we go on.", "And 1.5 more! Yes.", "Then", "\n", "\n\n", " ", "Step 1: a"]), max_size=8
    ),
    st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3),
    st.sampled_from(["auto", "blank_line", "newline", "marker", "sentence"]),
)
def test_no_method_cuts_inside_a_block(words, blocks, method):
    text = "".join(f"{word}\n{block}\n" for word, block in zip(words, blocks * 8, strict=False))
    where = [m.span() for block in set(blocks) for m in re.finditer(re.escape(block), text)]
    for start, end in split(text, method).spans:
        assert not any(a < start < b or a < end < b for a, b in where)


@given(st.lists(st.text(alphabet="ab .", min_size=1).filter(str.strip), max_size=6))
def test_plain_paragraphs_are_split_as_a_plain_split_does(paragraphs):
    text = "\n \n".join(paragraphs)
    plain = [piece.strip() for piece in re.split(r"\n\s*\n", text) if piece.strip()]
    assert steps(text, "blank_line", attached=False, max_step_tokens=None) == plain


def test_split_solution_fills_in_what_it_found():
    made = split_solution("p", CHAIN, source="s", meta={"row_id": 3})
    assert (made.steps, made.final_answer, made.source) == (tuple(steps(CHAIN)), "42", "s")
    assert made.meta == {"row_id": 3, "split_method": "blank_line"}
    assert split_solution("p", CHAIN, final_answer="41").final_answer == "41"
    assert (
        split_solution("p", "a b c d", max_step_tokens=1, count_tokens=lambda t: len(t.split())).meta["capped_steps"]
        == 1
    )
    assert split_solution("p", "").spans == ()


def test_a_resplit_is_another_solution_and_says_of_which():
    one = Solution(
        "p", "a.\nb.\n\nc.", ((0, 5), (7, 9)), is_correct=True, meta={"parent": "x", "branch_step": 1, "row_id": 3}
    )
    two = resplit(one, "newline")
    assert two.steps == ("a.", "b.", "c.")
    assert two.id != one.id
    assert two.is_correct
    assert two.meta == {"row_id": 3, "split_method": "newline", "resplit_of": one.id}
    assert resplit(one, "blank_line") is one


def test_the_summary_counts_what_a_canary_needs():
    splits = [split(CHAIN), split("x " * 900, "blank_line"), split(""), split("<think>a")]
    assert summarise(splits) == {
        "solutions": 4,
        "steps": 3 + 2 + 0 + 1,  # 1,799 bytes are 600 tokens: the one long step became two
        "without_steps": 1,
        "of_one_step": 1,
        "capped": 1,
        "with_answer": 1,
        "with_think": 1,
        "most_steps": 3,
        "method": {"auto": 1, "blank_line": 3},
    }


def test_think_steps_of_spans_that_straddle_nothing():
    assert think_steps([(0, 2), (3, 5), (6, 8), (9, 10)], [(1, 1), (3, 7)]) == (1, 2)
    assert Split(((0, 2),)).think_steps == ()
