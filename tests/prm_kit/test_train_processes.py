import json
import multiprocessing
import runpy
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification

from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.train import train
from prm_kit.train_settings import LoraSettings, TrainSettings
from prm_kit.training_state import latest_state

SCRIPT = Path(__file__).with_name("one_process.py")


def sums(number: int, start: int = 0) -> list[Labelled]:
    """Solutions of one to three steps, some twice as long as others."""
    found = []
    for i in range(start, start + number):
        steps = [f"{i % 9} + {j} = {i % 9 + j + (i + j) % 2}" for j in range(1 + i % 3)]
        solution = Solution.from_steps(f"{i % 7} ?", steps, "\n")
        values = [-1 if (i + j) % 2 else j % 2 for j in range(1 + i % 3)]
        found.append(Labelled(solution, Annotation.of(solution, Rater("construction", "test"), values)))
    return found


def settings(backbone: str, **changes) -> TrainSettings:
    return TrainSettings(
        **{"backbone": backbone, "learning_rate": 3e-3, "batch_tokens": 60, "micro_batch_tokens": 25, **changes}
    )


def together(
    tmp_path: Path, size: int, runs: list[tuple], stop: dict | None = None, short: dict | None = None
) -> list[tuple[int, str]]:
    """Exit code and error of each of `size` processes that train `runs`, one after the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["prm_kit.train"])
    errors = tmp_path / "errors"
    errors.mkdir(exist_ok=True)
    processes = []
    for rank in range(size):
        job = {"rank": rank, "size": size, "port": port, "runs": runs, "stop": stop, "short": short, "errors": errors}
        processes.append(context.Process(target=runpy.run_path, args=(str(SCRIPT), {"JOB": job})))
        processes[-1].start()
    for process in processes:
        process.join(120)
    said = [errors / f"{rank}.txt" for rank in range(size)]
    return [
        (process.exitcode, path.read_text() if path.exists() else "")
        for process, path in zip(processes, said, strict=True)
    ]


def metrics(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoint" / "model.safetensors")


def assert_same(one: Path, other: Path, tolerance: float = 1e-5) -> None:
    """Losses, gradient norms, development metrics and weights of two runs."""
    first, second = metrics(one), metrics(other)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == (b[key] if isinstance(a[key], str) else pytest.approx(b[key], rel=tolerance, abs=1e-6))
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(other)[name], atol=tolerance, rtol=tolerance)


WAYS = {
    "plain": {"updates": 4, "eval_every": 2},
    # five solutions, five updates: the second process never has anything to do
    "ragged": {"epochs": 1, "batch_tokens": 12},
    "one micro-batch": {"updates": 2, "micro_batch_tokens": 1000, "gradient_checkpointing": True},
    "reshard": {"updates": 2, "reshard": True, "gradient_checkpointing": True},
    "lora": {"updates": 3, "lora": LoraSettings(rank=2)},
    "share prefixes": {"updates": 2, "share_prefixes": True},
    "upper layer": {"updates": 2, "train_layers": 1},
    "head first": {"updates": 3, "head_updates": 1},
    "ensemble": {"updates": 2, "objective": "ensemble", "members": 2},
    "ranking": {"updates": 2, "objective": "pqm", "neutral_policy": "positive"},
    "causal": {"updates": 2, "objective": "causal", "neutral_policy": "positive", "head_updates": 1},
    "implicit": {"updates": 3, "objective": "implicit", "target": "outcome"},
    "implicit, thrifty": {
        "updates": 2,
        "objective": "implicit",
        "target": "outcome",
        "lora": LoraSettings(rank=2),
        "reshard": True,
        "gradient_checkpointing": True,
    },
    "all at once": {
        "updates": 3,
        "precision": "bfloat16",
        "gradient_checkpointing": True,
        "reshard": True,
        "lora": LoraSettings(rank=2),
    },
}


@pytest.fixture(scope="module")
def trained(backbone, language_model, tmp_path_factory):
    """Folders of the same runs by one process and by two."""
    path = tmp_path_factory.mktemp("ways")
    data = {name: (sums(5), sums(3, 50)) if name == "ragged" else (sums(16), sums(5, 50)) for name in WAYS}
    source = {name: language_model if name.startswith(("causal", "implicit")) else backbone for name in WAYS}
    asked = {name: settings(source[name], **changes) for name, changes in WAYS.items()}
    for name in WAYS:
        train(asked[name], *data[name], path / "one" / name)
    codes = together(path, 2, [(asked[name], *data[name], path / "two" / name) for name in WAYS])
    assert [code for code, _ in codes] == [0, 0], codes
    return path


@pytest.mark.parametrize("way", [way for way in WAYS if way != "all at once"])
def test_two_processes_train_what_one_does(trained, way):
    assert_same(trained / "one" / way, trained / "two" / way)
    summary = json.loads((trained / "two" / way / "summary.json").read_text())
    assert summary["processes"] == 2
    assert not (trained / "two" / way / "state").exists()


def test_a_process_without_work_takes_part(trained):
    updates = [line for line in metrics(trained / "two/ragged") if line["part"] == "train"]
    assert len(updates) == len(sums(5))


def test_bfloat16_adapters_and_activations_computed_twice_go_together(trained):
    # bfloat16 has 8 significant bits, and two processes sum in another order
    for one, two in zip(*(metrics(trained / number / "all at once") for number in ("one", "two")), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=0.01)
        assert two.get("gradient_norm", 0.0) == pytest.approx(one.get("gradient_norm", 0.0), rel=0.05)


def test_the_checkpoint_of_two_processes_is_a_plain_one(trained):
    one, two = (trained / number / "lora/checkpoint" for number in ("one", "two"))
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    assert AutoModelForTokenClassification.from_pretrained(two).config.num_labels == 3
    assert json.loads((one / "prm.json").read_text()) == json.loads((two / "prm.json").read_text())


def test_where_one_process_runs_out_of_memory_all_go_on_with_smaller_micro_batches(backbone, tmp_path):
    asked = settings(backbone, updates=2, eval_every=1, micro_batch_tokens=200, batch_tokens=150)
    data = sums(16), sums(5, 50)
    train(asked, *data, tmp_path / "one")
    two = tmp_path / "two"
    codes = together(tmp_path, 2, [(asked, *data, two)], short={"rank": 1, "tokens": 30})
    assert [code for code, _ in codes] == [0, 0], codes
    assert_same(tmp_path / "one", two)
    assert json.loads((two / "summary.json").read_text())["micro_batch_tokens"] < 60
    thrifty = settings(backbone, updates=2, micro_batch_tokens=200, batch_tokens=150, reshard=True)
    (first, _), (second, said) = together(
        tmp_path, 2, [(thrifty, *data, tmp_path / "3")], short={"rank": 1, "tokens": 30}
    )
    assert (first, second) == (1, 1)
    assert "process 1 has no memory for a micro-batch" in said
    assert "reshard: false" in said


def test_killed_or_stopped_processes_go_on_as_many_or_as_others(backbone, tmp_path):
    asked = settings(backbone, updates=6, eval_every=2, checkpoint_every=1, lora=LoraSettings(rank=2, dropout=0.1))
    data = sums(16), sums(5, 50)
    plain = settings(backbone, updates=6, eval_every=2, checkpoint_every=1)
    whole, killed, moved = (tmp_path / name for name in ("whole", "killed", "moved"))
    assert [code for code, _ in together(tmp_path, 2, [(asked, *data, whole), (plain, *data, tmp_path / "plain")])] == [
        0,
        0,
    ]

    (first, said), (second, _) = together(
        tmp_path, 2, [(asked, *data, killed)], {"rank": 1, "update": 3, "signal": "SIGKILL"}
    )
    assert (first, second) == (1, -9)
    assert "process 0 of 2 lost another one" in said
    assert latest_state(killed / "state").name.startswith("update-0000003")
    assert not (killed / "checkpoint").exists()

    stopped = together(tmp_path, 2, [(asked, *data, killed)], {"rank": 0, "update": 4, "signal": "SIGTERM"})
    assert [code for code, _ in stopped] == [130, 130]  # one was told, both stopped, where they could go on

    assert [code for code, _ in together(tmp_path, 2, [(asked, *data, killed)])] == [0, 0]
    assert (whole / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(killed)[name])

    together(tmp_path, 2, [(plain, *data, moved)], {"rank": 1, "update": 3, "signal": "SIGKILL"})
    stopped = together(tmp_path, 3, [(plain, *data, moved)], {"rank": 2, "update": 4, "signal": "SIGTERM"})
    assert [code for code, _ in stopped] == [130] * 3
    assert train(plain, *data, moved)["resumed"]
    assert_same(tmp_path / "plain", moved)
