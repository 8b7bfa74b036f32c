"""The sections of an evaluation that every scorer has one of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prm_kit.evaluate.baselines import HARD_NAMES
from prm_kit.evaluate.bootstrap import Bootstrap, FloatArray, IntArray
from prm_kit.evaluate.calibration import calibration_table
from prm_kit.evaluate.final_answer import final_answer_table
from prm_kit.evaluate.first_error import UNSETTLED, Sweep, Threshold, choose_threshold, sweep, true_first_errors
from prm_kit.evaluate.first_error_table import first_error_table
from prm_kit.evaluate.inputs import DevSplit, is_bounded
from prm_kit.evaluate.length import length_table
from prm_kit.evaluate.metrics import step_table
from prm_kit.evaluate.prmbench import is_prmbench, prmbench_table
from prm_kit.evaluate.rows import StepRows, probabilities_of, values_of
from prm_kit.evaluate.slices import POSITIONS, STEP_COUNTS, lowest_step, slice_table, value_histogram
from prm_kit.evaluate.temperature import fit_temperature, with_temperature
from prm_kit.records import Labelled
from prm_kit.score import StepScores

FIXED_THRESHOLDS: dict[str, float] = {"value": 0.0, "p_ok": 0.5}
"""Thresholds by rule where no development split is given, and of baselines that answer 0 or 1."""

SECTIONS = (
    "steps",
    "first_error",
    "final_answer",
    "calibration",
    "calibration_after",
    "by_position",
    "by_step_count",
    "lowest_step",
    "length",
    "histogram",
    "sweep",
    "prmbench",
)

_SWEEP_POINTS = 120


def threshold_of(
    scorer: str, answers: Sequence[StepScores], dev: DevSplit | None, dev_answers: Sequence[StepScores], rule: str
) -> Threshold | None:
    """A scorer's threshold, chosen on the development split or fixed; None: it is unbounded and there is no split."""
    if dev is None or scorer in HARD_NAMES:
        return Threshold(FIXED_THRESHOLDS[rule], rule) if is_bounded(answers) else None
    return choose_threshold(dev.labelled, dev_answers, dev.name, rule)


def sections_of(
    scorer: str,
    labelled: Sequence[Labelled],
    answers: Sequence[StepScores],
    rows: StepRows,
    threshold: Threshold | None,
    subsets: Sequence[str],
    bootstrap: Bootstrap,
    problem_L: IntArray,
    dev: DevSplit | None,
    dev_answers: Sequence[StepScores],
) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """Every section of one scorer, by name (None: it has none), and the replicates [R] of its headlines.

    An unbounded scorer has no calibration, and none of the figures that need classes.
    """
    bounded = is_bounded(answers)
    probabilities = probabilities_of(rows, answers)
    unbounded = None if bounded else values_of(rows, answers)
    steps, replicates = step_table(rows, probabilities, bootstrap, unbounded)
    first_error, f1_mean = first_error_table(labelled, answers, threshold, subsets, bootstrap, problem_L)
    prmbench = is_prmbench(labelled)
    return {
        "steps": steps,
        "first_error": first_error,
        "final_answer": final_answer_table(labelled, answers, bootstrap, problem_L),
        "calibration": calibration_table(rows, probabilities, bootstrap) if bounded else None,
        "calibration_after": _calibrated(scorer, answers, rows, bootstrap, dev, dev_answers) if bounded else None,
        "by_position": slice_table(rows, probabilities, rows.step, POSITIONS, bootstrap, unbounded),
        "by_step_count": slice_table(rows, probabilities, rows.n_steps, STEP_COUNTS, bootstrap, unbounded),
        "lowest_step": lowest_step(answers, [len(item.solution.spans) for item in labelled], problem_L, bootstrap),
        "length": length_table(labelled, answers, bootstrap, problem_L),
        "histogram": value_histogram(rows, probabilities, unbounded),
        "sweep": _sweep(labelled, answers, threshold, dev, dev_answers),
        "prmbench": prmbench_table(labelled, answers, threshold, bootstrap.resamples, bootstrap.seed)
        if prmbench
        else None,
    }, replicates | {"f1_mean": f1_mean}


def _calibrated(
    scorer: str,
    answers: Sequence[StepScores],
    rows: StepRows,
    bootstrap: Bootstrap,
    dev: DevSplit | None,
    dev_answers: Sequence[StepScores],
) -> dict[str, Any] | None:
    """Calibration with the temperature that the development split asks for; None where there is none to fit."""
    if dev is None or scorer in HARD_NAMES or not any(p for score in dev_answers for p in score.probabilities):
        return None
    temperature = fit_temperature(dev.labelled, dev_answers, dev.name)
    after = probabilities_of(rows, with_temperature(answers, temperature.value))
    return {"temperature": temperature.to_json(), **calibration_table(rows, after, bootstrap)}


def _sweep(
    labelled: Sequence[Labelled],
    answers: Sequence[StepScores],
    threshold: Threshold | None,
    dev: DevSplit | None,
    dev_answers: Sequence[StepScores],
) -> dict[str, Any] | None:
    """Accuracies along thresholds, thinned for drawing; None where no solution has settled labels."""
    if threshold is None or not (true_first_errors(labelled) != UNSETTLED).any():
        return None
    chosen_on = sweep(dev.labelled, dev_answers, threshold.rule) if dev else None
    points = (chosen_on or sweep(labelled, answers, threshold.rule)).threshold
    thin = points[np.unique(np.linspace(0, len(points) - 1, _SWEEP_POINTS).round().astype(int))]
    thin = np.union1d(thin, [threshold.value])
    return {
        "on": threshold.chosen_on,
        "chosen": threshold.value,
        "threshold": thin.tolist(),
        "chosen_on_split": _curves(sweep(dev.labelled, dev_answers, threshold.rule, thin)) if dev else None,
        "evaluated": _curves(sweep(labelled, answers, threshold.rule, thin)),
    }


def _curves(swept: Sweep) -> dict[str, list[float | None]]:
    return {
        key: [None if np.isnan(x) else float(x) for x in getattr(swept, key)]
        for key in ("error_accuracy", "correct_accuracy", "f1")
    }
