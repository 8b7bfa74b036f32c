import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.split.protect import Blocks, protect


def regions(text):
    return [text[start:end] for start, end in protect(text).spans]


@pytest.mark.parametrize(
    "block",
    [
        "\\[\nx = 1\n\n+ 2\n\\]",
        "$$\nx = 1\n\n+ 2\n$$",
        "\\begin{align*}\na &= b \\\\\n\nc &= d\n\\end{align*}",
        "\\begin{cases} a \\begin{matrix} 1 \\end{matrix}\n\n b \\end{cases}",
        "\\[ a \\\\[2pt]\n\n b \\]",
        "\\(a\n+ b\\)",
        "$a. B$",
        "<<48/2=24>>",
        "```python\nx = 1\n\ny = '$$ \\\\[ '\n```",
        "~~~\na\n\n```\nb\n~~~",
        "| n | n! |\n|---|:--:|\n| 3 | 6 |\n| 4 | 24 |",
    ],
)
def test_a_closed_block_is_one_region(block):
    assert regions(f"We see\n{block}\nand go on.") == [block]


@pytest.mark.parametrize(
    "text",
    [
        "\\[ x = 1\n\nand so on. Then\n\nmore",
        "$$ x = 1\n\nand more",
        "\\begin{align} x\n\nand more \\end{cases}",
        "\\( x = 1\n\nand \\) more",
        "```python\nx = 1\n\nno end",
        "~~~\nx\n```",
        "<<1+1=2\n>> x",
        "a $x is 5\nand y$",
        "|x| = 3 or\n|y| - 4",
        "\\$5 and 6\\$ or 5 \\\\",
    ],
)
def test_an_opener_that_is_not_closed_protects_nothing(text):
    assert regions(text) == []


def test_an_unclosed_opener_does_not_hide_a_closed_block_after_it():
    assert regions("\\[ a\n\n\\[ b \\] c") == ["\\[ b \\]"]
    assert regions("\\begin{x} a \\begin{y} b \\end{y} c") == ["\\begin{y} b \\end{y}"]
    assert regions("```py\na\n\n```py\nb\n```\nc") == ["```py\nb\n```"]
    # Three double dollars: one is stray, so no pair may cross a blank line.
    assert regions("$$ stray\n\ntext\n\n$$ y $$") == ["$$ y $$"]


def test_prices_are_no_formulas():
    assert regions("It costs $4. Then she paid $48 - $4 = $44.") == []
    assert regions("Of 10$ there are 5$ and 6$ left.") == []
    assert regions("For $5 she buys $x$ apples.") == ["$x$"]


def test_what_stands_in_a_closed_fence_opens_nothing_outside():
    assert regions("```\n$$ \\[ \\begin{x}\n```\n\na $$ b $$") == ["```\n$$ \\[ \\begin{x}\n```", "$$ b $$"]


def test_a_fence_closes_at_a_fence_at_least_as_long():
    text = "````\na\n```\nb\n````"
    assert regions(text) == [text]


def test_the_edges_of_a_region_are_outside():
    blocks = Blocks([(2, 5), (4, 7), (9, 10)])
    assert blocks.spans == [(2, 7), (9, 10)]
    assert blocks.outside(range(12)) == [0, 1, 2, 7, 8, 9, 10, 11]


def slow_environments(text):
    """Outermost closed environments by trying every pair, the nearest opener of the name first."""
    events = [(m.start(), m.end(), m[1], m[2]) for m in re.finditer(r"\\(begin|end)\{(\w)\}", text)]
    alive = [True] * len(events)
    found = []
    for j, (_, end, kind, name) in enumerate(events):
        if kind == "end":
            for i in range(j - 1, -1, -1):
                if alive[i] and events[i][2] == "begin" and events[i][3] == name:
                    found.append((events[i][0], end))
                    alive[i:j] = [False] * (j - i)
                    break
    return [a for a in sorted(found) if not any(b[0] <= a[0] and a[1] <= b[1] and a != b for b in found)]


@given(st.lists(st.sampled_from(["\\begin{a}", "\\begin{b}", "\\end{a}", "\\end{b}", " x", "\n\n"]), max_size=14))
def test_environments_pair_as_a_slow_search_pairs_them(parts):
    text = "".join(parts)
    assert protect(text).spans == slow_environments(text)


PARTS = ["\\[", "\\]", "\\(", "\\)", "$", "$$", "```\n", "~~~", "\\", "<<", ">>", "|", "-", "\n", " ", "x", "1"]


@given(st.lists(st.sampled_from([*PARTS, "\\begin{a}", "\\end{a}"]), max_size=30))
def test_regions_are_in_order_and_begin_and_end_as_blocks_do(parts):
    text = "".join(parts)
    spans = protect(text).spans
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    for start, end in spans:
        assert text[start] in "\\$`~<|-x1 \n"
        assert end == len(text) or start < end


def test_a_hostile_text_is_read_in_one_pass():
    # Each of these made a backtracking pattern of an earlier kind read the text again from every position.
    for unit in ("\\[ a", "\\( a\n", "$$ a\n\n", "$a ", "\\begin{a}", "```py\n", "<<a", "|-", "| a |\n|-|\n", "\\"):
        text = unit * (100_000 // len(unit))
        assert protect(text).spans == sorted(protect(text).spans)
