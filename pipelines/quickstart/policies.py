"""The policy after RL that points at the PRM, beside the same RL on outcomes alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.quickstart.side_by_side import side_by_side

if TYPE_CHECKING:
    from pipelines.quickstart.settings import Progress, QuickstartSettings

ALGORITHM = "rloo-min"

ARMS: dict[str, dict[str, Any]] = {
    "prm": {},
    "outcome": {"credit": None, "process_estimator": None, "weights": {"process": 0.0}},
}
"""What each run changes of the algorithm: nothing, or the step rewards taken out."""


def train_policies(settings: QuickstartSettings, out: Path, tell: Progress) -> dict[str, Any]:
    """Train the policy with the PRM's step rewards and, from the same start on the same problems, without.

    Returns:
        algorithm, updates, rollouts (of each run), accuracy (figures over the test problems, of sampled rollouts, by
        name), gain (the run with the PRM minus the control, paired), alarms (of each run the first of each
        name).
    """
    runs = {out / "rl" / arm: partial(train_one, arm, settings, out) for arm in ARMS}
    found = dict(zip(ARMS, side_by_side("rl", runs, tell), strict=True))
    before, after, control = (
        found[arm]["held_out"][when]["sampled"]
        for arm, when in (("prm", "before"), ("prm", "after"), ("outcome", "after"))
    )
    return {
        "algorithm": ALGORITHM,
        "updates": settings.rl_updates,
        "rollouts": found["prm"]["rollouts"],
        "accuracy": {
            "policy before RL": figure(before, settings.seed),
            "RL with the PRM": figure(after, settings.seed),
            "RL on outcomes alone": figure(control, settings.seed),
        },
        "gain": figure([a - b for a, b in zip(after, control, strict=True)], settings.seed),
        "alarms": {arm: summary["alarms"] for arm, summary in found.items()},
    }


def train_one(arm: str, settings: QuickstartSettings, out: Path) -> dict[str, Any]:
    """One run of RL; leaves OUT/rl/ARM/checkpoint and report.html beside it."""
    from pipelines.rl.report import write_report
    from prm_kit.model import Prm
    from prm_kit.prm_scorer import PrmScorer
    from prm_kit.tasks.arithmetic import ArithmeticTask
    from rl.train import train
    from rl.train_settings import RlSettings

    task = ArithmeticTask()
    seen = settings.demonstrations + settings.train_problems
    wanted = settings.rl_updates * settings.rl_problems
    summary = train(
        RlSettings(
            policy=str(out / "policy" / "checkpoint"),
            algorithm=ALGORITHM,
            parts=ARMS[arm],
            updates=settings.rl_updates,
            problems=settings.rl_problems,
            minibatches=min(2, settings.rl_problems),
            max_new_tokens=settings.max_new_tokens,
            split="newline",
            learning_rate=settings.rl_learning_rate,
            warmup=0.1,
            device="cpu",
            seed=settings.seed,
        ),
        task.problems("train", seen + wanted, settings.seed)[seen:],
        task.verify,
        out / "rl" / arm,
        scorer=PrmScorer(Prm.load(out / "checkpoint"), name="PRM") if arm == "prm" else None,
        held_out=task.problems("test", settings.test_problems, settings.seed),
    )
    write_report(out / "rl" / arm)
    return summary


def figure(shares: list[float], seed: int) -> dict[str, Any]:
    """Mean over problems and its interval."""
    import numpy as np

    from prm_kit.evaluate.bootstrap import Bootstrap

    share_P1 = np.array(shares)[:, None]
    bootstrap = Bootstrap(len(shares), seed=seed)
    replicates = bootstrap.of_sums(share_P1, lambda sums: sums[:, 0] / len(shares))
    return bootstrap.measure(float(share_P1.mean()), replicates, len(shares))
