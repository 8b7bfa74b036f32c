"""RL updates on a CUDA device: tokens a second, and the share of each phase. Exits 2 without a device.

    python benchmarks/gpu_grpo.py HuggingFaceTB/SmolLM2-135M-Instruct file:gsm8k_train.jsonl [--prm CHECKPOINT]

Updates of `rl.train` in bfloat16 autocast: 16 problems, eight rollouts each, up to 256 new tokens, outcome rewards, and
where a PRM is named its step rewards. The first two updates warm up and do not count. Tokens are those that the policy
wrote, and seconds are wall seconds of the whole update, evaluation and checkpoints left out. Memory is the allocator's
peak. Arms: prompts apart and, for families that can, shared in the passes of training.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from prm_kit.score import StepScorer
from prm_kit.tasks.registry import open_task
from prm_kit.tasks.task import Task
from rl.train import train
from rl.train_settings import RlSettings

WARM = 2


def figures(settings: RlSettings, task: Task, n: int | None, scorer: StepScorer | None) -> dict[str, float]:
    """Tokens a second, peak gigabytes, and each phase's share of the time of an update; `n` problems, None: all."""
    ends, tokens = [time.perf_counter()], [0.0]

    def told(done: int, total: int, line: dict) -> None:
        if line["part"] == "train":
            ends.append(time.perf_counter())
            tokens.append(line["tokens"] * line["sampled"])

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as out:
        train(settings, task.problems("train", n, 0), task.verify, Path(out), scorer=scorer, progress=told)
        timings = [json.loads(line) for line in (Path(out) / "timings.jsonl").read_text().splitlines()]
    counted = [line for line in timings if line.get("update", -1) >= WARM]
    seconds = ends[-1] - ends[WARM]
    found = {"tokens_per_second": sum(tokens[WARM + 1 :]) / seconds}
    if torch.cuda.is_available():
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    for phase in dict.fromkeys(line["stage"] for line in counted):
        found[f"share of {phase}"] = sum(line["wall_seconds"] for line in counted if line["stage"] == phase) / seconds
    return found


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy")
    parser.add_argument("task", help="file:PATH of problems with answers")
    parser.add_argument("--prm", help="a checkpoint that rewards steps too")
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--cpu", action="store_true", help="run on the CPU: a trial of this program, not a measurement")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(words)
    if not (torch.cuda.is_available() or asked.cpu):
        sys.stderr.write("gpu_grpo: this measures a CUDA device, and there is none here\n")
        sys.exit(2)
    scorer = None
    if asked.prm:
        from prm_kit.model import Prm
        from prm_kit.prm_scorer import PrmScorer

        scorer = PrmScorer(Prm.load(asked.prm, "cpu" if asked.cpu else "cuda"))
    found = {}
    for name, share in (("prompts apart", False), ("prompts shared", True)):
        settings = RlSettings(
            policy=asked.policy,
            algorithm="grpo",
            parts={"weights": {"final": 1.0, "process": 0.5 if scorer else 0.0, "format": 0.0}},
            updates=WARM + asked.updates,
            problems=asked.problems,
            group_size=asked.group_size,
            max_new_tokens=asked.max_new_tokens,
            share_prompts=share,
            precision="float32" if asked.cpu else "bfloat16",
            device="cpu" if asked.cpu else "cuda",
            checkpoint_every=None,
        )
        found[name] = figures(settings, open_task(asked.task), None, scorer)
        print(name, " ".join(f"{key} {value:.3g}" for key, value in found[name].items()))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
