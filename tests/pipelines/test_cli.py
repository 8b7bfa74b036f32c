import json
import subprocess
import sys
from importlib import metadata

import pytest


def prm_kit(*words, cwd=None):
    code = "from pipelines.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, cwd=cwd)


def test_help_names_every_verb():
    done = prm_kit("--help")
    assert done.returncode == 0
    for verb in ("import", "export", "split", "label", "train", "score", "eval", "run", "quickstart", "doctor"):
        assert verb in done.stdout


def test_version_is_that_of_the_package():
    assert prm_kit("--version").stdout.strip() == f"prm-kit {metadata.version('prm-kit')}"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["runn"], "run"),
        (["run", "prm80k"], "Did you mean 'prm800k'?"),
        (["run", "prm800k", "train.settings.learning_rat=1"], "train.settings.learning_rat: unknown key"),
        (["import", "prm80k", "rows.jsonl", "--out", "x"], "prm800k"),
    ],
)
def test_wrong_use_exits_with_2_and_names_the_nearest(words, reason, tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    done = prm_kit(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_malformed_data_exits_with_1_and_names_the_line(tmp_path):
    good = {"problem": "p", "steps": ["a"], "labels": [1]}
    lines = [json.dumps(good | {"problem": str(i)}) for i in range(3)] + ['{"problem": "p", "steps": []']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    done = prm_kit("import", "steps", tmp_path / "rows.jsonl", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "rows.jsonl:4" in done.stderr
    assert not (tmp_path / "out").exists()


def test_json_prints_the_summary_verbatim_and_nothing_else(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"problem": "p", "steps": ["a"], "labels": [1]}) + "\n")
    done = prm_kit("import", "steps", tmp_path / "rows.jsonl", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "out" / "summary.json").read_text()


def test_the_doctor_finds_this_environment_whole():
    done = prm_kit("doctor", "--json")
    findings = json.loads(done.stdout)["findings"]
    assert done.returncode == 0, [f for f in findings if f["status"] == "FAIL"]
    assert {"python", "torch", "answer checker"} <= {finding["check"] for finding in findings}
