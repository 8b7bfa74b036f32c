import json

import pytest

from pipelines.stage import Stages
from prm_kit.run_directory import RunDirectory


@pytest.fixture
def calls():
    return []


def run(tmp_path, calls, source, seed=0, fail=False):
    stages = Stages(RunDirectory(tmp_path / "run"), lambda line: None)

    def import_(folder):
        calls.append("import")
        (folder / "rows").write_text(source.read_text())
        return {"rows": len(source.read_text())}

    def train(folder):
        calls.append("train")
        (folder / "partial").write_text("half")
        if fail:
            raise RuntimeError("killed")
        return {"seed": seed}

    stages("import", import_, settings={}, files=[source])
    stages("train", train, settings={"seed": seed}, after=["import"], keeps_partial_work=True)
    return stages


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("a")
    return path


def test_a_stage_whose_inputs_and_settings_are_unchanged_is_skipped(tmp_path, calls, source):
    run(tmp_path, calls, source)
    stages = run(tmp_path, calls, source)
    assert calls == ["import", "train"]
    assert stages.skipped == ["import", "train"]


def test_changed_settings_run_the_stage_and_no_earlier_one(tmp_path, calls, source):
    run(tmp_path, calls, source)
    run(tmp_path, calls, source, seed=1)
    assert calls == ["import", "train", "train"]


def test_a_changed_file_runs_everything_that_stands_on_it(tmp_path, calls, source):
    run(tmp_path, calls, source)
    source.write_text("b")
    run(tmp_path, calls, source)
    assert calls == ["import", "train"] * 2


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, calls, source):
    with pytest.raises(RuntimeError):
        run(tmp_path, calls, source, fail=True)
    assert (tmp_path / "run" / "stages" / "train" / "partial").exists()
    run(tmp_path, calls, source)
    assert calls == ["import", "train", "train"]


def test_every_artefact_records_what_made_it(tmp_path, calls, source):
    run(tmp_path, calls, source, seed=7)
    made = json.loads((tmp_path / "run" / "stages" / "train" / "stage.json").read_text())["made_by"]
    assert made["settings"] == {"seed": 7}
    assert made["after"] == ["import"]
    assert made["prm_kit"]
