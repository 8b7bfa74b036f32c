import pytest

from prm_kit.errors import InputError, UsageError
from prm_kit.formats.hub import hub_parts, is_dataset, rows_of_dataset

datasets = pytest.importorskip("datasets")

ROWS = [
    {"prompt": "p", "completions": ["a"], "labels": [True]},
    {"prompt": "q", "completions": ["b"], "labels": [False]},
]


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "one"))
    parts = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "two"))
    return tmp_path


def test_a_saved_data_set_gives_its_rows(saved):
    assert [row.value for row in rows_of_dataset(str(saved / "one"))] == ROWS
    assert [row.number for row in rows_of_dataset(f"hf://{saved}/two:train")] == [1, 2]
    assert [row.value for row in rows_of_dataset(f"{saved}/two:test")] == ROWS[:1]


def test_a_split_must_be_named_and_exist(saved):
    with pytest.raises(UsageError, match="test, train"):
        list(rows_of_dataset(str(saved / "two")))
    with pytest.raises(UsageError, match="Did you mean 'train'"):
        list(rows_of_dataset(f"{saved}/two:trian"))


def test_a_folder_that_is_no_data_set_is_an_error(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        list(rows_of_dataset(str(tmp_path)))


def test_without_a_network_the_error_says_what_to_give_instead(monkeypatch):
    def refuse(*words, **named):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(InputError, match=r"no route.*save_to_disk"):
        list(rows_of_dataset("hf://owner/name:train"))


def test_no_code_of_a_data_set_is_asked_for(monkeypatch):
    asked = {}

    def load(name, config=None, **named):
        asked.update(named, name=name, config=config)
        return {"train": ROWS}

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert [row.value for row in rows_of_dataset("hf://owner/name/main@abc:train")] == ROWS
    assert asked == {"name": "owner/name", "config": "main", "revision": "abc", "streaming": True}


def test_a_hub_name_has_its_parts():
    assert hub_parts("hf://a/b") == ("a/b", None, None, None)
    assert hub_parts("hf://a/b/c@d:e") == ("a/b", "c", "d", "e")
    with pytest.raises(UsageError, match="OWNER/NAME"):
        hub_parts("hf://alone")


def test_a_file_is_no_data_set(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    assert not is_dataset(str(tmp_path / "a.jsonl"))
    assert is_dataset(str(tmp_path))
    assert is_dataset("hf://a/b")
