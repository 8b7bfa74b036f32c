import pytest

from prm_kit.files import file_sha256, json_text, value_sha256, whole_directory, whole_file


def test_a_file_whose_writing_fails_never_appears(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(f"half {1 / 0}")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_directory_whose_filling_fails_leaves_the_old_one(tmp_path):
    with whole_directory(tmp_path / "d") as part:
        (part / "x").write_text("1")
    with pytest.raises(ZeroDivisionError), whole_directory(tmp_path / "d") as part:
        (part / "x").write_text(f"2 {1 / 0}")
    assert (tmp_path / "d" / "x").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_filled_directory_replaces_the_old_one_as_a_whole(tmp_path):
    for name in ("x", "y"):
        with whole_directory(tmp_path / "d") as part:
            (part / name).write_text(name)
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["y"]


def test_text_is_written_with_its_newlines_as_given(tmp_path):
    with whole_file(tmp_path / "a") as file:
        file.write("a\r\nb\n")
    assert (tmp_path / "a").read_bytes() == b"a\r\nb\n"


def test_json_refuses_numbers_that_json_has_not():
    with pytest.raises(ValueError, match="Out of range"):
        json_text({"a": float("nan")})


def test_hashes_do_not_depend_on_key_order(tmp_path):
    assert value_sha256({"a": 1, "b": 2}) == value_sha256({"b": 2, "a": 1})
    (tmp_path / "a").write_bytes(b"")
    assert file_sha256(tmp_path / "a").startswith("e3b0c442")
