"""Is training the upper layers on a few problems better than a head on frozen states? Same data and tests as probes.py.

    python benchmarks/small_training.py --backbone DIR --out DIR --train FILE.jsonl.gz --test FILE.jsonl.gz... \
        [--problems 100] [--per-subset 40] [KEY=VALUE...]

Trains a PRM on as many problems of the training file (drawn as in probes.py), one pass, and measures it on the other
files, untrained and trained. KEY=VALUE are settings of `prm-kit train`. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from probes import chosen, name_of, show

from prm_kit.evaluate import DevSplit, evaluate
from prm_kit.evaluate.first_error import NO_ERROR, true_first_errors
from prm_kit.importing import import_data
from prm_kit.model import Prm
from prm_kit.prefix_labels import with_prefix_labels
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Labelled
from prm_kit.settings import load_settings
from prm_kit.train import train
from prm_kit.train_settings import TrainSettings
from prm_kit.view import View, split_by_problem

SETTINGS = {
    "max_tokens": 1024,
    "too_long": "drop",
    "batch_tokens": 2048,
    "micro_batch_tokens": 2048,
    "learning_rate": 5e-5,
    "beta2": 0.98,
    "warmup": 0.1,
    "precision": "bfloat16",
    "train_layers": 10,
    "share_prefixes": True,
    "device": "cpu",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--test-problems", type=int, default=25, help="of a test file without subsets")
    parser.add_argument("--per-subset", type=int, default=40)
    parser.add_argument("settings", nargs="*", default=[])
    asked = parser.parse_args()
    preset = [f"{key}={value}" for key, value in {"backbone": asked.backbone, **SETTINGS}.items()]
    settings = load_settings(TrainSettings, overrides=[*preset, *asked.settings])
    rows = labelled(asked.train, asked.out, asked.problems, None)
    parts = split_by_problem(rows, {"train": 0.9, "dev": 0.1}, 0)
    start = time.process_time()
    summary = train(settings, parts["train"], parts["dev"], asked.out / "run", progress=print_line)
    print(
        f"trained on {summary['steps']} steps, {summary['computed_tokens']} tokens computed, "
        f"{time.process_time() - start:.0f} CPU-seconds; best update {summary['best_update']} of {summary['updates']}"
    )
    untrained = Prm.from_backbone(asked.backbone, max_tokens=settings.max_tokens, dtype=torch.bfloat16)
    scorers = {
        "untrained": PrmScorer(untrained, token_budget=2048),
        "trained": PrmScorer(Prm.load(asked.out / "run/checkpoint", dtype=torch.bfloat16), token_budget=2048),
    }
    for file in asked.test:
        tested = with_prefix_labels(labelled(file, asked.out, asked.test_problems, asked.per_subset))
        measured(name_of(file), tested, scorers, parts["train"])


def labelled(file: Path, out: Path, problems: int, per_subset: int | None) -> list[Labelled]:
    """The rows of some problems; where solutions have a subset, `per_subset` of each instead."""
    snapshot = out / name_of(file)
    if not snapshot.exists():
        import_data("steps", [str(file)], snapshot)
    pairs = {pair.solution.id: pair for pair in View([snapshot]).labelled(rater_kinds=["human"])}
    solutions = [pair.solution for pair in pairs.values()]
    has_subsets = len({one.meta.get("subset") for one in solutions}) > 1
    kept = chosen(solutions, per_subset if has_subsets else None, None if has_subsets else problems)
    return [pairs[one.id] for one in kept]


def measured(name: str, rows: list[Labelled], scorers: dict[str, PrmScorer], train_rows: list[Labelled]) -> None:
    def fits(pair: Labelled) -> bool:
        encoded = scorers["trained"].prm.encoder.encode([pair.solution])[0]
        return len(encoded.ids) <= SETTINGS["max_tokens"]  # type: ignore[operator]

    halves = split_by_problem([row for row in rows if fits(row)], {"threshold": 0.3, "test": 0.7}, 0)
    truth = true_first_errors(halves["threshold"])
    chooses = (truth >= 0).any() and (truth == NO_ERROR).any()
    scores = {
        part: {name: one.score([row.solution for row in halves[part]]) for name, one in scorers.items()}
        for part in (("test", "threshold") if chooses else ("test",))
    }
    dev = DevSplit("threshold", halves["threshold"], scores["threshold"]) if chooses else None
    show(name, evaluate(halves["test"], scores["test"], name=name, dev=dev, train=train_rows))


def print_line(done: int, updates: int, line: dict) -> None:
    print(f"{done}/{updates} {json.dumps(line)[:160]}", flush=True)


if __name__ == "__main__":
    main()
