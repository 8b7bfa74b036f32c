import pytest

from prm_kit.errors import InputError

ROW = {"instruction": "2+3?", "solutions": ["Step 1: add +", "Step 2: 6 -"]}


def test_solutions_carry_their_label_at_the_end(read, write, values):
    items = read("distilabel", ROW).items
    assert items[0].solution.steps == ("Step 1: add", "Step 2: 6")
    assert values(items[0]) == (1, -1)
    assert write("distilabel", items) == ROW


def test_labels_may_be_longer_than_one_character(read, write, values):
    """DL-1."""
    row = {"instruction": "q", "solutions": ["Step 1: a GOOD", "Step 2: b NOT GOOD"]}
    options = {"positive": "GOOD", "negative": "NOT GOOD"}
    items = read("distilabel", row, **options).items
    assert items[0].solution.steps == ("Step 1: a", "Step 2: b")
    assert values(items[0]) == (1, -1)
    assert write("distilabel", items, **options) == row


def test_its_output_is_the_layout_of_math_shepherd(read, write, values):
    """DL-2: hard labels only, of rollouts."""
    items = read("distilabel", ROW).items
    row = write("distilabel", items, shape="math-shepherd")
    assert row == {"input": "2+3? Step 1: add ки\nStep 2: 6 ки", "label": "2+3? Step 1: add +\nStep 2: 6 -"}
    again = read("distilabel", row).items
    assert again[0].solution == items[0].solution
    assert values(again[0]) == (1, -1)
    assert items[0].annotations[0].rater.kind == "rollout"


def test_a_step_without_label_is_refused(read):
    with pytest.raises(InputError, match=r"solutions\[1\]"):
        read("distilabel", {"instruction": "q", "solutions": ["Step 1: a +", "Step 2: b"]})
