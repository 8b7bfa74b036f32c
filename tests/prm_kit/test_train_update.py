"""Memory that runs out, on a CPU that pretends."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from prm_kit.distributed import World
from prm_kit.errors import PrmKitError, UsageError
from prm_kit.examples import Example
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.sharding import Shards
from prm_kit.train import train
from prm_kit.train_forward import Forward
from prm_kit.train_settings import TrainSettings
from prm_kit.train_update import Work, memory_named


def labelled(number: int) -> list[Labelled]:
    found = []
    for i in range(number):
        solution = Solution.from_steps(f"{i} ?", [f"{i} + 1 = {i + i % 2}", "so again"][: 1 + i % 2], "\n")
        annotation = Annotation.of(solution, Rater("construction", "test"), [1 if i % 2 else -1, 0][: 1 + i % 2])
        found.append(Labelled(solution, annotation))
    return found


@pytest.fixture
def memory(monkeypatch):
    """A function that sets how many padded tokens fit into memory at once, and a list of what was tried."""
    tried, before = [], Forward.logits

    def of(tokens):
        def logits(self, batch):
            tried.append(self.computed_tokens(batch))
            if tried[-1] > tokens:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
            return before(self, batch)

        monkeypatch.setattr(Forward, "logits", logits)
        return tried

    return of


def settings(backbone, **changes):
    return TrainSettings(backbone=backbone, updates=2, batch_tokens=200, **{"micro_batch_tokens": 400, **changes})


def test_where_memory_runs_out_smaller_micro_batches_give_the_same_run(backbone, tmp_path, memory):
    data = labelled(12), labelled(6)
    train(settings(backbone), *data, tmp_path / "enough")
    tried = memory(40)
    with pytest.warns(RuntimeWarning, match=r"micro_batch_tokens is \d+, which changes speed, not the result"):
        summary = train(settings(backbone), *data, tmp_path / "short")
    assert max(tried) > 40
    assert summary["micro_batch_tokens"] <= max(tried) // 2
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("enough", "short")]
    for one, other in zip(*lines, strict=True):
        first, second = json.loads(one), json.loads(other)
        assert first.pop("part") == second.pop("part")
        assert first == pytest.approx(second, rel=1e-5)


def test_a_run_goes_on_with_other_settings_of_memory_and_with_no_others(backbone, tmp_path):
    summary = train(settings(backbone), labelled(6), [], tmp_path)
    other = settings(backbone, micro_batch_tokens=100, gradient_checkpointing=True, reshard=True)
    assert train(other, labelled(6), [], tmp_path) == summary
    with pytest.raises(UsageError, match=r"settings.seed was 0, now 1"):
        train(settings(backbone, seed=1), labelled(6), [], tmp_path)


def test_a_sequence_that_alone_is_too_much_is_named_with_what_to_set(backbone, tmp_path, memory):
    memory(5)
    with (
        pytest.warns(RuntimeWarning, match="no memory"),
        pytest.raises(PrmKitError, match=r"solution \S+ alone \(\d+ tokens\): lower max_tokens"),
    ):
        train(settings(backbone), labelled(6), [], tmp_path)


def test_of_processes_that_go_layer_by_layer_together_none_tries_less_on_its_own():
    shards = SimpleNamespace(works_alone=False)
    work = Work(forward=_Budget(400), shards=shards, world=World(1, 2))  # type: ignore[arg-type]
    with pytest.raises(PrmKitError, match=r"process 1 has no memory .*lower micro_batch_tokens \(now 400\)"):
        work._fitting(_out_of_memory)


@pytest.mark.parametrize(("told", "suspects"), [([["theirs"]], ["theirs"]), ([[]], ["mine", "theirs too"])])
def test_of_several_processes_only_those_whose_loss_is_not_finite_name_solutions(told, suspects):
    class Other(World):
        def gather(self, value):
            return [value] if value is None else [value, (float("nan"), *told, ["theirs too"])]

    weight = torch.nn.Parameter(torch.ones(1))
    shards = Shards(
        torch.nn.ModuleDict(), torch.nn.Linear(1, 1), World(), torch.device("cpu"), bfloat16=False, thrifty=False
    )
    forward = SimpleNamespace(attention=nullcontext, batches=lambda some: [some], computed_tokens=len)
    nothing = np.zeros(1, dtype=np.int32)
    mine = Example("mine", nothing, nothing, np.ones((1, 3), dtype=np.float32))
    # a loss of 1 with a gradient that is not a number, as where another process broke the sum
    found = Work(forward, shards, Other()).gradient(  # type: ignore[arg-type]
        [[mine]], lambda batch: 1 + (weight * 0).sqrt().sum() * 0, torch.optim.SGD([weight]), None, lambda: None
    )
    assert not found.is_finite
    assert found.suspects == suspects


def test_memory_that_runs_out_elsewhere_is_told_with_what_to_set():
    with pytest.raises(PrmKitError, match="no memory for the weights"), memory_named():
        _out_of_memory()


class _Budget:
    def __init__(self, token_budget):
        self.token_budget = token_budget


def _out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_one_process_is_never_sharded():
    layers = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Linear(2, 2)])})
    shards = Shards(layers, torch.nn.Linear(2, 2), World(), torch.device("cpu"), bfloat16=True, thrifty=False)
    shards.expect(last=True)
    shards.release()
    assert type(layers["layers"][0]) is torch.nn.Linear
