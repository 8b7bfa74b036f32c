import json
import subprocess
import sys
from random import Random

import pytest

from pipelines.quickstart.labels import ANNOTATORS, merged_labels
from pipelines.quickstart.run import STAGES, run_quickstart, weak_policy
from pipelines.quickstart.settings import QuickstartSettings
from pipelines.quickstart.solutions import read_labelled
from prm_kit.engines.engine import Rollout
from prm_kit.errors import UsageError
from prm_kit.model import Prm
from prm_kit.policy import Policy
from prm_kit.tasks.arithmetic import ArithmeticTask, parse_problem
from prm_kit.tasks.arithmetic_policy import arithmetic_tokenizer
from prm_kit.tasks.task import split_of

SMALL = QuickstartSettings(
    demonstrations=100,
    policy_batch_tokens=2000,
    prm_batch_tokens=2000,
    train_problems=30,
    dev_problems=10,
    test_problems=10,
    samples=4,
    max_new_tokens=40,
    prm_epochs=1,
    rl_updates=1,
    rl_problems=2,
)


class DemonstratingEngine:
    """Writes demonstrations in place of the policy, which one second of training leaves unable to write a line."""

    def __init__(self, model):
        self.tokenizer = arithmetic_tokenizer()
        self.policy = Policy.of(model, self.tokenizer)

    def generate(self, prefixes, n, limits):
        task, random = ArithmeticTask(), Random(limits.seed)
        groups = []
        for prefix in prefixes:
            chain = parse_problem(self.tokenizer.decode(list(prefix)))
            ids = self.policy.completion_ids([task.write(chain, random) for _ in range(n)])
            groups.append([Rollout(tuple(found), (0.0,) * len(found), "stop") for found in ids])
        return groups


@pytest.fixture(scope="module", autouse=True)
def _demonstrating_engine():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prm_kit.engines.transformers_engine.TransformersEngine", DemonstratingEngine)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart")
    told = []
    summary = run_quickstart(out, 3, lambda stage, done, total, *_: told.append((stage, done, total)), SMALL)
    return out, summary, told


def test_it_leaves_what_it_promises(run):
    out, summary, _ = run
    assert json.loads((out / "summary.json").read_text(encoding="utf-8")) == summary
    assert Prm.load(out / "checkpoint").card.target == "steps"
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")
    for when in ("before", "after"):
        assert {"metric", "value", "low", "high", "n"} <= summary["prm"][when].keys()
    assert "ORM" in summary["baselines"]
    assert len(summary["baselines"]) > 2
    assert summary["seconds"] > 0
    assert "one seed" in summary["figures_are_of"]


def test_a_policy_that_has_not_learnt_its_task_is_told():
    # 29 of 800 right: 3.6 %; 80 of 800 are the tenth that is asked for
    assert "only 3.6% of the policy's samples are right" in weak_policy({"dev": {"right": 29, "samples": 800}})[0]
    assert weak_policy({"dev": {"right": 80, "samples": 800}}) == []


def test_progress_names_every_stage_and_ends_it(run):
    _, _, told = run
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == list(STAGES)
    for stage in STAGES:
        done, total = [(d, t) for s, d, t in told if s == stage][-1]
        assert done == total


def test_nothing_is_tested_on_a_problem_that_was_trained_on(run):
    out, _, _ = run
    problems = {}
    for split in ("train", "dev", "test"):
        found = {item.solution.problem for item in read_labelled(out / "data" / split)}
        assert {split_of(text) for text in found} == {split}
        problems[split] = found
    taught = {d.problem for d in ArithmeticTask().demonstrations("train", SMALL.demonstrations, 3)}
    assert not taught & set().union(*problems.values())


def test_labels_come_from_the_tasks_program_and_say_so(run):
    out, _, _ = run
    task = ArithmeticTask()
    for solution, annotation in read_labelled(out / "data" / "test"):
        assert annotation.rater == task.rater
        assert annotation.values(len(solution.spans)) == task.label_steps(solution)


def test_training_labels_are_merged_from_rules_and_simulated_annotators_and_say_so(run):
    out, summary, _ = run
    labelled = merged_labels(out / "data" / "train", out / "labels")
    assert {item.annotation.rater.kind for item in labelled} == {"merged"}
    assert all(len(label.sources) >= len(ANNOTATORS) for item in labelled for label in item.annotation.labels)
    raters = summary["training_labels"]
    assert {name.split()[0] for name in raters} == {"rule", "simulated", "merged"}
    assert raters["simulated ada"]["coverage"] == 1.0
    assert raters["merged dawid-skene"]["right"] > raters["simulated eva"]["right"]


def test_a_finished_run_is_not_redone_and_another_seed_needs_another_folder(run):
    out, summary, _ = run
    assert run_quickstart(out, 3, None, SMALL) == summary
    with pytest.raises(UsageError, match=r"quickstart\.seed was 3, now 4"):
        run_quickstart(out, 4, None, SMALL)


def test_a_stopped_run_goes_on_and_gives_the_same_figures(run, tmp_path):
    _, summary, _ = run

    def stop(stage, done, total, *_):
        if stage == "models":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_quickstart(tmp_path, 3, stop, SMALL)
    again = run_quickstart(tmp_path, 3, None, SMALL)
    assert [again[key] for key in ("prm", "baselines", "best_of_n")] == [
        summary[key] for key in ("prm", "baselines", "best_of_n")
    ]


CHILD = """
import os, time
from pipelines.quickstart.side_by_side import _begin_child
parent = os.getpid()
if os.fork() == 0:
    _begin_child(parent)
    print("training", flush=True)
time.sleep(200)
"""


def test_a_model_in_training_ends_with_the_run_that_was_killed():
    run = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.readline() == b"training\n"
    run.kill()
    assert run.stdout.read() == b""  # its end comes when the child has closed it as well
    run.wait()
    run.stdout.close()
