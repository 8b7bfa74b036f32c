import pytest

from prm_kit.errors import InputError

ROW = {
    "original_question": "oq",
    "modified_question": "mq",
    "original_process": ["1. x", "2. y"],
    "modified_process": ["1. x", "Step 2. y", "3. z"],
    "modified_steps": [2],
    "error_steps": [2],
    "reason": "because",
    "idx": "prm_test_p1_0",
    "question": "oq",
    "classification": "circular",
}


def test_error_steps_count_from_one(read, values):
    """PMB-3."""
    (item,) = read("prmbench", ROW).items
    assert values(item) == (1, -1, 1)
    assert item.solution.problem == "mq"


def test_the_row_number_and_not_idx_is_the_id(read):
    """PMB-1."""
    solution = read("prmbench", ROW).items[0].solution
    assert (solution.meta["row_id"], solution.meta["idx"]) == ("rows.jsonl:1", "prm_test_p1_0")


def test_an_error_step_beyond_the_process_is_told_and_ignored(read, write, values):
    """PMB-2."""
    row = {**ROW, "error_steps": [0, 2, 9]}
    reading = read("prmbench", row)
    assert values(reading.items[0]) == (1, -1, 1)
    assert reading.notes == {"an entry of error_steps is not a step, ignored": 2}
    assert reading.items[0].annotations[0].meta["ignored_error_steps"] == [0, 9]
    assert write("prmbench", reading.items) == row


def test_number_prefixes_are_taken_off_and_put_back(read, write):
    items = read("prmbench", ROW).items
    assert items[0].solution.steps == ("x", "y", "z")
    assert items[0].solution.meta["step_prefixes"] == ["1. ", "Step 2. ", "3. "]
    assert write("prmbench", items) == ROW
    kept = read("prmbench", ROW, step_prefix="keep").items
    assert list(kept[0].solution.steps) == ROW["modified_process"]
    assert write("prmbench", kept, step_prefix="keep") == ROW


def test_a_number_that_belongs_to_the_step_stays(read):
    row = {**ROW, "modified_process": ["3.5 is the mean", "2 + 2 = 4", "x"]}
    assert read("prmbench", row).items[0].solution.steps == ("3.5 is the mean", "2 + 2 = 4", "x")


def test_a_redundant_step_is_right_but_adds_nothing(read, write, values):
    row = {**ROW, "classification": "redundency"}
    items = read("prmbench", row).items
    assert values(items[0]) == (1, 0, 1)
    assert write("prmbench", items) == row
    assert values(read("prmbench", row, redundant=-1).items[0]) == (1, -1, 1)


def test_originals_are_clean_variants_on_request(read, values):
    modified, original = read("prmbench", ROW, originals=True).items
    assert (modified.solution.meta["variant"], original.solution.meta["variant"]) == ("modified", "original")
    assert original.solution.problem == "oq"
    assert values(original) == (1, 1)


def test_labels_are_constructed_and_not_human(read):
    assert read("prmbench", ROW).items[0].annotations[0].rater.kind == "construction"


def test_error_steps_that_are_no_numbers_are_refused(read):
    with pytest.raises(InputError, match="error_steps"):
        read("prmbench", {**ROW, "error_steps": ["2"]})
