import json
import multiprocessing
import runpy
import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prm_kit.policy import Policy
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from prm_kit.train_settings import LoraSettings
from prm_kit.training_state import latest_state
from rl.train_settings import Branching, RlSettings

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from process_runs import run  # noqa: E402


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy")
    Policy.of(arithmetic_policy(0, hidden=16, layers=2), arithmetic_tokenizer()).save(path)
    return str(path)


def settings(policy, algorithm, **changes):
    asked = {
        "updates": 2,
        "problems": 3,
        "group_size": 4,
        "max_new_tokens": 24,
        "split": "newline",
        "learning_rate": 1e-2,
        "micro_batch_tokens": 200,
        "device": "cpu",
        "eval_samples": 1,
    }
    return RlSettings(policy=policy, algorithm=algorithm, **{**asked, **changes})


def together(tmp_path, size, runs, stop=None):
    """Exit code and error of each of `size` processes that do `runs`, one after the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rl.train"])
    errors = tmp_path / "errors"
    errors.mkdir(exist_ok=True)
    processes = []
    for rank in range(size):
        job = {
            "rank": rank, "size": size, "port": port, "runs": runs, "stop": stop, "errors": errors, "tests": str(HERE),
        }  # fmt: skip
        one = context.Process(target=runpy.run_path, args=(str(HERE / "one_process.py"), {"JOB": job}))
        one.start()
        processes.append(one)
    for process in processes:
        process.join(600)
    said = [errors / f"{rank}.txt" for rank in range(size)]
    return [
        (process.exitcode, path.read_text() if path.exists() else "")
        for process, path in zip(processes, said, strict=True)
    ]


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_same(one, other, tolerance=2e-4):
    """Every figure of every line, the rollouts that were kept, and the weights of two runs."""
    first, second = metrics(one), metrics(other)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"part"}:
            assert a[key] == pytest.approx(b[key], rel=tolerance, abs=2e-6), key
    shown = [[json.loads(line) for line in (out / "rollouts.jsonl").read_text().splitlines()] for out in (one, other)]
    assert [row["completion"] for row in shown[0]] == [row["completion"] for row in shown[1]]
    assert [row["reward"] for row in shown[0]] == pytest.approx([row["reward"] for row in shown[1]])
    weights = [load_file(out / "checkpoint" / "model.safetensors") for out in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=tolerance, rtol=tolerance)


WAYS = {
    # five groups in two minibatches of three and two; two processes sample two and three of them
    "ragged": (
        "grpo",
        {"problems": 5, "minibatches": 2, "passes": 2, "eval_every": 1, "recompute_old": True, "reference_every": 1},
    ),
    "one group": ("grpo", {"problems": 1, "updates": 1, "micro_batch_tokens": 100_000, "spread": "replicated"}),
    "value model": ("ppo", {"parts": {}, "updates": 1, "reshard": True, "gradient_checkpointing": True}),
    "value model, replicas": ("vapo", {"parts": {}, "spread": "replicated"}),
    "batch statistics": (
        "reinforce++-baseline",
        {"parts": {"credit": "min_form", "weights": {"process": 0.5}}, "updates": 1},
    ),
    "filter": ("dapo-dynamic", {"parts": {}, "most_rounds": 2, "updates": 1}),
    "pairs": ("gfpo-anchored", {"parts": {"pairs": {"builder": {"name": "prefix_sharing", "share": 0.0}}}}),
    "reference rollouts": ("srpo", {"parts": {}, "group_size": 2, "reference_every": 1}),
    "online PRM": ("prime", {"parts": {}, "prm_learning_rate": 1e-2, "updates": 2}),
    "online PRM, replicas": (
        "prime",
        {"parts": {}, "updates": 1, "spread": "replicated", "lora": LoraSettings(rank=2)},
    ),
    "branches": (
        "gfpo",
        {"updates": 1, "group_size": None, "branching": Branching(roots=2, branches=2, at="entropy")},
    ),
    "lora": ("ppo", {"parts": {}, "lora": LoraSettings(rank=2), "eval_every": 2}),
}


@pytest.fixture(scope="module")
def trained(policy, tmp_path_factory):
    """Folders of the same runs by one process and by two."""
    path = tmp_path_factory.mktemp("ways")
    asked = {name: settings(policy, algorithm, **changes) for name, (algorithm, changes) in WAYS.items()}
    for name in WAYS:
        run(asked[name], path / "one" / name)
    codes = together(path, 2, [(asked[name], path / "two" / name) for name in WAYS])
    assert [code for code, _ in codes] == [0, 0], codes
    return path


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_do_what_one_does(trained, way):
    assert_same(trained / "one" / way, trained / "two" / way)
    summary = json.loads((trained / "two" / way / "summary.json").read_text())
    assert summary["processes"] == 2
    assert not (trained / "two" / way / "state").exists()


def test_the_checkpoint_of_two_processes_is_a_plain_one(trained):
    one, two = (trained / number / "lora/checkpoint" for number in ("one", "two"))
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    assert Policy.load(two).model.config.vocab_size == Policy.load(one).model.config.vocab_size


def test_what_is_not_finite_stops_all_processes_with_the_same_words(policy, tmp_path):
    for code, said in together(tmp_path, 2, [(settings(policy, "grpo"), tmp_path / "out", True)]):
        assert code == 1
        assert "update 0: reward spoilt is not finite for" in said
    assert json.loads((tmp_path / "out" / "nonfinite.json").read_text())["rollouts"]
    for code, said in together(tmp_path, 2, [(settings(policy, "grpo", learning_rate=1e30), tmp_path / "broken")]):
        assert code == 1
        assert "not finite" in said


def test_killed_or_stopped_processes_go_on_as_many_or_as_others(policy, tmp_path):
    asked = settings(policy, "ppo", parts={}, updates=3, problems=2, checkpoint_every=1, eval_every=2)
    whole, killed, moved = (tmp_path / name for name in ("whole", "killed", "moved"))
    assert [code for code, _ in together(tmp_path, 2, [(asked, whole)])] == [0, 0]

    kill = {"rank": 1, "update": 1, "signal": "SIGKILL"}
    (first, said), (second, _) = together(tmp_path, 2, [(asked, killed)], kill)
    assert (first, second) == (1, -9)
    assert "process 0 of 2 lost another one" in said
    assert latest_state(killed / "state").name.startswith("update-0000001")
    shutil.copytree(killed, moved)
    stopped = together(tmp_path, 2, [(asked, killed)], {"rank": 0, "update": 1, "signal": "SIGTERM"})
    assert [code for code, _ in stopped] == [130, 130]  # one was told, both stopped
    assert [code for code, _ in together(tmp_path, 2, [(asked, killed)])] == [0, 0]
    for file in ("metrics.jsonl", "rollouts.jsonl", "checkpoint/model.safetensors"):
        assert (killed / file).read_bytes() == (whole / file).read_bytes()

    # one process goes on alone, with other settings of what changes no result
    changed = {"spread": "replicated", "micro_batch_tokens": 100_000}
    assert run(asked.model_copy(update=changed), moved)["resumed"]
    assert_same(whole, moved)
