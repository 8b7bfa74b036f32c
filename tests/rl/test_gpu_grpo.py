import importlib.util
import json
from pathlib import Path

import pytest
import torch

from prm_kit.policy import Policy
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer

FILE = Path(__file__).parents[2] / "benchmarks" / "gpu_grpo.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("gpu_grpo", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_toy_run_tells_tokens_a_second_and_the_shares_of_its_phases(benchmark, tmp_path):
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(tmp_path / "policy")
    problems = ArithmeticTask().problems("train", 4, 0)
    rows = [{"question": problem.text, "answer": problem.reference_answer} for problem in problems]
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, rows)))
    small = ["--updates", "1", "--problems", "2", "--group-size", "2", "--max-new-tokens", "8"]
    out = tmp_path / "figures.json"
    benchmark.main([str(tmp_path / "policy"), f"file:{tmp_path}/problems.jsonl", "--cpu", *small, "--json", str(out)])
    arms = json.loads(out.read_text())
    assert set(arms) == {"prompts apart", "prompts shared"}
    for found in arms.values():
        assert found["tokens_per_second"] > 0
        shares = {name: share for name, share in found.items() if name.startswith("share of ")}
        assert set(shares) == {"share of generation", "share of log-probabilities", "share of learning"}
        assert 0 < sum(shares.values()) <= 1.01


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device here")
def test_without_a_device_it_says_so_and_exits_with_2(benchmark, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["policy", "task"])
    assert ended.value.code == 2
    assert "there is none here" in capsys.readouterr().err
