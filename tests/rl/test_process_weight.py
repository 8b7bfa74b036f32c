import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.errors import UsageError
from prm_kit.policy import Policy
from prm_kit.score import StepScores
from prm_kit.settings import load_settings
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from rl.alarms import Alarm
from rl.learning import Learner
from rl.presets import algorithm
from rl.process_weight import PATIENCE, check_schedule, process_weight, weighed
from rl.train import train
from rl.train_settings import RlSettings


def alarmed(*updates, kind="prm"):
    """Thirty lines of which some have an alarm."""
    return [{"update": n, **({"alarms": [{"kind": kind}]} if n in updates else {})} for n in range(30)]


def test_a_schedule_goes_in_a_line_and_then_stays():
    schedule = {"from": 0.5, "to": 0.1, "over": 4}
    # 0.5 - 0.4 x n / 4
    assert [process_weight(schedule, 9.0, n, []) for n in range(7)] == pytest.approx(
        [0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1]
    )
    assert process_weight({"from": 0.5, "to": 0.1, "over": 0}, 9.0, 0, []) == 0.1
    assert process_weight("constant", 0.7, 50, alarmed(3)) == 0.7


def test_the_automatic_weight_halves_with_alarms_of_the_prm_that_are_far_enough_apart_and_ends_at_0():
    lines = alarmed(5, 6, 9, 10, 15, 20, 29)
    # 5; 6 and 9 are too soon after it; 10; 15; the fourth, 20, takes it to 0; the fifth changes nothing
    found = [process_weight("automatic", 0.8, n, lines[:n]) for n in (5, 6, 10, 11, 16, 21, 30)]
    assert found == [0.8, 0.4, 0.4, 0.2, 0.1, 0.0, 0.0]
    assert process_weight("automatic", 0.8, 30, alarmed(5, 15, kind="policy")) == 0.8


@given(st.sets(st.integers(0, 29)))
def test_an_automatic_weight_never_rises_and_falls_once_in_its_patience_at_most(updates):
    lines = alarmed(*updates)
    weights = [process_weight("automatic", 1.0, n, lines[:n]) for n in range(31)]
    falls = [n for n in range(30) if weights[n + 1] < weights[n]]
    assert weights == sorted(weights, reverse=True)
    assert all(b - a >= PATIENCE for a, b in pairwise(falls))


def test_at_another_weight_everything_else_is_as_it_was_and_at_0_no_step_is_credited():
    own = algorithm("rloo-min")
    half, none = weighed(own, 0.25), weighed(own, 0.0)
    assert (half.weights.process, half.credit, half.weights.final) == (0.25, own.credit, own.weights.final)
    assert (none.weights.process, none.credit, none.process_estimator) == (0.0, None, None)
    assert none.estimator is own.estimator
    assert weighed(own, own.weights.process) is own
    assert weighed(algorithm("dapo"), 0.0).composed_weights.process == 0


@pytest.mark.parametrize(
    ("schedule", "name", "word"),
    [
        ("automatic", "grpo", "does not reward steps"),
        ("automatic", "grpo-process", "by the PRM alone"),
        ({"from": 1.0, "to": 0.0, "over": 5}, "grpo-process", "by the PRM alone"),
        ({"from": 1.0, "over": 5}, "rloo-min", "give to too"),
        ({"from": 1.0, "to": -0.5, "over": 5}, "rloo-min", "process_weight.to: -0.5 is below 0"),
    ],
)
def test_a_schedule_that_means_nothing_is_refused(schedule, name, word):
    with pytest.raises(UsageError, match=word):
        check_schedule(schedule, algorithm(name))


def test_a_schedule_is_given_on_the_command_line():
    keys = ["policy=p", "process_weight.from=0.5", "process_weight.to=0", "process_weight.over=20"]
    schedule = load_settings(RlSettings, None, keys).process_weight
    assert schedule == {"from": 0.5, "to": 0, "over": 20}
    check_schedule(schedule, algorithm("rloo-min"))
    with pytest.raises(UsageError, match="process_weight"):
        load_settings(RlSettings, None, ["policy=p", "process_weight=fading"])


class LikesDigits:
    """A scorer."""

    name = "digits"

    def score(self, solutions):
        return [StepScores(tuple(self._one(step) for step in one.steps)) for one in solutions]

    def _one(self, step):
        right = (1 + sum(c.isdigit() for c in step)) / (2 + len(step))
        return (1 - right, 0.0, right)


def trained(policy, out, **changes):
    asked = {"updates": 4, "problems": 2, "group_size": 4, "max_new_tokens": 20, "split": "newline", "device": "cpu",
             "algorithm": "rloo-min", "checkpoint_every": 1, **changes}  # fmt: skip
    problems = ArithmeticTask().problems("train", 4, 0)
    train(RlSettings(policy=policy, **asked), problems, lambda _, text: len(text) % 2 == 0, out, scorer=LikesDigits())
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy")
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(path)
    return str(path)


def test_a_weight_that_falls_to_0_leaves_the_outcome_and_is_told(policy, tmp_path):
    lines = trained(policy, tmp_path, updates=3, process_weight={"from": 0.4, "to": 0.0, "over": 2})
    assert [line["process_weight"] for line in lines] == pytest.approx([0.4, 0.2, 0.0])
    assert [line.get("process_share", 0) > 0 for line in lines] == [True, True, False]
    assert all(line["process"] is not None for line in lines)  # it is watched all the same
    with pytest.raises(UsageError, match="does not reward steps"):
        trained(policy, tmp_path / "grpo", algorithm="grpo", process_weight="automatic")


def test_a_run_that_was_killed_goes_on_with_the_weight_that_alarms_have_left(policy, tmp_path, monkeypatch):
    def gamed(lines, held_out=()):
        return [Alarm("steps", "prm", 0, "so")] if lines and lines[-1]["update"] == 1 else []

    monkeypatch.setattr("rl.alarms.alarms", gamed)
    whole = trained(policy, tmp_path / "whole", process_weight="automatic")
    assert [line["process_weight"] for line in whole] == [0.5, 0.5, 0.25, 0.25]
    learn, calls = Learner.learn, []

    def dies(self, material, number):
        calls.append(number)
        if len(calls) == 4:
            raise RuntimeError("killed")
        return learn(self, material, number)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "learn", dies)
        with pytest.raises(RuntimeError, match="killed"):
            trained(policy, tmp_path / "cut", process_weight="automatic")
    assert trained(policy, tmp_path / "cut", process_weight="automatic") == whole
