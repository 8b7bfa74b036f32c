import pytest

from prm_kit.errors import InputError, UsageError
from prm_kit.exporting import export_data
from prm_kit.formats.registry import layout_of
from prm_kit.formats.trl import TRL

HARD = {"prompt": "3+4*2?", "completions": ["4*2 = 8.", "3+8 = 12."], "labels": [True, False]}
SOFT = {**HARD, "labels": [0.7, 0.0]}


def test_bool_labels_are_hard_and_come_back(read, write, values):
    reading = read("trl", HARD)
    assert values(reading.items[0]) == (1, -1)
    assert write("trl", reading.items) == HARD


def test_float_labels_are_soft_and_come_back_to_the_last_digit(read, write, values):
    reading = read("trl", SOFT)
    assert values(reading.items[0]) == (None, None)
    assert [label.shares[2] for label in reading.items[0].annotations[0].labels] == [0.7, 0.0]
    assert write("trl", reading.items, labels="float") == SOFT


def test_soft_labels_become_bools_only_with_a_threshold_and_floats_only_when_asked_for(read, tmp_path):
    """TRL-1: 0.7 must not become 0 on the way; the report warns that TRL's trainer would do that."""
    item = read("trl", SOFT).items[0]
    pair = [(item.solution, item.annotations[0])]
    with pytest.raises(UsageError, match="threshold"):
        export_data(pair, "trl", tmp_path / "a.jsonl")
    report = export_data(pair, "trl", tmp_path / "b.jsonl", options={"threshold": 0.5})
    assert '"labels": [true, false]' in (tmp_path / "b.jsonl").read_text()
    assert "truncates float labels" in report["warning"]
    export_data(pair, "trl", tmp_path / "c.jsonl", options={"labels": "float"})
    assert '"labels": [0.7, 0.0]' in (tmp_path / "c.jsonl").read_text()


def test_an_integer_that_is_no_truth_value_is_refused_and_never_true(read):
    """TRL-5, X-6: -100 through a bool column would read as true."""
    with pytest.raises(InputError, match=r"labels\[1\]"):
        read("trl", {**HARD, "labels": [1, -100]})


def test_steps_and_labels_are_counted_against_each_other(read):
    """TRL-4."""
    with pytest.raises(InputError, match="1 labels for 2 completions"):
        read("trl", {**HARD, "labels": [True]})


def test_a_chat_prompt_is_refused(read):
    with pytest.raises(InputError, match="chat messages"):
        read("trl", {**HARD, "prompt": [{"role": "user", "content": "x"}]})


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'separator'"):
        layout_of(TRL, {"seperator": "\n"})
