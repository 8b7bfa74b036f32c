"""What the models score, and the files that say so."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.quickstart.labels import merged_labels
from pipelines.quickstart.solutions import read_labelled
from prm_kit.files import whole_directory, write_json
from prm_kit.records import Labelled

if TYPE_CHECKING:
    from pipelines.quickstart.settings import QuickstartSettings

BEFORE, AFTER, ORM = "PRM before training", "PRM", "ORM"


def evaluate_models(settings: QuickstartSettings, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score the test solutions with the PRM before and after training and with the ORM.

    Returns:
        What `prm_kit.evaluate` says, with thresholds from the development problems, and the best-of-n figures.
    """
    from prm_kit.evaluate.evaluation import DevSplit, evaluate
    from prm_kit.model import Prm
    from prm_kit.prm_scorer import PrmScorer

    train = merged_labels(out / "data" / "train", out / "labels")
    dev, test = (read_labelled(out / "data" / split) for split in ("dev", "test"))
    models = {
        AFTER: Prm.load(out / "prm" / "checkpoint"),
        BEFORE: Prm.from_backbone(out / "policy" / "checkpoint", seed=settings.seed),
        ORM: Prm.load(out / "orm" / "checkpoint"),
    }
    scorers = [PrmScorer(prm, name=name) for name, prm in models.items()]
    dev_scores = {scorer.name: scorer.score([item.solution for item in dev]) for scorer in scorers}
    scores = {scorer.name: scorer.score([item.solution for item in test]) for scorer in scorers}
    data = evaluate(
        test,
        scores,
        name="arithmetic, unseen problems",
        dev=DevSplit("development problems", dev, dev_scores),
        train=train,
        baselines=(BEFORE, ORM),
        about={"task": "arithmetic (embedded)", "seed": settings.seed, "labels": "the task's program, exact"},
        seed=settings.seed,
        resamples=500,  # half the usual: resampling is most of what this stage does
    )
    return data, rerank(test, scores, settings.seed)


def rerank(labelled: Sequence[Labelled], scores: dict[str, Any], seed: int) -> dict[str, Any]:
    """Best-of-n figures: every sample counts, also one that was sampled twice."""
    from prm_kit.aggregate import solution_score
    from prm_kit.evaluate.best_of_n import Candidate, best_of_n

    candidates = []
    for item, prm, orm in zip(labelled, scores[AFTER], scores[ORM], strict=True):
        solution = item.solution
        numbers = {
            "PRM product": solution_score(prm, "product") or 0.0,
            "PRM min": solution_score(prm, "min") or 0.0,
            "ORM": solution_score(orm, "last") or 0.0,
        }
        candidate = Candidate(solution.problem, solution.final_answer, bool(solution.is_correct), numbers)
        candidates += [candidate] * len(solution.meta["samples"])
    return best_of_n(candidates, seed=seed)


def write_outcome(out: Path, data: dict[str, Any]) -> None:
    """Leave the evaluation, the report, and the PRM under OUT/checkpoint."""
    from prm_kit.report.html import write_report

    write_json(out / "evaluation.json", data)
    write_report(out / "report.html", data)
    with whole_directory(out / "checkpoint") as part:
        shutil.copytree(out / "prm" / "checkpoint", part, dirs_exist_ok=True)
