import gzip
import json

import pytest

from prm_kit.errors import InputError, UsageError
from prm_kit.formats.hub import rows_of_dataset
from prm_kit.formats.row_files import rows_of_file
from prm_kit.formats.row_output import row_output

ROWS = [{"p": "é", "labels": [True, False]}, {"p": "b\r\n", "labels": [True]}]


def write(path, rows):
    with row_output(path) as one:
        for row in rows:
            one(json.dumps(row, ensure_ascii=False).encode())


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz", "a.parquet"])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_what_is_written_is_read_again(tmp_path, name, n):
    write(tmp_path / name, ROWS[:n])
    assert [row.value for row in rows_of_file(tmp_path / name)] == ROWS[:n]


def test_a_name_without_ending_is_a_folder_of_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    write(tmp_path / "saved", ROWS)
    assert [row.value for row in rows_of_dataset(str(tmp_path / "saved"))] == ROWS
    write(tmp_path / "saved", ROWS[:1])
    assert [row.value for row in rows_of_dataset(str(tmp_path / "saved"))] == ROWS[:1]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write(tmp_path / name, ROWS)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).count(b"\n") == 2


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.parquet", "saved"])
def test_an_error_on_the_way_leaves_nothing(tmp_path, name):
    def fail():
        with row_output(tmp_path / name) as one:
            one(b"{}")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_something_else_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="not replaced"):
        row_output(tmp_path / "mine")


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.parquet"):
        row_output(tmp_path / "a.csv")


def test_rows_of_different_types_are_no_table(tmp_path):
    with pytest.raises(InputError, match="JSON lines"):
        write(tmp_path / "a.parquet", [{"a": 1}, {"a": "x"}])
