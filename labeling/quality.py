"""The quality of labels: who labelled, how far raters agree, how each one does against the consensus and gold.

Everything comes back as JSON data; tables and the HTML page are made of it elsewhere (`prm_kit.report`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from labeling.agreement import overall_agreement, pair_agreement
from labeling.consensus import MergeSettings, chosen, majority
from labeling.label_table import LabelTable
from labeling.reference import Reference, against, drift, merged_reference, reference_of
from prm_kit.errors import UsageError, unknown_name
from prm_kit.evaluate.bootstrap import Bootstrap
from prm_kit.evaluate.calibration import calibration_table
from prm_kit.evaluate.rows import StepRows
from prm_kit.records import LABEL_VALUES

FEW = 30
"""Below so many steps in common a figure is called weak."""


def label_quality(
    table: LabelTable,
    reference: str | None = None,
    gold: LabelTable | None = None,
    resamples: int = 1000,
    seed: int = 0,
    name: str = "labels",
) -> dict[str, Any]:
    """Measure the labels of a table.

    Args:
        table: Everybody's labels, without raters who stand for gold alone.
        reference: Name of the merged rater to compare with; None: the only one, or else a majority made here.
        gold: Labels that are known to be right: those of every rater of this table.
        resamples: Of the intervals, by problem.
        seed: Of the resamples.
        name: What the report is called.

    Returns:
        JSON data: name; settings (resamples, level, seed, reference); data (solutions, problems, annotations, labels);
        agreement (by group of raters: `labeling.agreement.overall_agreement`); raters, each with rater (number), label,
        kind, name, versions, annotations, solutions, labels, values, flags, median_seconds, first and last time,
        reference and gold (`labeling.reference.against`), drift (`labeling.reference.drift`) and calibration, each
        null where there is nothing to say; pairs (`labeling.agreement.pair_agreement`); warnings and notes.

    Raises:
        UsageError: No such merged rater, or several and none was named.
    """
    bootstrap = Bootstrap(table.n_problems, resamples, seed)
    raters = table.of(without=("merged",))
    compared, reference_name = _reference(table, raters, reference)
    about = [_about(raters, row) for row in raters.raters.iter_rows(named=True)]
    found = {
        "reference": against(raters, compared, bootstrap),
        "gold": against(raters, _gold(raters, gold), bootstrap) if gold is not None else {},
        "drift": drift(raters, compared, bootstrap),
        "calibration": _calibration(raters, bootstrap),
    }
    for rater in about:
        rater.update({key: by_rater.get(rater["rater"]) for key, by_rater in found.items()})
    pairs = pair_agreement(raters, bootstrap)
    groups = {
        f"kind {kind}": overall_agreement(raters.of([kind]), bootstrap)
        for kind in raters.raters["kind"].unique().sort()
        if 1 < raters.of([kind]).raters.height < raters.raters.height
    }
    data = {
        "name": name,
        "settings": {"resamples": resamples, "level": bootstrap.level, "seed": seed, "reference": reference_name},
        "data": {
            "solutions": raters.annotations["solution"].n_unique(),
            "problems": table.n_problems,
            "annotations": raters.annotations.height,
            "labels": raters.labels.height,
        },
        "agreement": {"all raters": overall_agreement(raters, bootstrap)}
        | {group: found for group, found in groups.items() if found["units"]},
        "raters": about,
        "pairs": pairs,
    }
    return data | _remarks(data, gold is not None)


def _gold(table: LabelTable, gold: LabelTable) -> Reference:
    return reference_of(table, gold.raters["rater"].to_list(), gold)


def _reference(table: LabelTable, raters: LabelTable, name: str | None) -> tuple[Reference, str]:
    merged = dict(table.of(["merged"]).raters.select("name", "rater").iter_rows())
    if name is not None and name not in merged:
        raise unknown_name("merged rater", name, merged)
    if name is None and len(merged) > 1:
        raise UsageError(f"compare with which merged labels: {', '.join(sorted(merged))}? (--reference)")
    if name is None and merged:
        (name,) = merged
    if name is not None:
        return reference_of(table, [merged[name]]), f"merged {name}"
    kinds = None if set(raters.raters["kind"]) - {"simulated"} else ["simulated"]
    voters = chosen(raters, kinds)
    return merged_reference(raters, majority(voters, MergeSettings())), "majority of the raters"


def _about(table: LabelTable, row: dict[str, Any]) -> dict[str, Any]:
    here = pl.col("rater") == row["rater"]
    annotations, labels = table.annotations.filter(here), table.labels.filter(here)
    values = Counter(labels["value"].to_list())
    times = annotations["time"].filter(annotations["time"] != "").sort()
    seconds = annotations["lead_time"].drop_nulls().median()
    return {
        **row,
        "versions": annotations["version"].unique().sort().to_list(),
        "annotations": annotations.height,
        "solutions": annotations["solution"].n_unique(),
        "labels": labels.height,
        "values": {str(value): values[value] for value in LABEL_VALUES},
        "flags": dict(sorted(Counter(annotations["flags"].explode().drop_nulls().to_list()).items())),
        "median_seconds": seconds,
        "first": times[0] if len(times) else None,
        "last": times[-1] if len(times) else None,
    }


def _calibration(table: LabelTable, bootstrap: Bootstrap) -> dict[int, dict[str, Any]]:
    """How the shares of judges, rollouts and PRMs fit what people say of the same steps; each person's label counts."""
    people = table.of(["human"])
    people = people if people.raters.height else table.of(["simulated"])
    truth = people.labels.select("solution", "step", truth="value")
    rows = table.shares.join(truth, on=["solution", "step"], maintain_order="left")
    rows = rows.join(table.solutions.select("solution", "problem", "steps"), on="solution", maintain_order="left")
    found = {}
    for (rater,), part in rows.partition_by("rater", as_dict=True, maintain_order=True).items():
        solution, step, problem, label, n_steps = (
            part[name].to_numpy().astype(np.int64) for name in ("solution", "step", "problem", "truth", "steps")
        )
        shares = part.select("wrong", "neutral", "right").to_numpy()
        steps = StepRows(solution, step, problem, label, n_steps, bootstrap.n_problems, 0)
        found[int(rater)] = calibration_table(steps, shares, bootstrap)
    return found


