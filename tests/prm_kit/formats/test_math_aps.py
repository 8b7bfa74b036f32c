import random

import pytest

from prm_kit.errors import InputError
from prm_kit.formats.math_aps_tree import longest_prefixes


def node(text, value, *children):
    return {"text": text, "mc_value": value, "children": list(children)}


TREE = {
    "question": "What is 2+3?",
    "question_id": "q1",
    "final_answer": "5",
    "reasoning_steps": node(
        "What is 2+3?", 0.5, node("Add.", 0.75, node("It is 5.", 1.0), node("It is 6.", 0.0)), node("Guess 7.", 0.0)
    ),
}
FLAT = {
    "question": "What is 2+3?",
    "question_id": "q1",
    "final_answer": "5",
    "reasoning_steps": [
        {"solution_prefix": "What is 2+3?\n\nAdd.\n\n It is 5.", "mc_value": 1.0},
        {"solution_prefix": "What is 2+3?\n\nGuess 7.", "mc_value": 0.0},
        {"solution_prefix": "What is 2+3?", "mc_value": 0.5},
        {"solution_prefix": "What is 2+3?\n\nAdd.\n\n It is 6.", "mc_value": 0.0},
        {"solution_prefix": "What is 2+3?\n\nAdd.", "mc_value": 0.75},
    ],
}
PATHS = {("Add.", "It is 5."), ("Add.", "It is 6."), ("Guess 7.",)}


def soft(item):
    return {label.step: label.shares for label in item.annotations[0].labels}


@pytest.mark.parametrize("row", [TREE, FLAT])
def test_every_leaf_is_one_path_and_the_flat_list_is_no_sequence(read, row):
    """APS-1."""
    reading = read("math-aps", row)
    assert {item.solution.steps for item in reading.items} == PATHS
    assert len(reading.items) == 3


@pytest.mark.parametrize("row", [TREE, FLAT])
def test_the_question_is_no_step(read, row):
    """APS-2."""
    reading = read("math-aps", row)
    assert all(step != "What is 2+3?" for item in reading.items for step in item.solution.steps)
    assert reading.items[0].annotations[0].meta["root_value"] == 0.5


def test_a_node_given_twice_is_kept_once_and_a_conflict_is_told(read):
    """APS-3."""
    again = {**FLAT, "reasoning_steps": FLAT["reasoning_steps"] + FLAT["reasoning_steps"][3:]}
    again["reasoning_steps"].append({"solution_prefix": "What is 2+3?\n\nAdd.", "mc_value": 0.25})
    reading = read("math-aps", again)
    assert reading.items == read("math-aps", FLAT).items
    assert reading.notes["a node given twice was kept once"] == 3
    assert reading.notes["a node was given twice with different values, the first one kept"] == 1


def test_values_stay_soft_and_a_shared_step_is_labelled_once(read):
    first, second, third = read("math-aps", TREE).items
    assert soft(first) == {0: (0.25, 0.0, 0.75), 1: (0.0, 0.0, 1.0)}
    assert soft(second) == {1: (1.0, 0.0, 0.0)}
    assert (second.solution.meta["parent"], second.solution.meta["branch_step"]) == (first.solution.id, 1)
    assert soft(third) == {0: (1.0, 0.0, 0.0)}
    assert "parent" not in third.solution.meta
    assert all(label.value is None for item in (first, second, third) for label in item.annotations[0].labels)


def test_the_flat_form_keeps_the_text_between_the_steps(read):
    completions = {item.solution.completion for item in read("math-aps", FLAT).items}
    assert "\n\nAdd.\n\n It is 5." in completions


def test_a_parent_ends_where_a_word_ends():
    assert longest_prefixes(["x = 2", "x = 24", "x = 24.", "x = 2 or"]) == {
        "x = 2": "",
        "x = 24": "",
        "x = 24.": "x = 24",
        "x = 2 or": "x = 2",
    }


def test_parents_are_those_of_the_slow_search():
    generator = random.Random(5)
    for _ in range(200):
        texts = {"".join(generator.choices("a b.", k=generator.randint(1, 6))) for _ in range(12)}

        def fits(parent, text):
            inside = parent[-1].isalnum() and text[len(parent)].isalnum()
            return text != parent and text.startswith(parent) and not inside

        slow = {
            text: max((p for p in texts if p != text and text.startswith(p) and fits(p, text)), key=len, default="")
            for text in texts
        }
        assert longest_prefixes(sorted(texts)) == slow


@pytest.mark.parametrize("shape", ["tree", "flat"])
@pytest.mark.parametrize("row", [TREE, FLAT])
def test_a_tree_written_and_read_has_the_same_steps_and_values(read, write, row, shape):
    items = read("math-aps", row).items
    again = read("math-aps", write("math-aps", items, shape=shape), separator="\n\n").items
    assert [(item.solution.steps, soft(item)) for item in again] == [
        (item.solution.steps, soft(item)) for item in items
    ]
    if shape == "flat":
        assert again == items


def test_the_tree_form_is_written_as_it_was(read, write):
    assert write("math-aps", read("math-aps", TREE).items) == TREE


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "process": "Step 1: a ки\nStep 2: b ки", "labels": [1, 0]},
        {"question": "q", "process": "Step 1: a \n\n\n\n\n Step 2: b \n\n\n\n\n", "label": ["+", "-"]},
    ],
)
def test_the_converted_forms_are_read(read, values, row):
    (item,) = read("math-aps", row).items
    assert item.solution.steps == ("Step 1: a", "Step 2: b")
    assert values(item) == (1, -1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"question": "q", "reasoning_steps": [{"solution_prefix": "other", "mc_value": 1}]},
            "begin with the question",
        ),
        ({"question": "q", "reasoning_steps": [{"solution_prefix": "q a", "mc_value": 1.5}]}, "in \\[0, 1\\]"),
        ({"question": "q", "reasoning_steps": node("another", 0.5)}, "root is not the question"),
        ({"question": "q", "reasoning_steps": [{"solution_prefix": "q", "mc_value": 1}]}, "no step below"),
        ({"question": "q", "process": "a ки", "labels": [1, 0]}, "2 labels for 1 step tags"),
    ],
)
def test_what_is_no_such_tree_is_refused(read, row, reason):
    with pytest.raises(InputError, match=reason):
        read("math-aps", row)
