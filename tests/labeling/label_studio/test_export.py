import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.label_studio import export
from labeling.label_studio.export import exported_tasks
from prm_kit.errors import InputError


def written(tmp_path, text):
    path = tmp_path / "export.json.gz"
    path.write_bytes(gzip.compress(text.encode()))
    return path


@settings(max_examples=40)
@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=30), max_size=3), max_size=8), st.integers(1, 40))
def test_tasks_are_read_one_by_one_as_json_reads_them_at_once(tmp_path_factory, tasks, chunk):
    path = written(tmp_path_factory.mktemp("export"), json.dumps(tasks, indent=1, ensure_ascii=False))
    before, export._CHUNK = export._CHUNK, chunk
    try:
        assert list(exported_tasks(path)) == tasks
    finally:
        export._CHUNK = before


@pytest.mark.parametrize("text", ["", "{}", "<html>", '[{"a": 1}', '[{"a": 1}, {"b"', "[1]", '[{"a": NaN} x]'])
def test_what_is_no_list_of_objects_is_refused(tmp_path, text):
    with pytest.raises(InputError, match=r"export\.json\.gz"):
        list(exported_tasks(written(tmp_path, text)))
