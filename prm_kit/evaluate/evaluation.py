"""Everything an evaluation finds, as one plain dict that JSON can hold; reports and terminal tables need nothing else.

A figure is `{"value", "low", "high", "n"}`: low and high bound the bootstrap interval over problems, None stands for
undefined. Accuracies, F1, AUROC are shares in [0, 1]. Labels are the keys "-1", "0", "1". Keys of the dict:

    schema        1
    name          of the evaluated data
    about         what was run, as the caller told it: key to text or number
    settings      seed, resamples, level, rule, bins, leading (the scorer that differences and warnings are about)
    data          solutions, problems, steps, judged_steps, repeated_steps (judged, but the same step after the same
                  steps: counted once), labels {label: count}, raters [text], solutions_with_error,
                  solutions_without_error, solutions_unsettled, right_answer_wrong_process, subsets {name: count},
                  threshold_split (name or null), shared_problems {"train", "threshold split"}: counts
    scorers       [{"name", "role": "model" | "baseline"}] in the order of every table
    warnings      [text] what a reader must know before believing a figure;   notes [text]
    steps         {scorer: n, answered, accuracy, balanced_accuracy, macro_f1, auroc_right, auroc_wrong,
                  average_precision_wrong: figures; classes {label: precision, recall, f1: figures, support, predicted};
                  confusion [3 labels][-1, 0, +1, abstained]}
    first_error   {scorer: threshold {value, rule, chosen_on, f1, n}, n_unsettled, subsets {name: error_accuracy,
                  correct_accuracy, f1: figures, n_error, n_correct}, all (the same, over all solutions as one set),
                  f1_mean (plain mean over subsets), f1_weighted_mean (by subset size): figures,
                  right_answer_wrong_process {exact, noticed: figures}, distance {steps from the true one: count}}
    final_answer  {scorer: {aggregation: figure (AUROC of the solution score for the final answer)}}
    calibration   {scorer: answered, brier, nll: figures, bins, classes {label: ece_equal_mass, ece_equal_width:
                  figures, reliability [{n, probability, share}]}}; unbounded scorers have none
    calibration_after  {scorer: the same at the temperature fitted on the development split, and temperature {value,
                  chosen_on, n, nll, nll_before}}
    by_position   {scorer: [{slice (0-based step index), n, n_wrong, accuracy, auroc_wrong: figures,
                  mean_value {label: figure}}]};   by_step_count: the same by the number of steps of the solution
    lowest_step   {scorer: last: figure (share of solutions whose lowest value is on the last step), tenths [10
                  counts by relative position]}
    length        {scorer: {aggregation: {steps, tokens, steps_without_error, tokens_without_error: figures (rank
                  correlation of the solution score with the length)}}}
    prmbench      {scorer: see `prm_kit.evaluate.prmbench.prmbench_table`}; empty for other data
    best_of_n     see `prm_kit.evaluate.selection.selection_table`, or null
    contamination see `prm_kit.evaluate.contamination.contamination`, or null without training data
    histogram     {scorer: edges [21], counts {label: [20]} of the value}
    sweep         {scorer: on (split name or null), chosen, threshold [], chosen_on_split {error_accuracy [],
                  correct_accuracy [], f1 []} or null, evaluated {the same, for looking, nothing is chosen there}}
    differences   {other scorer: {f1_mean, auroc_wrong, macro_f1: figures}}: leading scorer minus the other, paired
    solutions     [{id, why [reason], subset, source, generator, rater, is_correct, problem, steps [text], labels
                  [label or null], first_error (index or null), settled, without_error, scorers {name: values [number
                  or null], first_error, disagreement}}]
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from prm_kit.errors import InputError, UsageError
from prm_kit.evaluate.baselines import CONSTANT_NAMES, trivial_scorers
from prm_kit.evaluate.bootstrap import Bootstrap, FloatArray, IntArray, problem_numbers
from prm_kit.evaluate.calibration import BINS
from prm_kit.evaluate.contamination import contamination
from prm_kit.evaluate.first_error import Threshold
from prm_kit.evaluate.inputs import DevSplit, Scores, check_inputs
from prm_kit.evaluate.remarks import describe_data, remarks
from prm_kit.evaluate.rows import StepRows, judged_steps
from prm_kit.evaluate.sections import FIXED_THRESHOLDS, SECTIONS, sections_of, threshold_of
from prm_kit.evaluate.selection import selection_table
from prm_kit.evaluate.shown import shown_solutions
from prm_kit.records import Labelled
from prm_kit.score import StepScores

__all__ = ["FIXED_THRESHOLDS", "HEADLINES", "DevSplit", "Scores", "evaluate"]

HEADLINES = ("f1_mean", "auroc_wrong", "macro_f1")


def evaluate(
    labelled: Sequence[Labelled],
    scores: Scores,
    *,
    name: str,
    dev: DevSplit | None = None,
    train: Sequence[Labelled] = (),
    baselines: Collection[str] = (),
    subset_of: str | Callable[[Labelled], str] = "subset",
    rule: str = "value",
    about: Mapping[str, Any] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    shown: int = 20,
) -> dict[str, Any]:
    """Compare scorers with the labels, with each other and with scorers that read nothing.

    Args:
        labelled: The evaluated solutions, each with the annotation that counts as true; an annotation without labels
            adds a solution of known outcome to pick from.
        scores: The answers of each scorer; the first one leads.
        name: Of the evaluated data.
        dev: Where thresholds are chosen; None: `FIXED_THRESHOLDS`, and the report says so.
        train: Training labels, for the baselines that are fitted.
        baselines: Names in `scores` that are baselines (an outcome reward model), not models under test.
        subset_of: A key of `Solution.meta`, or a function; solutions without one are the subset "all".
        rule: The score that a threshold is compared with, see `prm_kit.evaluate.first_error.Threshold`.
        about: What was run, for the header of reports: key to text or number.
        seed: Of resamples, of the random baseline and of the shown solutions.
        resamples: How many resamples an interval is made of.
        shown: Solutions shown in full, per reason.

    Returns:
        The dict that the docstring of this module describes.

    Raises:
        UsageError: No scorer, an unknown rule or one that a scorer's unbounded scores do not have, or a baseline that
            was not given.
        InputError: Scores that do not fit their solutions, neither a judged step nor solutions to pick from, or a
            development split that shares solutions with the evaluated ones, lacks a scorer, or cannot settle a
            threshold.
    """
    check_inputs(labelled, scores, dev, baselines, rule)
    rows = judged_steps(labelled)
    if not len(rows) and not any(item.solution.is_correct is not None for item in labelled):
        raise InputError(f"{name}: no step is judged and no outcome known, so there is nothing to evaluate")
    everyone, dev_scores, missing = _with_trivial(labelled, scores, dev, train, seed)
    subsets = [_subset(item, subset_of) for item in labelled]
    problem_L = problem_numbers([item.solution.problem for item in labelled])
    bootstrap = Bootstrap(rows.n_problems, resamples, seed)
    leading = next((scorer for scorer in scores if scorer not in baselines), next(iter(scores)))
    data = {
        "schema": 1,
        "name": name,
        "about": dict(about or {}),
        "settings": _settings(leading, rule, bootstrap),
        "data": describe_data(labelled, rows, subsets, dev.name if dev else None, dev.labelled if dev else (), train),
        "scorers": _roles(everyone, scores, baselines),
    }
    tables, thresholds, replicates = _by_scorer(
        labelled, everyone, rows, rule, subsets, bootstrap, problem_L, dev, dev_scores
    )
    differences = _differences(leading, tables, replicates, bootstrap)
    picking = {scorer: answers for scorer, answers in everyone.items() if scorer not in CONSTANT_NAMES}
    solutions = [item.solution for item in labelled]
    once = {
        "best_of_n": selection_table(labelled, picking, seed, resamples),
        "contamination": contamination(solutions, (item.solution for item in train)) if train else None,
    }
    warnings, notes = remarks(data, scores, tables, once, differences)
    return {
        **data,
        "warnings": warnings,
        "notes": [*missing, *notes],
        **tables,
        **once,
        "differences": differences,
        "solutions": shown_solutions(labelled, everyone, thresholds, subsets, leading, shown, seed),
    }


def _by_scorer(
    labelled: Sequence[Labelled],
    everyone: Scores,
    rows: StepRows,
    rule: str,
    subsets: Sequence[str],
    bootstrap: Bootstrap,
    problem_L: IntArray,
    dev: DevSplit | None,
    dev_scores: Scores,
) -> tuple[dict[str, dict[str, Any]], dict[str, Threshold | None], dict[str, dict[str, FloatArray]]]:
    """Sections by name and scorer, thresholds, and the replicates of the headlines."""
    thresholds: dict[str, Threshold | None] = {}
    replicates: dict[str, dict[str, FloatArray]] = {}
    tables: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for scorer, answers in everyone.items():
        said = dev_scores.get(scorer, ())
        thresholds[scorer] = threshold_of(scorer, answers, dev, said, rule)
        found, replicates[scorer] = sections_of(
            scorer, labelled, answers, rows, thresholds[scorer], subsets, bootstrap, problem_L, dev, said
        )
        for section, table in found.items():
            if table is not None or section == "sweep":
                tables[section][scorer] = table
    return tables, thresholds, replicates


def _roles(everyone: Scores, scores: Scores, baselines: Collection[str]) -> list[dict[str, str]]:
    models = {scorer for scorer in scores if scorer not in baselines}
    return [{"name": scorer, "role": "model" if scorer in models else "baseline"} for scorer in everyone]


def _settings(leading: str, rule: str, bootstrap: Bootstrap) -> dict[str, Any]:
    return {
        "seed": bootstrap.seed,
        "resamples": bootstrap.resamples,
        "level": bootstrap.level,
        "rule": rule,
        "bins": BINS,
        "leading": leading,
    }


def _with_trivial(
    labelled: Sequence[Labelled], scores: Scores, dev: DevSplit | None, train: Sequence[Labelled], seed: int
) -> tuple[dict[str, Sequence[StepScores]], dict[str, Sequence[StepScores]], list[str]]:
    """All scores on the evaluated and the development split, trivial baselines included."""
    trivial, missing = trivial_scorers(train, labelled, seed)
    everyone, dev_scores = dict(scores), dict(dev.scores) if dev else {}
    for scorer in trivial:
        if scorer.name in everyone:
            raise UsageError(f"{scorer.name!r} is the name of a built-in baseline; give your scorer another name")
        everyone[scorer.name] = scorer.score([item.solution for item in labelled])
        if dev:
            dev_scores[scorer.name] = scorer.score([item.solution for item in dev.labelled])
    return everyone, dev_scores, missing


def _differences(
    leading: str, tables: Mapping[str, Any], replicates: Mapping[str, Mapping[str, FloatArray]], bootstrap: Bootstrap
) -> dict[str, dict[str, Any]]:
    def value(scorer: str, metric: str) -> dict[str, Any]:
        figure: dict[str, Any] = tables["first_error" if metric == "f1_mean" else "steps"][scorer][metric]
        return figure

    found: dict[str, dict[str, Any]] = {}
    for other in replicates:
        if other == leading:
            continue
        found[other] = {}
        for metric in HEADLINES:
            ours, theirs = value(leading, metric), value(other, metric)
            undefined = ours["value"] is None or theirs["value"] is None
            apart = replicates[leading][metric] - replicates[other][metric]
            point = None if undefined else ours["value"] - theirs["value"]
            found[other][metric] = bootstrap.measure(point, apart, min(ours["n"], theirs["n"]))
    return found


def _subset(item: Labelled, subset_of: str | Callable[[Labelled], str]) -> str:
    if callable(subset_of):
        return subset_of(item)
    return str(item.solution.meta.get(subset_of, "all"))
