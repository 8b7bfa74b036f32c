import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prm_kit.policy import Policy
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from rl.train_settings import RlSettings

FILE = Path(__file__).parents[2] / "benchmarks" / "gpu_grpo.py"


def test_a_toy_run_tells_tokens_a_second_and_the_shares_of_its_phases(tmp_path):
    spec = importlib.util.spec_from_file_location("gpu_grpo", FILE)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(tmp_path / "policy")
    settings = RlSettings(
        policy=str(tmp_path / "policy"),
        algorithm="grpo",
        parts={"weights": {"process": 0.0, "format": 0.0}},
        updates=benchmark.WARM + 1,
        problems=2,
        group_size=2,
        max_new_tokens=8,
        split="newline",
        device="cpu",
        checkpoint_every=None,
    )
    found = benchmark.figures(settings, ArithmeticTask(), 4, None)
    assert found["tokens_per_second"] > 0
    shares = {name: share for name, share in found.items() if name.startswith("share of ")}
    assert set(shares) == {"share of generation", "share of log-probabilities", "share of learning"}
    assert 0 < sum(shares.values()) <= 1.01


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device here")
def test_without_a_device_it_says_so_and_exits_with_2():
    done = subprocess.run([sys.executable, FILE, "policy", "task"], capture_output=True, text=True, cwd=FILE.parents[1])
    assert done.returncode == 2
    assert "there is none here" in done.stderr
