"""The CUDA path of training and scoring. Not run where this was written: there was no device."""

import json

import pytest
import torch

from prm_kit.model import Prm
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.train import train
from prm_kit.train_settings import LoraSettings, TrainSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def labelled(number: int) -> list[Labelled]:
    found = []
    for i in range(number):
        steps = [f"{i % 9} + {j} = {i % 9 + j + (i + j) % 2}" for j in range(1 + i % 3)]
        solution = Solution.from_steps(f"{i % 7} ?", steps, "\n")
        values = [-1 if (i + j) % 2 else j % 2 for j in range(1 + i % 3)]
        found.append(Labelled(solution, Annotation.of(solution, Rater("construction", "test"), values)))
    return found


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("changes", [{}, {"share_prefixes": True}, {"gradient_checkpointing": True}])
def test_cuda_trains_what_the_cpu_does(backbone, tmp_path, changes):
    for device in ("cpu", "cuda"):
        asked = TrainSettings(
            backbone=backbone, updates=4, batch_tokens=80, device=device, precision="float32", liger="off", **changes
        )
        train(asked, labelled(16), labelled(5), tmp_path / device)
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_bfloat16_on_cuda_is_near_the_cpu(backbone, tmp_path, lora):
    train(TrainSettings(backbone=backbone, updates=4, device="cpu", lora=lora), labelled(16), [], tmp_path / "cpu")
    summary = train(TrainSettings(backbone=backbone, updates=4, lora=lora), labelled(16), [], tmp_path / "cuda")
    assert summary["bfloat16"]
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=0.05)


@pytest.mark.parametrize("share", [False, True])
def test_cuda_scores_as_the_cpu_does(backbone, tmp_path, share):
    solutions = [item.solution for item in labelled(16)]
    Prm.from_backbone(backbone).save(tmp_path / "prm")
    values = []
    for device in ("cpu", "cuda"):
        prm = Prm.load(tmp_path / "prm", device=device, dtype=torch.float32)
        found = PrmScorer(prm, share_prefixes=share).score(solutions)
        values.append([value for scores in found for value in scores.values])
    assert values[1] == pytest.approx(values[0], abs=1e-4)


def test_four_bit_adapters_leave_a_plain_checkpoint(backbone, tmp_path):
    pytest.importorskip("bitsandbytes")
    asked = TrainSettings(backbone=backbone, updates=4, lora=LoraSettings(rank=2, four_bit=True))
    train(asked, labelled(16), [], tmp_path)
    assert Prm.load(tmp_path / "checkpoint").head.out_features == 3
