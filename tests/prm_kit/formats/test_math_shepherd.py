import pytest

from prm_kit.errors import InputError

QUESTION = "Janet pays $40 + $2 - how much?"


def row(steps, labels, question=QUESTION, mark="ки"):
    def text(marks):
        return question + " " + "\n".join(f"{step} {mark}" for step, mark in zip(steps, marks, strict=True))

    return {"input": text([mark] * len(steps)), "label": text(labels), "task": "GSM8K"}


STEPS = ["Step 1: 3 + 5 = <<3+5=8>>8 hours - a week.", "Step 2: 40*3 = <<40*3=120>>120 +"]


def test_steps_and_labels_come_from_aligning_the_two_texts(read, values):
    (item,) = read("math-shepherd", row(STEPS, ["+", "-"])).items
    assert item.solution.problem == QUESTION
    assert list(item.solution.steps) == STEPS
    assert values(item) == (1, -1)
    assert item.annotations[0].rater.kind == "rollout"
    assert item.annotations[0].meta["label_origin"] == "Monte-Carlo hard estimation"
    assert item.solution.meta["subset"] == "GSM8K"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"input": "Q Step 1: a ки", "label": "Q Step 1: b +"}, "differs from input"),
        ({"input": "Q Step 1: a ки", "label": "Q Step 1: a ?"}, "neither the positive nor"),
        ({"input": "Q Step 1: a ки tail", "label": "Q Step 1: a + tail"}, "text after the last step mark"),
        ({"input": "Q no mark", "label": "Q no mark"}, "no step mark"),
        ({"input": "A problem ки\nStep 1: a ки", "label": "A problem +\nStep 1: a +"}, "no 'Step 1:' before"),
        ({"input": "Q Step 1: a ки\n ки", "label": "Q Step 1: a +\n +"}, "step 1 is empty"),
        ({"input": "Q Step 1: a ки"}, "label: missing"),
    ],
)
def test_malformed_rows_are_refused_with_a_reason(read, value, reason):
    """MS-1: rows with a label inside the problem and other damage; the driver counts them."""
    with pytest.raises(InputError, match=reason):
        read("math-shepherd", value)


def test_a_problem_may_say_step_1_and_end_lines_with_labels(read, values):
    """MS-2."""
    question = "Bob wrote Step 1: add +\nStep 2: subtract -\nWhat was wrong?"
    (item,) = read("math-shepherd", row(["Step 1: he added +", "Step 2: so"], ["-", "+"], question)).items
    assert item.solution.problem == question
    assert item.solution.steps == ("Step 1: he added +", "Step 2: so")
    assert values(item) == (-1, 1)


def test_calculator_spans_are_untouched(read, write):
    """MS-3."""
    value = row(STEPS, ["+", "-"])
    reading = read("math-shepherd", value)
    assert "<<3+5=8>>8" in reading.items[0].solution.completion
    assert write("math-shepherd", reading.items) == value


def test_the_mark_as_a_word_of_the_problem_is_text(read):
    value = {"input": "руки вверх? Step 1: a ки", "label": "руки вверх? Step 1: a +"}
    (item,) = read("math-shepherd", value).items
    assert item.solution.problem == "руки вверх?"


def test_numbers_can_stay_outside_of_the_steps(read, write):
    value = row(["Step 1: a", "Step 2: b"], ["+", "-"])
    reading = read("math-shepherd", value, step_numbers="outside")
    assert reading.items[0].solution.steps == ("a", "b")
    assert write("math-shepherd", reading.items, step_numbers="outside") == value


def test_a_step_with_the_mark_in_it_is_not_written(read, write):
    reading = read("trl", {"prompt": "p", "completions": ["Step 1: руки"], "labels": [True]})
    with pytest.raises(InputError, match="step 0 contains the step mark"):
        write("math-shepherd", reading.items)


def test_a_first_step_without_its_number_is_not_written(read, write):
    reading = read("trl", {"prompt": "p", "completions": ["a"], "labels": [True]})
    with pytest.raises(InputError, match="step_numbers"):
        write("math-shepherd", reading.items)


def test_other_marks_and_labels_are_options(read, write):
    value = {"input": "Q Step 1: a [S]\nStep 2: b [S]", "label": "Q Step 1: a good\nStep 2: b bad"}
    options = {"step_mark": "[S]", "positive": "good", "negative": "bad"}
    reading = read("math-shepherd", value, **options)
    assert reading.seen == {"good": 1, "bad": 1}
    assert write("math-shepherd", reading.items, **options) == value | {"task": None}
