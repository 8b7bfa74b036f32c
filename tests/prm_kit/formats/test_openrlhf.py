import pytest

from prm_kit.errors import InputError
from prm_kit.exporting import export_data

TEXT = "Q? Step 1: a ки\nStep 2: b ки"
HARD = {"input": TEXT, "value": ["+", "-"]}


def test_the_first_reward_token_is_the_positive_one(read, write, values):
    items = read("openrlhf", HARD).items
    assert values(items[0]) == (1, -1)
    assert write("openrlhf", items) == HARD
    assert values(read("openrlhf", HARD, reward_tokens=["-", "+"]).items[0]) == (-1, 1)


def test_floats_stay_floats_under_the_keys_asked_for(read, write):
    row = {"text": TEXT, "score": [0.93, 0.12]}
    options = {"input_key": "text", "label_key": "score", "labels": "soft"}
    items = read("openrlhf", row, **options).items
    assert [label.shares[2] for label in items[0].annotations[0].labels] == [0.93, 0.12]
    assert write("openrlhf", items, **options) == row


def test_as_many_values_as_placeholders(read):
    """X-7, ORL-2: a value too many or too few is refused, never shifted."""
    with pytest.raises(InputError, match="3 values for 2 step marks"):
        read("openrlhf", {"input": TEXT, "value": ["+", "-", "+"]})


def test_a_wrong_key_names_the_keys_there_are(read):
    with pytest.raises(InputError, match="the row has text, value"):
        read("openrlhf", {"text": TEXT, "value": ["+", "-"]})


def test_a_step_with_the_placeholder_is_refused_with_the_id_of_its_solution(read, tmp_path):
    """X-2, ORL-2."""
    item = read("trl", {"prompt": "p", "completions": ["Step 1: a ки b"], "labels": [True]}).items[0]
    with pytest.raises(InputError, match=f"{item.solution.id}.*contains the step mark"):
        export_data([(item.solution, item.annotations[0])], "openrlhf", tmp_path / "x.jsonl")
    assert not (tmp_path / "x.jsonl").exists()


def test_float_values_are_written_with_a_warning(read, tmp_path):
    """ORL-1."""
    item = read("openrlhf", {"input": TEXT, "value": [0.5, 1]}).items[0]
    pair = [(item.solution, item.annotations[0])]
    report = export_data(pair, "openrlhf", tmp_path / "x.jsonl", options={"labels": "soft"})
    assert "fails on float values" in report["warning"]
