"""What tests of whole training runs start from and look at."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from prm_kit.records import Annotation, Labelled, Rater, Solution


def sums(number: int, start: int = 0) -> list[Labelled]:
    """Solutions of one to three steps "a + b = c": right +1, wrong -1, said again 0."""
    found = []
    for i in range(start, start + number):
        steps, values = [], []
        for j in range(1 + i % 3):
            a, b = (i * 7 + j * 3) % 9, (i * 5 + j) % 8
            wrong = (i + j) % 3 == 0
            steps.append(f"{a} + {b} = {a + b + wrong}")
            values.append(-1 if wrong else 1)
        if i % 2:
            steps.append("so again " + steps[-1])
            values.append(0)
        solution = Solution.from_steps(f"{i % 20} ? {i // 20}", steps, "\n", is_correct=-1 not in values)
        found.append(Labelled(solution, Annotation.of(solution, Rater("construction", "test"), values)))
    return found


def metrics(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoint" / "model.safetensors")
