"""The quickstart's stages, one after the other.

OUT/
  policy/                a tiny policy, taught by demonstrations that forget carries
  data/train,dev,test    its sampled solutions, split into steps, with the task program's labels: snapshots
  labels/                what rules and simulated annotators say of the training solutions, merged: a ledger
  prm/, orm/             the training runs of the PRM and of the ORM of the same backbone and data
  rl/prm, rl/outcome     the policy after RL with the PRM's step rewards, and with the outcome alone as a control
  checkpoint/            the PRM
  evaluation.json, report.html, summary.json

Every stage is a function from folders to a folder; one that is done is not redone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_kit.run_directory import RunDirectory

if TYPE_CHECKING:
    from pipelines.quickstart.settings import Progress, QuickstartSettings

STAGES = ("policy", "solutions", "labels", "models", "evaluation", "rl")

LEAST_RIGHT = 0.1
"""Share of right samples below which a policy counts as not having learnt its task."""


def run_quickstart(
    out: Path, seed: int = 0, progress: Progress | None = None, settings: QuickstartSettings | None = None
) -> dict[str, Any]:
    """Run all stages; a run that was stopped goes on with the stage that it stopped in.

    Args:
        out: The run's directory.
        seed: Of everything; it replaces the one in `settings`.
        progress: See `Progress`.
        settings: Sizes and learning rates; None: the defaults.

    Returns:
        The summary, as in OUT/summary.json.

    Raises:
        UsageError: OUT holds a run of other settings.
    """
    import torch

    from pipelines.quickstart.labels import label_solutions
    from pipelines.quickstart.models import train_models
    from pipelines.quickstart.outcome import evaluate_models, write_outcome
    from pipelines.quickstart.policies import train_policies
    from pipelines.quickstart.settings import QuickstartSettings
    from pipelines.quickstart.solutions import make_solutions, train_policy
    from prm_kit.training_state import check_same_inputs

    settings = (settings or QuickstartSettings()).model_copy(update={"seed": seed})
    tell = progress or (lambda *_: None)
    run = RunDirectory(out)
    check_same_inputs(out / "inputs.json", {"quickstart": settings.model_dump()})
    if (out / "summary.json").exists():
        done: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        return done
    run.start({"quickstart": settings.model_dump()})
    (out / "metrics.jsonl").unlink(missing_ok=True)
    clock = _Clock(run)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # models this small only lose by sharing their work out
    try:
        with clock.stage("policy"):
            run.log(stage="policy", **train_policy(settings, out / "policy", tell))
        with clock.stage("solutions"):
            counts = make_solutions(settings, out / "policy" / "checkpoint", out / "data", tell)
            run.log(stage="solutions", **counts)
        with clock.stage("labels"):
            labels = label_solutions(settings, out / "data" / "train", out / "labels", tell)
            run.log(stage="labels", **labels)
        with clock.stage("models"):
            for name, trained in train_models(settings, out, tell).items():
                run.log(stage=name, updates=trained["updates"], tokens=trained["tokens"])
        with clock.stage("evaluation"):
            tell("evaluation", 0, 1)
            data, picked = evaluate_models(settings, out)
            write_outcome(out, data)
            tell("evaluation", 1, 1)
        with clock.stage("rl"):
            policies = train_policies(settings, out, tell)
            run.log(stage="rl", **policies)
    finally:
        torch.set_num_threads(threads)
    summary = summarise(settings, data, picked, counts, labels) | {"policy": policies} | clock.seconds()
    run.log(stage="evaluation", **{key: summary[key] for key in ("prm", "baselines", "best_of_n")})
    run.finish(summary)
    return summary


def summarise(
    settings: QuickstartSettings,
    data: dict[str, Any],
    picked: dict[str, Any],
    counts: dict[str, Any],
    labels: dict[str, Any],
) -> dict[str, Any]:
    """The figures a reader asks for first; everything else is in evaluation.json."""
    from pipelines.quickstart.outcome import AFTER, BEFORE

    titles = {
        "f1_mean": "ProcessBench F1",
        "auroc_wrong": "AUROC of wrong steps",
        "macro_f1": "macro-F1 of {-1, 0, +1}",
    }

    def figure(scorer: str, metric: str) -> dict[str, Any]:
        table = data["first_error" if metric == "f1_mean" else "steps"][scorer]
        return {"metric": titles[metric], **table[metric]}

    def figures(scorer: str) -> dict[str, Any]:
        return figure(scorer, "f1_mean") | {key: figure(scorer, key) for key in ("auroc_wrong", "macro_f1")}

    return {
        "task": "arithmetic",
        "seed": settings.seed,
        "figures_are_of": (
            f"{counts['test']['different_solutions']} sampled solutions of {settings.test_problems} problems that "
            "nothing was trained or chosen on; 95 % intervals over problems; one training run with one seed, so they "
            "say how far this run got and not how methods compare"
        ),
        "prm": {"before": figures(BEFORE), "after": figures(AFTER), "gain": data["differences"][BEFORE]["f1_mean"]},
        "baselines": {
            scorer["name"]: figures(scorer["name"])
            for scorer in data["scorers"]
            if scorer["name"] not in (BEFORE, AFTER)
        },
        "best_of_n": picked,
        "data": counts,
        "training_labels": labels,
        "warnings": [*weak_policy(counts), *data["warnings"]],
    }


def weak_policy(counts: dict[str, Any]) -> list[str]:
    """Say so where the policy has hardly learnt its task: nothing that follows is worth much then."""
    dev = counts["dev"]
    share = dev["right"] / dev["samples"]
    if share >= LEAST_RIGHT:
        return []
    return [f"only {share:.1%} of the policy's samples are right: with this seed it has not learnt the task in time"]


class _Clock:
    """Wall seconds of each stage, and wall and CPU seconds of all, child processes included."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.wall: dict[str, float] = {}
        self.started = time.perf_counter(), sum(os.times()[:4])

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        before = time.perf_counter()
        with self.run.timed(name):
            yield
        self.wall[name] = round(time.perf_counter() - before, 1)

    def seconds(self) -> dict[str, Any]:
        wall, cpu = self.started
        return {
            "seconds": round(time.perf_counter() - wall, 1),
            "cpu_seconds": round(sum(os.times()[:4]) - cpu, 1),
            "stage_seconds": self.wall,
        }
