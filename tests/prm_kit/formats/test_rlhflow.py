import pytest

from prm_kit.errors import InputError, UsageError


def chat(*turns):
    roles = ("user", "assistant")
    return {"conversations": [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]}


ROW = chat("What is 2+3? Step 1: add", "+", "Step 2: it is 6", "-")


def test_the_first_turn_is_cut_before_step_1(read, write, values):
    items = read("rlhflow", ROW).items
    assert items[0].solution.problem == "What is 2+3?"
    assert items[0].solution.steps == ("Step 1: add", "Step 2: it is 6")
    assert values(items[0]) == (1, -1)
    assert write("rlhflow", items) == ROW


def test_the_stored_label_is_what_the_assistant_says(read, values):
    """RF-2: at scoring time every turn is fed "+", but what is stored is the label."""
    assert values(read("rlhflow", chat("Q Step 1: a", "-")).items[0]) == (-1,)


def test_a_blank_line_can_end_the_problem(read, write):
    options = {"first_step": "", "problem_separator": "\n\n"}
    row = chat("A problem\n\nin two parts\n\nFirst, add.", "+")
    items = read("rlhflow", row, **options).items
    assert items[0].solution.problem == "A problem\n\nin two parts"
    assert items[0].solution.steps == ("First, add.",)
    assert write("rlhflow", items, **options) == row


def test_a_space_alone_cannot_end_the_problem(read):
    with pytest.raises(UsageError, match="nothing else ends the problem"):
        read("rlhflow", ROW, first_step="")


@pytest.mark.parametrize("key", ["label", "labels"])
def test_best_of_n_sets_are_solutions_without_steps(read, key):
    items = read("rlhflow", {"prompt": "p", "answers": ["x", "y"], key: [1, 0]}).items
    assert [(item.solution.completion, item.solution.is_correct) for item in items] == [("x", True), ("y", False)]
    assert all(item.annotations == () and item.solution.spans == () for item in items)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (chat("Q Step 1: a", "+", "Step 2: b"), "last step has no label"),
        (chat("Q Step 1: a", "maybe"), "neither"),
        ({"conversations": [{"role": "assistant", "content": "+"}]}, "not a turn of the user"),
        (chat("no step", "+"), "no 'Step 1:'"),
    ],
)
def test_what_is_no_such_conversation_is_refused(read, row, reason):
    with pytest.raises(InputError, match=reason):
        read("rlhflow", row)
