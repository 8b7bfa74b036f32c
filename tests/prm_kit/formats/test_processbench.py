import pytest

from prm_kit.errors import InputError
from prm_kit.formats.processbench import labels_of

ROW = {
    "id": "gsm8k-0",
    "generator": "Qwen2-7B-Instruct",
    "problem": "p",
    "steps": ["a", "b", "c"],
    "final_answer_correct": False,
    "label": 1,
}


def test_the_label_counts_from_zero_and_what_follows_is_not_judged(read, values):
    """PB-2: label 1 is the second step."""
    (item,) = read("processbench", ROW).items
    assert values(item) == (1, -1, None)
    assert item.annotations[0].first_error == 1
    assert values(read("processbench", {**ROW, "label": -1}).items[0]) == (1, 1, 1)


def test_a_right_answer_reached_the_wrong_way_is_kept_and_flagged(read):
    """PB-4."""
    (item,) = read("processbench", {**ROW, "final_answer_correct": True}).items
    assert item.solution.is_correct is True
    assert item.annotations[0].first_error == 1
    assert item.annotations[0].flags == ("right_answer_wrong_process",)
    assert read("processbench", ROW).items[0].annotations[0].flags == ()


def test_the_row_comes_back_as_it_was(read, write):
    assert write("processbench", read("processbench", ROW).items) == ROW


def test_id_subset_and_generator_are_kept(read):
    solution = read("processbench", ROW).items[0].solution
    assert (solution.meta["row_id"], solution.meta["subset"]) == ("gsm8k-0", "gsm8k")
    assert solution.generator == "Qwen2-7B-Instruct"


@pytest.mark.parametrize("label", [3, -2, True, None, "1"])
def test_a_label_that_is_no_step_is_refused(read, label):
    with pytest.raises(InputError, match="label"):
        read("processbench", {**ROW, "label": label})


def test_every_place_of_the_first_error_gives_back_itself():
    for n in range(1, 6):
        for first in range(-1, n):
            labels = labels_of(first, n)
            assert len(labels) == n
            assert (labels.index(-1) if -1 in labels else -1) == first
