"""Labels of the training solutions, as a team would make them: rules and annotators label, their labels are merged.

The annotators are simulated: they read the task program's exact labels and err at known rates (`labeling.simulated`).
The models learn from the merged labels; what they are measured on keeps the program's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.quickstart.solutions import read_labelled
from prm_kit.files import write_json
from prm_kit.records import Annotation, Labelled

if TYPE_CHECKING:
    from labeling.labeler import Labeler
    from pipelines.quickstart.settings import Progress, QuickstartSettings

ANNOTATORS = {"ada": "careful", "ben": "strict", "eva": "lenient"}
"""Simulated annotators and their habits, see `labeling.simulated.HABITS`."""


def label_solutions(settings: QuickstartSettings, train: Path, folder: Path, tell: Progress) -> dict[str, Any]:
    """Let rules and simulated annotators label the training solutions, and merge them into FOLDER/ledger.sqlite.

    Returns:
        Per rater and for the merged labels: the share of the steps that it labels, and how often it is right.
    """
    from labeling.consensus import MergeSettings, merge
    from labeling.coverage import label_report
    from labeling.label_table import label_table
    from labeling.merged import merged_annotations
    from labeling.rules import RuleLabeler
    from labeling.simulated import SimulatedAnnotator
    from pipelines.label.into import label_into
    from pipelines.label.merge import append_new
    from prm_kit.ledger import Ledger, now
    from prm_kit.view import View

    done = folder / "labels.json"
    if done.exists():
        known: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return known
    rows = read_labelled(train)
    solutions = [row.solution for row in rows]
    truth = {row.solution.id: row.annotation for row in rows}
    labelers: list[Labeler] = [RuleLabeler()]
    labelers += [SimulatedAnnotator(name, truth, habit, seed=settings.seed) for name, habit in ANNOTATORS.items()]
    merging = MergeSettings(policy="dawid-skene", kinds=("rule", "simulated"))
    with Ledger(folder / "ledger.sqlite") as ledger:
        for number, labeler in enumerate(labelers):
            tell("labels", number, len(labelers) + 1, labeler.rater.name)
            for _ in label_into(labeler, solutions, ledger, ledger.labelled_by(labeler.rater), lambda *_: None):
                pass
        tell("labels", len(labelers), len(labelers) + 1, "merge")
        table = label_table(View([], ledger)).of(merging.kinds)
        merged = merged_annotations(ledger.solutions(), table, merge(table, merging), merging, now())
        append_new(ledger, merged, bool(ledger.labelled_by(merging.rater)), lambda *_: None)
        said: dict[str, list[Annotation]] = {}
        for annotation in ledger.current():
            said.setdefault(f"{annotation.rater.kind} {annotation.rater.name}", []).append(annotation)
    quality = {name: quality_of(label_report(found, truth.values())) for name, found in sorted(said.items())}
    write_json(done, quality)
    tell("labels", len(labelers) + 1, len(labelers) + 1)
    return quality


def quality_of(report: dict[str, Any]) -> dict[str, Any]:
    """Coverage and precision of a labeller, out of its whole report."""
    compared = sum(report["compared"].values())
    right = sum(report["agree"].values())
    return {
        "coverage": round(report["coverage"], 4),
        "right": round(right / compared, 4) if compared else None,
        "precision": {value: share and round(share, 4) for value, share in report["precision"].items()},
    }


def merged_labels(train: Path, folder: Path) -> list[Labelled]:
    """The training solutions with their merged labels."""
    from prm_kit.ledger import Ledger
    from prm_kit.view import View

    return list(View([train], Ledger(folder / "ledger.sqlite", must_exist=True)).labelled(rater_kinds=["merged"]))
