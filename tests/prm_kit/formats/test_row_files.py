import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_kit.errors import InputError
from prm_kit.formats import row_files
from prm_kit.formats.format import Row
from prm_kit.formats.row_files import BadRow, is_json_lines, parse_object, rows_of_file


def write(path, text):
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz"])
def test_lines_and_arrays_packed_or_not_give_the_same_rows(tmp_path, name):
    rows = [{"a": "x\u2028y"}, {"a": "\r\n"}, {"a": "]"}]
    text = json.dumps(rows, indent=1) if ".json." in name + "." else "\n".join(json.dumps(row) for row in rows)
    found = list(rows_of_file(write(tmp_path / name, text)))
    assert [row.value for row in found] == rows
    assert [row.number for row in found] == [1, 2, 3]


def test_bad_lines_are_told_by_number_and_hide_no_other(tmp_path):
    lines = [b'{"a": 1}', b'{"a": ', b"", b"[1]", b'{"a": "\xff"}', b'{"a": NaN}', b'{"a": 2}']
    found = list(rows_of_file(write(tmp_path / "a.jsonl", b"\n".join(lines))))
    good = [(row.number, row.value["a"]) for row in found if isinstance(row, Row)]
    bad = [(row.number, row.reason) for row in found if isinstance(row, BadRow)]
    assert good == [(1, 1), (7, 2)]
    assert [number for number, _ in bad] == [2, 4, 5, 6]
    assert "list is not an object" in bad[1][1]
    assert "not UTF-8" in bad[2][1]
    assert "NaN" in bad[3][1]


def test_a_byte_order_mark_is_no_text(tmp_path):
    assert [row.value for row in rows_of_file(write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a": 1}\n'))] == [{"a": 1}]
    assert [row.value for row in rows_of_file(write(tmp_path / "a.json", b'\xef\xbb\xbf[{"a": 1}]\n'))] == [{"a": 1}]


def test_elements_longer_than_what_is_read_at_a_time_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "_CHUNK", 7)
    rows = [{"text": "x" * 50}, {}, {"text": 'é\\"' * 9}]
    assert [row.value for row in rows_of_file(write(tmp_path / "a.json", json.dumps(rows)))] == rows
    assert list(rows_of_file(write(tmp_path / "b.json", " [ ] "))) == []


@pytest.mark.parametrize("text", ['[{"a": 1}', '[{"a": 1} {"a": 2}]', '[{"a": 1}] x', '[{"a": 1},]', '[{"a": 1,}]'])
def test_a_malformed_array_is_an_error(tmp_path, text):
    with pytest.raises(InputError, match=r"a\.json"):
        list(rows_of_file(write(tmp_path / "a.json", text)))


def test_a_truncated_gzip_is_an_error(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", '{"a": 1}\n' * 1000)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match="cannot be read"):
        list(rows_of_file(path))


def test_parquet_rows_are_rows(tmp_path):
    pq.write_table(pa.table({"prompt": ["p"], "labels": [[True, False]]}), tmp_path / "a.parquet")
    (row,) = rows_of_file(tmp_path / "a.parquet")
    assert row.value == {"prompt": "p", "labels": [True, False]}
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"b\.parquet"):
        list(rows_of_file(tmp_path / "b.parquet"))


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(rows_of_file(tmp_path / "none.jsonl"))


def test_lines_are_told_from_arrays_by_the_first_character(tmp_path):
    assert is_json_lines(write(tmp_path / "a", "\n {}"))
    assert not is_json_lines(write(tmp_path / "b", "\n [{}]"))
    assert not is_json_lines(write(tmp_path / "c", ""))


def test_a_row_nested_too_deeply_is_refused():
    with pytest.raises(InputError):
        parse_object('{"a":' * 100_000)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5) | st.integers() | st.none()), max_size=5))
def test_any_rows_come_back_from_lines_and_from_an_array(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    lines = write(folder / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    array = write(folder / "a.json", json.dumps(rows))
    assert [row.value for row in rows_of_file(lines)] == [row.value for row in rows_of_file(array)] == rows
