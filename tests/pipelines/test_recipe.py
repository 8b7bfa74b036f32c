import pytest

from pipelines.data import source_files
from pipelines.recipe import Recipe, Source, load_recipe, shipped_recipes
from prm_kit.errors import UsageError
from prm_kit.settings import load_settings

GOOD = """
name: tiny
data:
  rows: {paths: [rows.jsonl]}
train:
  sources: [rows]
  settings: {backbone: some/model}
evaluate: {sources: [rows]}
"""


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_is_valid(name):
    assert load_recipe(name).name == name


def test_a_wrong_key_deep_in_a_recipe_names_file_line_and_nearest(tmp_path):
    path = write(tmp_path, GOOD.replace("backbone:", "learning_rat: 1, backbone:"))
    with pytest.raises(
        UsageError, match=r"recipe.yaml:7: train.settings.learning_rat: unknown key; did you mean 'learning_rate'"
    ):
        load_settings(Recipe, path)


def test_a_stage_that_names_no_source_is_refused_with_the_nearest(tmp_path):
    path = write(tmp_path, GOOD.replace("evaluate: {sources: [rows]}", "evaluate: {sources: [row]}"))
    with pytest.raises(UsageError, match=r"unknown data source 'row'\. Did you mean 'rows'"):
        load_settings(Recipe, path)


def test_an_unknown_recipe_lists_the_shipped_ones():
    with pytest.raises(UsageError, match=r"unknown recipe 'prm80k'. Did you mean 'prm800k'"):
        load_recipe("prm80k")


def test_paths_are_globs_below_the_root(tmp_path):
    for name in ("b_train.jsonl", "a_train.jsonl.gz", "test.jsonl"):
        (tmp_path / name).write_text("")
    found = source_files(Source(paths=["*train*.jsonl*", "hf://owner/name:train"]), tmp_path)
    assert [path.rsplit("/", 1)[-1] for path in found] == ["a_train.jsonl.gz", "b_train.jsonl", "name:train"]


def test_a_path_that_matches_nothing_says_how_to_mend_it(tmp_path):
    with pytest.raises(UsageError, match="root=DIR"):
        source_files(Source(paths=["*none*"]), tmp_path)
