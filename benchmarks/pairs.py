"""Pairs chosen by a learned PRM beside outcomes alone, on fresh quickstarts, at equal rollouts.

    prm-kit quickstart --seed 2 -o runs/q2             # policy and PRM; likewise with other seeds
    python benchmarks/pairs.py runs/q2 runs/q4 runs/q5 --out OUT

Every algorithm starts from the quickstart's policy, learns from problems that no stage of it has seen, and is measured
on its test problems: `--seeds` runs each. The interval is of the difference to the first algorithm, over problems, in
pairs; runs are few, so read the single figures too. A second call goes on where the first was stopped.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).parents[1]
ALGORITHMS = ("grpo", "gfpo-gated", "rloo-min")


def sampled(quickstart: Path, algorithm: str, seed: int, updates: int, out: Path) -> list[float]:
    """Accuracy of one run on each test problem, of sampled rollouts."""
    from pipelines.quickstart.settings import QuickstartSettings
    from prm_kit.model import Prm
    from prm_kit.prm_scorer import PrmScorer
    from prm_kit.tasks.arithmetic import ArithmeticTask
    from rl.presets import ALGORITHMS as PRESETS
    from rl.train import train
    from rl.train_settings import RlSettings

    asked = json.loads((quickstart / "inputs.json").read_text(encoding="utf-8"))["quickstart"]
    base, task = QuickstartSettings(**asked), ArithmeticTask()
    seen = base.demonstrations + base.train_problems
    settings = RlSettings(
        policy=str(quickstart / "policy" / "checkpoint"),
        algorithm=algorithm,
        updates=updates,
        problems=32,
        group_size=8,
        max_new_tokens=base.max_new_tokens,
        split="newline",
        learning_rate=3e-4,
        warmup=0.1,
        device="cpu",
        seed=seed,
    )
    judged = "step rewards" in PRESETS[algorithm].needs
    summary = train(
        settings,
        task.problems("train", seen + 2000, base.seed)[seen:],
        task.verify,
        out / quickstart.name / algorithm / f"seed-{seed}",
        scorer=PrmScorer(Prm.load(quickstart / "checkpoint"), name="PRM") if judged else None,
        held_out=task.problems("test", base.test_problems, base.seed),
    )
    found: list[float] = summary["held_out"]["after"]["sampled"]
    return found


def main() -> None:
    """Run all, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quickstarts", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS))
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    import torch

    from pipelines.quickstart.policies import figure

    torch.set_num_threads(1)  # models this small only lose by sharing their work out
    shares: dict[str, list[float]] = {}
    for name in asked.algorithms:
        for quickstart in asked.quickstarts:
            runs = [sampled(quickstart, name, seed, asked.updates, asked.out) for seed in range(asked.seeds)]
            shares.setdefault(name, []).extend(map(fmean, zip(*runs, strict=True)))
            print(f"{quickstart.name:12} {name:16} {' '.join(f'{fmean(run):.3f}' for run in runs)}", flush=True)
    first = shares[asked.algorithms[0]]
    for name, found in shares.items():
        gain = figure([a - b for a, b in zip(found, first, strict=True)], 0)
        print(f"{name:16} {fmean(found):.3f}   {gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})")


if __name__ == "__main__":
    main()