def _remarks(data: dict[str, Any], gold: bool) -> dict[str, list[str]]:
    warnings, notes = [], []
    overall = data["agreement"]["all raters"]
    if not overall["units"]:
        warnings.append("no step was judged by two raters: nothing can be said of agreement; push with an overlap")
    shares = [overall["values"][str(value)] for value in LABEL_VALUES]
    if overall["labels"] and max(shares) > 0.95 * overall["labels"]:
        warnings.append("more than 95 % of the labels are one value: alpha and kappa are unstable, look at the counts")
    simulated = [rater["label"] for rater in data["raters"] if rater["kind"] == "simulated"]
    if simulated:
        notes.append(f"simulated, not people: {', '.join(simulated)}")
    weak = [rater["label"] for rater in data["raters"] if 0 < (rater["reference"] or {}).get("steps", 0) < FEW]
    if weak:
        notes.append(f"fewer than {FEW} steps in common with the reference: {', '.join(weak)}")
    notes.append(
        f"compared with: {data['settings']['reference']}. A merged label contains the votes of those who are compared "
        "with it, which flatters them; steps where it is a rater's own label alone are left out."
    )
    if not gold:
        notes.append("no gold questions were given (--gold)")
    return {"warnings": warnings, "notes": notes}


def gold_table(table: LabelTable, rater_names: Sequence[str] | None) -> LabelTable:
    """The raters of a table whose labels are gold: people by default, or those named.

    Raises:
        UsageError: There is no such rater.
    """
    if rater_names:
        for name in rater_names:
            if name not in table.raters["name"]:
                raise unknown_name("rater", name, table.raters["name"])
        chosen_raters = table.raters.filter(pl.col("name").is_in(list(rater_names)))
    else:
        chosen_raters = table.raters.filter(pl.col("kind") == "human")
    if chosen_raters.is_empty():
        raise UsageError("the gold labels hold no person's labels; name their rater (--gold-rater)")
    return table.of_raters(chosen_raters["rater"].to_list())
