import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.split.attach import attach
from prm_kit.split.boundaries import Layout, blank_line
from prm_kit.split.protect import protect


def joined(text, lists=True):
    layout = Layout(text, protect(text))
    return [text[start:end] for start, end in attach(text, blank_line(layout), layout.blocks, lists)]


HEADS = [
    "## Solution",
    "**Step 1**",
    "**Step 1: Add up**",
    "**Step 1:**",
    "Step 1:",
    "Solution:",
    "1.",
    "- ",
    "---",
    "解：",
    "第一步：",
]


@pytest.mark.parametrize("head", HEADS)
def test_a_heading_joins_what_follows(head):
    assert joined(f"First.\n\n{head}\n\nSecond.") == ["First.", f"{head}\n\nSecond."]


@pytest.mark.parametrize("text", ["**x = 5**", "**We are done.**", "So x is 5", "x = 5:"])
def test_a_statement_is_no_heading(text):
    assert joined(f"{text}\n\nSecond.") == [text, "Second."]


def test_a_heading_at_the_end_stands_by_itself_and_a_rule_does_not():
    assert joined("First.\n\n## Step 2") == ["First.", "## Step 2"]
    assert joined("First.\n\n---") == ["First.\n\n---"]


def test_headings_in_a_row_join_the_first_text_after_them():
    assert joined("# A\n\n## B\n\ntext") == ["# A\n\n## B\n\ntext"]


def test_a_display_joins_the_sentence_that_announces_it():
    assert joined("We get\n\n\\[ x = 1 \\]\n\nNext.") == ["We get\n\n\\[ x = 1 \\]", "Next."]
    assert joined("As code:\n\n```\nx\n```") == ["As code:\n\n```\nx\n```"]
    assert joined("In a table:\n\n| a |\n|---|\n| 1 |") == ["In a table:\n\n| a |\n|---|\n| 1 |"]


def test_a_display_after_a_full_stop_or_after_a_display_is_a_step():
    assert joined("It ends.\n\n$$x = 1$$") == ["It ends.", "$$x = 1$$"]
    assert joined("So:\n\n\\[ a \\]\n\n\\[ b \\]") == ["So:\n\n\\[ a \\]", "\\[ b \\]"]


def test_where_joins_the_display_before_it_if_it_is_one_sentence():
    assert joined("So:\n\n\\[ ax \\].\n\nwhere a is 2.") == ["So:\n\n\\[ ax \\].\n\nwhere a is 2."]
    assert len(joined("So:\n\n\\[ ax \\]\n\nwhere a is 2. Then it is 4.")) == 2


def test_a_loose_list_stays_with_its_introduction_but_long_points_are_steps():
    assert joined("Let us define these numbers:\n\n- a be 1\n\n- b be 2\n\nThen.") == [
        "Let us define these numbers:\n\n- a be 1\n\n- b be 2",
        "Then.",
    ]
    assert joined("Let us define these numbers:\n\n- a", lists=False) == ["Let us define these numbers:", "- a"]
    assert len(joined("Cases.\n\n- a\n\n- b")) == 3
    assert len(joined("We have the following cases:\n\n- " + "long " * 50)) == 2


@given(st.lists(st.sampled_from(["# A", "x", "---", "\\[y\\]", "We get:", "- p", "where q", "|", "**b**"]), max_size=9))
def test_attaching_only_ever_removes_inner_edges(pieces):
    text = "\n\n".join(pieces)
    layout = Layout(text, protect(text))
    before = blank_line(layout)
    after = attach(text, before, layout.blocks, lists=True)
    assert {start for start, _ in after} <= {start for start, _ in before}
    assert {end for _, end in after} <= {end for _, end in before}
    assert (after[0][0], after[-1][1]) == (before[0][0], before[-1][1]) if before else after == []
