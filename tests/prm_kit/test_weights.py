import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from prm_kit.errors import InputError
from prm_kit.weights import read_json, read_tensor, tensor_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights")
    save_file({"a": torch.arange(12.0).reshape(4, 3)}, path / "one.safetensors")
    save_file({"b": torch.ones(2, dtype=torch.bfloat16)}, path / "two.safetensors")
    return path


def test_each_tensor_is_found_in_its_file_and_read_in_float32(folder):
    files = tensor_files(folder)
    assert {name: file.name for name, file in files.items()} == {"a": "one.safetensors", "b": "two.safetensors"}
    assert read_tensor(files, "b").dtype == torch.float32
    # rows 2 and 0 of 0 1 2 / 3 4 5 / 6 7 8 / 9 10 11
    assert read_tensor(files, "a", [2, 0]).tolist() == [[6, 7, 8], [0, 1, 2]]


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_rows_are_those_of_the_whole_tensor(folder, rows):
    files = tensor_files(folder)
    assert torch.equal(read_tensor(files, "a", rows), read_tensor(files, "a")[rows])


def test_a_tensor_or_row_that_is_not_there_is_refused(folder, tmp_path):
    files = tensor_files(folder)
    with pytest.raises(InputError, match="the tensor c is missing"):
        read_tensor(files, "c")
    with pytest.raises(InputError, match="a has 4 rows, so token 9 has none"):
        read_tensor(files, "a", [1, 9])
    with pytest.raises(InputError, match="weights must be safetensors; there are none"):
        tensor_files(tmp_path)
    for text in ("[1]", "{", "", "[" * 200_000):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=r"config\.json: "):
            read_json(tmp_path / "config.json")


@pytest.mark.parametrize("listed", [None, [], ["a"], {"a": 3}])
def test_an_index_that_names_no_files_is_refused(tmp_path, listed):
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(InputError, match="weight_map does not name the file of each tensor"):
        tensor_files(tmp_path)
