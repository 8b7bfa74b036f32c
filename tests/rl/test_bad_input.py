"""What a run of reinforcement learning must stand: a PRM that reads other ids, and being killed where it stands."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prm_kit.model import Prm
from prm_kit.policy import Policy
from prm_kit.prm_scorer import PrmScorer
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from rl.presets import algorithm
from rl.rewarding import Rewarding
from rl.train import train
from rl.train_settings import RlSettings

TASK = ArithmeticTask()
PROBLEMS = TASK.problems("train", 6, 0)

KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from rl.learning import Learner
from test_bad_input import run

learn = Learner.learn

def dies(self, material, number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return learn(self, material, number)

Learner.learn = dies
run(sys.argv[1], sys.argv[2])
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy")
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(path)
    return str(path)


def digits(rollouts):
    return [sum(map(str.isdigit, one.solution.completion)) / one.length for one in rollouts]


def run(policy, out):
    asked = RlSettings(
        policy=policy, algorithm="grpo", updates=4, problems=2, group_size=3, max_new_tokens=12, split="newline",
        learning_rate=1e-2, checkpoint_every=1, device="cpu",
    )  # fmt: skip
    return train(asked, PROBLEMS, TASK.verify, Path(out), rewards={"digits": (1.0, digits)})


def test_a_run_that_was_killed_outright_takes_the_same_next_step(policy, tmp_path):
    run(policy, tmp_path / "whole")
    words = [sys.executable, "-c", KILLED, policy, str(tmp_path / "cut"), str(Path(__file__).parent)]
    assert subprocess.run(words, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "summary.json").exists()
    assert len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 2
    assert run(policy, tmp_path / "cut")["resumed"]
    for file in ("metrics.jsonl", "rollouts.jsonl", "checkpoint/model.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_prm_whose_tokenizer_is_not_the_policys_reads_the_text(policy, backbone, tmp_path):
    scorer = PrmScorer(Prm.from_backbone(backbone))  # words, where the policy writes characters
    asked = RlSettings(
        policy=policy, algorithm="rloo-min", updates=1, problems=2, group_size=3, max_new_tokens=12, split="newline",
        device="cpu",
    )  # fmt: skip
    seen = []

    def looks(rollouts):
        seen.extend(rollouts)
        return [0.0] * len(rollouts)

    last = train(asked, PROBLEMS, TASK.verify, tmp_path, scorer=scorer, rewards={"looks": (0.0, looks)})["last"]
    assert last["process"] is not None
    told = Rewarding(algorithm("rloo-min"), TASK.verify, 12, scorer).step_values(seen)
    alone = [scorer.score([one.solution])[0].values for one in seen if one.solution.spans]
    judged = [values for one, values in zip(seen, told, strict=True) if one.solution.spans]
    for values, expected in zip(judged, alone, strict=True):
        for value, by_itself in zip(values, expected, strict=True):
            assert value in (None, -1.0) or value == pytest.approx(by_itself, abs=1e-5)
