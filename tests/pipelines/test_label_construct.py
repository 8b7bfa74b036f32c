import json

from typer.testing import CliRunner

from pipelines.cli import app
from prm_kit.records import Annotation
from prm_kit.snapshot import SnapshotWriter
from prm_kit.split import split_solution
from prm_kit.tasks.arithmetic import ArithmeticTask, final_answer
from prm_kit.view import View

TASK = ArithmeticTask(slip_rate=0.0)


def embedded(path):
    """Ten right solutions, labelled by the task's program."""
    with SnapshotWriter(path, name="rows", format="written") as writer:
        for demonstration in TASK.demonstrations("train", 10, 0):
            solution = split_solution(
                demonstration.problem,
                demonstration.completion,
                "newline",
                attached=False,
                final_answer=final_answer(demonstration.completion),
                is_correct=True,
            )
            writer.add(solution, [Annotation.of(solution, TASK.rater, TASK.label_steps(solution))])
    return path


def construct(*words):
    done = CliRunner().invoke(app, ["label", "construct", *map(str, words), "--json"])
    return done, json.loads(done.stdout) if done.exit_code == 0 else None


def test_constructions_are_a_labelled_source_of_their_own(tmp_path):
    rows = embedded(tmp_path / "rows")
    done, summary = construct(rows, "--out", tmp_path / "out", "--rely-on", "rule", "--filler", "So far {result}")
    assert done.exit_code == 0, done.output
    assert summary["counts"]["made: altered_number"] == 10
    assert summary["labels"]["-1"] > 0
    pairs = list(View([tmp_path / "out" / "constructed"]).labelled(rater_kinds=["construction"]))
    assert len(pairs) == summary["solutions"]
    assert {pair.solution.source for pair in pairs} == {"construction"}
    again, _ = construct(rows, "--out", tmp_path / "again", "--rely-on", "rule", "--filler", "So far {result}")
    assert again.exit_code == 0
    files = [tmp_path / run / "constructed" / "solutions.parquet" for run in ("out", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_tasks_program_labels_the_kinds_that_nothing_else_can(tmp_path):
    rows = embedded(tmp_path / "rows")
    _, summary = construct(
        rows, "--out", tmp_path / "out", "--task", "arithmetic", "--corruption", "dropped_step", "--rely-on", "rule"
    )
    assert summary["counts"] == {"made: dropped_step": 10}


def test_wrong_use_is_told(tmp_path):
    rows = embedded(tmp_path / "rows")
    for words, reason in (
        (("--corruption", "droped_step"), "Did you mean 'dropped_step'?"),
        (("--task", f"file:{tmp_path}/x.jsonl"), "no such file"),
        (("--rely-on", "humans"), "Did you mean 'human'?"),
    ):
        done, _ = construct(rows, "--out", tmp_path / "out", *words)
        assert done.exit_code == 2
        assert reason in done.output
