import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.label.into import label_into
from prm_kit.ledger import Ledger
from prm_kit.policy import Policy
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.snapshot import SnapshotWriter
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer

PROBLEM = "Start with 3{}, add 5, subtract 2."
STEPS = ["Step 1: 3{0} + 5 = 3{1}", "Step 2: 3{1} - 2 = 3{2}", "Answer: 3{2}"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(path / "checkpoint")
    return path / "checkpoint"


def snapshot(path, solutions):
    with SnapshotWriter(path, name="rows", format="written") as writer:
        for solution in solutions:
            writer.add(solution)
    return path


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Three right solutions and one without a reference answer."""
    solutions = []
    for i in range(4):
        steps = [step.format(i, i + 5, i + 3) for step in STEPS]
        fields = {"final_answer": f"3{i + 3}", "reference_answer": f"3{i + 3}" if i else None, "is_correct": True}
        solutions.append(Solution.from_steps(PROBLEM.format(i), steps, "\n", **fields))
    return snapshot(tmp_path_factory.mktemp("rows") / "snapshot", solutions)


def run(rows, policy, out, *words):
    asked = [
        "label",
        "rollouts",
        rows,
        "--policy",
        policy,
        "--out",
        out,
        "--samples",
        2,
        "--max-new-tokens",
        6,
        "--json",
    ]
    done = CliRunner().invoke(app, [str(word) for word in (*asked, *words)])
    return done, json.loads((out / "summary.json").read_text()) if (out / "summary.json").exists() else None


def annotations(out):
    with Ledger(out / "ledger.sqlite", must_exist=True) as ledger:
        return list(ledger.current())


@pytest.mark.parametrize("method", ["hard", "omega"])
def test_every_solution_with_a_reference_is_labelled_once(rows, policy, tmp_path, method):
    done, summary = run(rows, policy, tmp_path, "--method", method)
    assert done.exit_code == 0, done.output
    assert (summary["labelled"], summary["passed_over"]) == (3, {"no reference answer": 1})
    found = annotations(tmp_path)
    assert len(found) == 3
    # an untrained policy reaches nothing, but the solutions' own answers are right
    assert all(annotation.values(3)[2] == 1 for annotation in found)
    assert {a.rater.name for a in found} == {policy.parent.name + (" omega" if method == "omega" else "")}
    assert summary["rollouts"]["rollouts"] == (3 * 3 * 2 if method == "hard" else 0)
    _, summary = run(rows, policy, tmp_path, "--method", method)
    assert (summary["already_labelled"], summary["labelled"]) == (3, 0)
    assert annotations(tmp_path) == found


def test_a_budget_stops_with_3_and_the_next_run_goes_on(rows, policy, tmp_path):
    whole, _ = run(rows, policy, tmp_path / "whole")
    assert whole.exit_code == 0
    counts = []
    for _ in range(4):
        done, summary = run(rows, policy, tmp_path / "parts", "--max-rollouts", 9)
        counts.append((done.exit_code, summary["labelled"], summary["rollouts"]["rollouts"]))
    # a solution of three steps may take (3 + 1) x 2 rollouts, and takes 3 x 2 because it states its answer
    assert counts == [(3, 1, 6), (3, 1, 6), (0, 1, 6), (0, 0, 0)]
    assert [a.id for a in annotations(tmp_path / "parts")] == [a.id for a in annotations(tmp_path / "whole")]


def test_another_setting_is_another_version(rows, policy, tmp_path):
    run(rows, policy, tmp_path)
    _, summary = run(rows, policy, tmp_path, "--seed", 1)
    assert summary["labelled"] == 3


def test_wrong_use_is_told(rows, policy, tmp_path):
    for words, reason in (
        (("--method", "harder"), "method"),
        (("--method", "soft", "--threshold", "0.5"), "no threshold"),
        (("--policy", str(tmp_path / "nowhere")), "no such folder"),
        (("--task", "arithmetik"), "Did you mean 'arithmetic'?"),
    ):
        done, _ = run(rows, policy, tmp_path / "out", *words)
        assert done.exit_code == 2
        assert reason in done.output


def test_solutions_that_a_labeller_came_by_are_stored_with_their_batch(tmp_path):
    given, found = (Solution.from_steps("?", [text]) for text in ("given", "found"))

    class Labels:
        rater = Rater("rollout", "scripted", "1")

        def label(self, solutions):
            return (Annotation.of(solution, self.rater, [1]) for solution in solutions)

    more = [[Labelled(found, next(Labels().label([found])))]]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        made = list(label_into(Labels(), [given], ledger, set(), lambda *_: None, further=more.pop))
        assert [annotation.solution_id for annotation in made] == [given.id]
        assert [pair.solution for pair in ledger.labelled()] == [given, found]


def test_going_back_to_earlier_settings_counts_again_and_leaves_first_runs_without_times(tmp_path):
    given = Solution.from_steps("?", ["given"])

    class Labels:
        def __init__(self, version):
            self.rater = Rater("rollout", "scripted", version)

        def label(self, solutions):
            return (Annotation.of(solution, self.rater, [1]) for solution in solutions)

    versions = ["1", "2", "1", "2", "1"]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for version in versions:
            labels = Labels(version)
            list(label_into(labels, [given], ledger, ledger.labelled_by(labels.rater), lambda *_: None))
            assert ledger.labelled_by(labels.rater) == {given.id}
            assert not list(label_into(labels, [given], ledger, ledger.labelled_by(labels.rater), lambda *_: None))
        history = ledger.history(given.id)
    assert [annotation.rater.version for annotation in history] == versions
    assert [bool(annotation.time) for annotation in history] == [False, False, True, True, True]


def test_soft_rollouts_are_another_rater_and_leave_the_hard_labels_alone(rows, policy, tmp_path):
    run(rows, policy, tmp_path)
    run(rows, policy, tmp_path, "--method", "soft")
    names = [annotation.rater.name for annotation in annotations(tmp_path)]
    assert sorted(set(names)) == [policy.parent.name, policy.parent.name + " soft"]
    assert len(names) == 6


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_labels(policy, tmp_path):
    wrong = {"final_answer": "1", "reference_answer": "2", "is_correct": False}
    solutions = [Solution.from_steps(f"Start with {i}.", ["1", "2", "3"], "\n", **wrong) for i in range(40)]
    path = snapshot(tmp_path / "rows", solutions)
    words = ("--window", 4, "--temperature", 5.0)
    whole, _ = run(path, policy, tmp_path / "whole", *words)
    assert whole.exit_code == 0
    asked = ["label", "rollouts", path, "--policy", policy, "--out", tmp_path / "cut", "--samples", 2]
    asked += ["--max-new-tokens", 6, *words]
    for _ in range(3):
        code = "from pipelines.cli import main; main()"
        process = subprocess.Popen([sys.executable, "-c", code, *map(str, asked)], stderr=subprocess.DEVNULL)
        before = len(annotations(tmp_path / "cut")) if (tmp_path / "cut" / "ledger.sqlite").exists() else 0
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            if (tmp_path / "cut" / "ledger.sqlite").exists() and len(annotations(tmp_path / "cut")) > before:
                break
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done, _ = run(path, policy, tmp_path / "cut", *words)
    assert done.exit_code == 0
    assert [a.id for a in annotations(tmp_path / "cut")] == [a.id for a in annotations(tmp_path / "whole")]
