"""What a CUDA device makes of scoring and of whole training runs. Exits 2 without one.

    python benchmarks/gpu_runs.py                    # all: scoring, runs, processes
    python benchmarks/gpu_runs.py scoring
    python benchmarks/gpu_runs.py processes --processes 8
    python benchmarks/gpu_runs.py --toy              # on the CPU, tiny: shows that it runs, no figures

scoring    16 solutions of a problem that is as long as each of them: prefix computed once beside separate rows, seconds
           and the largest difference of a score (float32; it must stay below 1e-4)
runs       `prm_kit.train` on synthetic sequences: plain, without Liger's kernels, activations computed twice, LoRA,
           QLoRA; tokens a second and peak memory
processes  the same under torchrun (NCCL), one process beside several
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from scoring import random_prm
from transformers import Qwen2Config, Qwen2ForCausalLM

from prm_kit.errors import PrmKitError
from prm_kit.model import Prm
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.train import train
from prm_kit.train_settings import TrainSettings

SHAPE = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
         "num_key_value_heads": 3, "vocab_size": 49152}  # fmt: skip
TOY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1,
       "num_key_value_heads": 1, "vocab_size": 2000}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "without Liger": {"liger": "off"},
    "activations twice": {"gradient_checkpointing": True},
    "LoRA": {"lora": {"rank": 16}},
    "QLoRA": {"lora": {"rank": 16, "four_bit": True}},
}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", nargs="?", choices=["all", "scoring", "runs", "processes", "one-process"], default="all"
    )
    parser.add_argument("--processes", type=int, default=max(2, torch.cuda.device_count()))
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args(words)
    if not (arguments.toy or torch.cuda.is_available()):
        sys.stderr.write("gpu_runs: this measures a CUDA device, and there is none here\n")
        sys.exit(2)
    if arguments.toy:
        arguments.updates = 1
    if arguments.what == "one-process":
        run(arguments, arguments.folder, "processes", {})
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backbone(arguments).model.save_pretrained(folder / "backbone")
        backbone(arguments).tokenizer.save_pretrained(folder / "backbone")
        for what, measure in (("scoring", scoring), ("runs", runs), ("processes", processes)):
            if arguments.what in ("all", what):
                measure(arguments, folder)


def device_of(arguments: argparse.Namespace) -> str:
    return "cpu" if arguments.toy else "cuda"


def backbone(arguments: argparse.Namespace) -> Prm:
    small = argparse.Namespace(vocabulary=2000, hidden=64, layers=1, seed=0)
    tokenizer = random_prm(small, ["some text and 0 1 2 3 4 5 6 7 8 9 more of it"]).tokenizer
    torch.manual_seed(0)
    config = Qwen2Config(**(TOY if arguments.toy else SHAPE), max_position_embeddings=8192)
    return Prm.from_backbone(Qwen2ForCausalLM(config), tokenizer, dtype=torch.float32)


def labelled(number: int, of_a_problem: int, tokens: int) -> list[Labelled]:
    """Solutions of eight steps about as long as their problem; every character is a token or less."""
    source = random.Random(0)
    found = []
    for index in range(number):
        problem = random.Random(index // of_a_problem).choices("0123456789 ", k=tokens)
        steps = ["so " + "".join(source.choices("0123456789", k=max(1, tokens // 8 - 4))) for _ in range(8)]
        solution = Solution.from_steps("what " + "".join(problem) + "?", steps)
        values = [source.choice((-1, 0, 1)) for _ in steps]
        found.append(Labelled(solution, Annotation.of(solution, Rater("construction", "benchmark"), values)))
    return found


def scoring(arguments: argparse.Namespace, folder: Path) -> None:
    problems, tokens = (1, 40) if arguments.toy else (16, 512)
    prm = Prm.from_backbone(folder / "backbone", device=device_of(arguments), dtype=torch.float32)
    solutions = [item.solution for item in labelled(16 * problems, 16, tokens)]
    encoded = prm.encoder.encode(solutions[:1])[0]
    print(f"scoring: {encoded.prompt_length} tokens of the problem of {len(encoded.ids)}")
    seconds: dict[bool, list[float]] = {True: [], False: []}
    values: dict[bool, torch.Tensor] = {}
    for _ in range(1 if arguments.toy else 4):  # the first round warms up
        for share in (True, False):
            start = time.perf_counter()
            scores = PrmScorer(prm, share_prefixes=share, token_budget=16_384).score(solutions)  # ends on the host
            seconds[share].append(time.perf_counter() - start)
            values[share] = torch.tensor([value for one in scores for value in one.values])
    shared, separate = (statistics.median(seconds[share][-3:]) for share in (True, False))
    difference = (values[True] - values[False]).abs().max().item()
    print(f"scoring: prefix once is {separate / shared:.2f}x separate rows; largest difference {difference:.0e}")
    assert difference < 1e-4, difference


def run(arguments: argparse.Namespace, folder: Path, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    tokens = 40 if arguments.toy else 400
    settings = TrainSettings(
        backbone=str(folder / "backbone"),
        updates=arguments.updates,
        batch_tokens=500 if arguments.toy else 16_384,
        micro_batch_tokens=1_000 if arguments.toy else 16_384,
        share_prefixes=False,
        device=device_of(arguments),
        keep_best=False,
        **changes,
    )
    if not arguments.toy:
        torch.cuda.reset_peak_memory_stats()
    return train(settings, labelled(16 if arguments.toy else 800, 1, tokens), [], folder / name)


def told(name: str, summary: dict[str, Any], memory: float | None) -> None:
    rate = summary["tokens_this_run"] / summary["seconds"]["wall"]
    used = "" if memory is None else f", peak memory {memory:.1f} GiB"
    print(f"{name:18} {rate:12,.0f} tokens/s{used}, loss {summary['train']['loss']:.4f}", flush=True)


def runs(arguments: argparse.Namespace, folder: Path) -> None:
    for name, changes in RUNS.items():
        try:
            summary = run(arguments, folder, name, changes)
        except PrmKitError as error:
            print(f"{name:18} refused: {error}")
            continue
        told(name, summary, None if arguments.toy else torch.cuda.max_memory_allocated() / 2**30)


def processes(arguments: argparse.Namespace, folder: Path) -> None:
    for number in dict.fromkeys((1, arguments.processes)):
        if not arguments.toy and number > torch.cuda.device_count():
            print(f"processes: {number} want as many CUDA devices, and there are {torch.cuda.device_count()}")
            continue
        place = folder / f"{number} processes"
        place.mkdir()
        (place / "backbone").symlink_to(folder / "backbone")
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={number}",
            __file__,
        ]
        command += ["one-process", "--folder", str(place), "--updates", str(arguments.updates)]
        subprocess.run([*command, *(["--toy"] if arguments.toy else [])], check=True)
        told(f"{number} processes", json.loads((place / "processes/summary.json").read_text()), None)


if __name__ == "__main__":
    main()
