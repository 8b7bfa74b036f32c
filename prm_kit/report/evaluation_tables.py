"""The tables of an evaluation: cut from its plain data once, for the terminal and for the HTML report alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from prm_kit.aggregate import AGGREGATIONS
from prm_kit.records import LABEL_VALUES
from prm_kit.report.outcome_tables import (
    calibrated_rows,
    contamination_rows,
    length_rows,
    overlap_rows,
    prmbench_field_rows,
    prmbench_rows,
    selection_rows,
    vote_rows,
)
from prm_kit.report.tables import (
    DASH,
    Cell,
    Row,
    Table,
    by_scorer,
    difference,
    label_text,
    plain,
    print_all,
    roles_of,
    share,
    signed,
)

_MANY_SUBSETS = 6


def tables_of(data: Mapping[str, Any]) -> list[Table]:
    """Cut every table from an evaluation (the dict that `prm_kit.evaluate.evaluate` returns)."""
    makers = _TABLES if data["data"]["judged_steps"] else [make for make in _TABLES if make not in _OF_STEPS]
    made = (make(data) for make in makers)
    return [
        table for table in made if table.columns and any(cell.text != DASH for row in table.rows for cell in row.cells)
    ]


def print_tables(data: Mapping[str, Any], console: Console) -> None:
    """Print the main tables, the warnings and the notes of an evaluation."""
    print_all(headline(data), tables_of(data), data, console)


def headline(data: Mapping[str, Any]) -> str:
    """One line: what was evaluated, on how much."""
    facts = data["data"]
    return (
        f"{data['name']}: {facts['solutions']:,} solutions of {facts['problems']:,} problems, "
        f"{facts['judged_steps']:,} judged steps"
    )


def first_error_rows(data: Mapping[str, Any]) -> Table:
    """The ProcessBench table: both means of F1, both accuracies, the threshold."""
    columns = [
        ("F1, mean", "plain mean of the F1 of the subsets"),
        ("F1, weighted", "mean of the F1 of the subsets, weighted by their size"),
        ("error acc.", "solutions with an error whose first wrong step is named exactly"),
        ("correct acc.", "solutions without an error in which no step is named"),
        ("right answer, wrong process", "of solutions with the right answer and a wrong step: first one named exactly"),
        ("threshold", "a step is named when its score is below"),
    ]

    def cells(found: Mapping[str, Any]) -> list[Cell]:
        return [
            share(found["f1_mean"]),
            share(found["f1_weighted_mean"]),
            share(found["all"]["error_accuracy"]),
            share(found["all"]["correct_accuracy"]),
            share(found["right_answer_wrong_process"]["exact"]),
            _threshold(found["threshold"]),
        ]

    facts = data["data"]
    split = facts["threshold_split"]
    chosen = f"Thresholds were chosen on: {split}." if split else "Thresholds are fixed, none was chosen on data."
    note = (
        f"ProcessBench protocol over {facts['solutions_with_error']:,} solutions with an error and "
        f"{facts['solutions_without_error']:,} without; {facts['right_answer_wrong_process']:,} of the former have the "
        f"right final answer. {chosen}"
    )
    return by_scorer(data, "first-error", "First error", note, columns, "first_error", cells)


def subset_f1_rows(data: Mapping[str, Any]) -> Table:
    """First-error F1 in each subset, one column each (none where there is one subset, or more than fit)."""
    subsets = list(data["data"]["subsets"].items())
    shown = subsets if 1 < len(subsets) <= _MANY_SUBSETS else []
    columns = [(subset, f"first-error F1 in {subset}, {n:,} solutions") for subset, n in shown]
    note = "Solutions: " + ", ".join(f"{subset} {n:,}" for subset, n in shown) + "."

    def cells(found: Mapping[str, Any]) -> list[Cell]:
        return [share(found["subsets"][subset]["f1"]) for subset, _ in shown]

    return by_scorer(data, "subset-f1", "First-error F1 by subset", note, columns, "first_error", cells)


def subset_rows(data: Mapping[str, Any]) -> Table:
    """Both accuracies and F1 of every scorer in every subset."""
    roles = roles_of(data)
    rows = [
        Row(
            f"{scorer} · {subset}",
            roles[scorer],
            [
                *(share(found[key]) for key in ("error_accuracy", "correct_accuracy", "f1")),
                Cell(str(found["n_error"])),
                Cell(str(found["n_correct"])),
            ],
        )
        for scorer in roles
        for subset, found in [
            *data["first_error"][scorer]["subsets"].items(),
            ("all as one", data["first_error"][scorer]["all"]),
        ]
    ]
    columns = [
        ("error acc.", "first wrong step named exactly"),
        ("correct acc.", "no step named"),
        ("F1", "harmonic mean of both"),
        ("n with error", "solutions with an error"),
        ("n without", "solutions without an error"),
    ]
    return Table("subsets", "First error by subset, both accuracies", "", columns, rows, detail=True)


def step_rows(data: Mapping[str, Any]) -> Table:
    """Step-level metrics."""
    columns = [
        ("AUROC wrong", "how well the value ranks steps labelled -1 below the rest; 50 is chance"),
        ("AUROC right", "how well the value ranks steps labelled +1 above the rest; 50 is chance"),
        ("avg. prec. wrong", "average precision of finding steps labelled -1"),
        ("macro-F1", "mean of the F1 of the classes that have labels; predicted class = highest probability"),
        ("accuracy", "steps whose predicted class is their label"),
        ("balanced acc.", "mean recall of the classes that have labels"),
        ("answered", "judged steps that the scorer gave a score"),
    ]

    def cells(found: Mapping[str, Any]) -> list[Cell]:
        keys = (
            "auroc_wrong", "auroc_right", "average_precision_wrong", "macro_f1", "accuracy", "balanced_accuracy",
        )  # fmt: skip
        return [*(share(found[key]) for key in keys), Cell(f"{found['answered']:,}")]

    labels = ", ".join(f"{label_text(label)}: {n:,}" for label, n in data["data"]["labels"].items())
    note = f"Judged steps by label: {labels}. Steps that nobody judged are not counted."
    return by_scorer(data, "steps", "Steps", note, columns, "steps", cells)


def class_rows(data: Mapping[str, Any]) -> Table:
    """Precision, recall and F1 of each class, with support and the number predicted."""
    columns = [
        (f"{name} {label_text(label)}", f"{name} of steps labelled {label_text(label)}")
        for label in LABEL_VALUES
        for name in ("precision", "recall", "F1", "predicted")
    ]

    def cells(found: Mapping[str, Any]) -> list[Cell]:
        return [
            cell
            for label in LABEL_VALUES
            for of in [found["classes"][str(label)]]
            for cell in (
                share(of["precision"]),
                share(of["recall"]),
                share(of["f1"]),
                Cell(DASH if of["predicted"] is None else f"{of['predicted']:,}"),
            )
        ]

    support = ", ".join(f"{label_text(label)}: {n:,}" for label, n in data["data"]["labels"].items())
    note = f"Support {support}. A dash is undefined: the class has no labels, or was never predicted."
    return by_scorer(data, "classes", "Classes", note, columns, "steps", cells, detail=True)


def calibration_rows(data: Mapping[str, Any]) -> Table:
    """Brier, log-likelihood and calibration errors."""
    columns = [
        ("Brier", "mean squared error of the three probabilities, 0 to 2, lower is better"),
        ("NLL", "negative log-likelihood in nats, probabilities floored at 1e-6, lower is better"),
        *(
            (f"ECE {label_text(label)}, {words}", f"calibration error of p({label_text(label)}) in percent, {words}")
            for label in (-1, 1)
            for words in ("equal mass", "equal width")
        ),
    ]

    def cells(found: Mapping[str, Any]) -> list[Cell]:
        errors = [share(found["classes"][label][f"ece_equal_{how}"]) for label in ("-1", "1") for how in _BINNINGS]
        return [plain(found["brier"]), plain(found["nll"]), *errors]

    note = f"Lower is better throughout. Calibration errors over {data['settings']['bins']} bins, in percent."
    return by_scorer(data, "calibration", "Calibration", note, columns, "calibration", cells)


def final_answer_rows(data: Mapping[str, Any]) -> Table:
    """AUROC of aggregated scores for the final answer."""
    columns = [
        (how, f"AUROC of the {how} of 1 - p(-1) over the steps, for a right final answer") for how in AGGREGATIONS
    ]
    n = max((found["min"]["n"] for found in data["final_answer"].values()), default=0)
    note = (
        f"AUROC of the solution score for a right final answer, by aggregation; {n:,} solutions with a checked answer. "
        "A scorer that is told the answer ranks it perfectly."
    )

    def cells(found: Mapping[str, Any]) -> list[Cell]:
        return [share(found[how]) for how in AGGREGATIONS]

    return by_scorer(data, "final-answer", "Final answer", note, columns, "final_answer", cells, detail=True)


def difference_rows(data: Mapping[str, Any]) -> Table:
    """Leading scorer minus each other, paired."""
    columns = [
        ("first-error F1", "difference of the plain means over subsets, in points"),
        ("AUROC wrong", "difference in points"),
        ("macro-F1", "difference in points"),
    ]

    def cells(found: Mapping[str, Any]) -> list[Cell]:
        return [difference(found[key]) for key in ("f1_mean", "auroc_wrong", "macro_f1")]

    leading = data["settings"]["leading"]
    note = "In points, on the same resamples. An interval that holds 0 shows no difference."
    return by_scorer(data, "differences", f"{leading} minus each other", note, columns, "differences", cells)


_BINNINGS = ("mass", "width")

_TABLES: tuple[Callable[[Mapping[str, Any]], Table], ...] = (
    first_error_rows,
    subset_f1_rows,
    subset_rows,
    prmbench_rows,
    prmbench_field_rows,
    selection_rows,
    vote_rows,
    step_rows,
    class_rows,
    calibration_rows,
    calibrated_rows,
    length_rows,
    difference_rows,
    final_answer_rows,
    contamination_rows,
    overlap_rows,
)

_OF_STEPS = (first_error_rows, subset_f1_rows, subset_rows, step_rows, class_rows, calibration_rows, difference_rows)
"""Tables that say nothing where no step is judged."""


def _threshold(threshold: Mapping[str, Any]) -> Cell:
    if threshold["value"] is None:
        return Cell(DASH, "none chosen")
    return Cell(signed(threshold["value"]), "chosen" if threshold["chosen_on"] else "fixed")
