"""The tables of a quality report: cut from its plain data once, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from prm_kit.report.tables import Cell, Row, Table, difference, label_text, plain, print_all, share, signed

_VALUES = ("-1", "0", "1")


def print_quality(data: Mapping[str, Any], console: Console) -> None:
    """Print the main tables, the warnings and the notes of a quality report."""
    print_all(quality_headline(data), quality_tables(data), data, console)


def quality_tables(data: Mapping[str, Any]) -> list[Table]:
    """Cut every table from a quality report (the dict that `labeling.quality.label_quality` returns)."""
    made = (agreement_rows(data), rater_rows(data), class_rows(data), pair_rows(data), calibration_rows(data))
    return [table for table in made if table.rows]


def quality_headline(data: Mapping[str, Any]) -> str:
    """One line: what was measured, on how much."""
    facts = data["data"]
    return (
        f"{data['name']}: {facts['labels']:,} labels in {facts['annotations']:,} annotations of "
        f"{facts['solutions']:,} solutions by {len(data['raters']):,} raters"
    )


def agreement_rows(data: Mapping[str, Any]) -> Table:
    """Agreement of groups of raters."""
    columns = [
        (
            "alpha, ordinal",
            "Krippendorff's alpha: 1 perfect, 0 as by chance; -1 and +1 are further apart than neighbours",
        ),
        ("alpha, nominal", "Krippendorff's alpha with all differences equal"),
        ("Fleiss' kappa", "1 perfect, 0 as by chance; every step weighs the same"),
        ("same label, %", "share of pairs of labels of one step that are equal; not corrected for chance"),
        ("steps", "steps that two raters or more judged"),
        *((f"{label_text(value)}, %", "share of the labels of those steps") for value in _VALUES),
    ]
    rows = [
        Row(
            group,
            False,
            [
                *(plain(found[key]) for key in ("alpha", "alpha_nominal", "fleiss")),
                share(found["percent"]),
                Cell(f"{found['units']:,}"),
                *(_of(found["values"], value) for value in _VALUES),
            ],
        )
        for group, found in data["agreement"].items()
    ]
    return Table("agreement", "Agreement", "Over steps that two raters or more judged.", columns, rows, of="raters")


def rater_rows(data: Mapping[str, Any]) -> Table:
    """Every rater at a glance."""
    reference = data["settings"]["reference"]
    columns = [
        ("annotations", "solutions annotated"),
        ("labels", "steps judged"),
        *((f"{label_text(value)}, %", "share of the rater's labels") for value in _VALUES),
        ("seconds", "median time for one annotation"),
        ("same as reference, %", f"share of steps labelled as {reference}"),
        ("kappa", "Cohen's kappa with the reference"),
        ("lean", "mean of the rater's label minus the reference's: below 0 is stricter, above 0 more lenient"),
        ("first error, %", "solutions on whose first error rater and reference agree"),
        ("gold, %", "share of gold steps labelled right"),
        ("change", "agreement with the reference in the later half minus that in the earlier, in points"),
    ]
    rows = []
    for rater in data["raters"]:
        found, gold = rater["reference"], rater["gold"]
        change = (rater["drift"] or {}).get("change")
        seconds = rater["median_seconds"]
        rows.append(
            Row(
                rater["label"],
                False,
                [
                    Cell(f"{rater['annotations']:,}"),
                    Cell(f"{rater['labels']:,}"),
                    *(_of(rater["values"], value) for value in _VALUES),
                    Cell("–" if seconds is None else f"{seconds:.0f}"),
                    share(found["percent"]) if found else Cell("–"),
                    plain(found["kappa"]) if found else Cell("–"),
                    lean(found["lean"]) if found else Cell("–"),
                    share(found["first_error"]["agreement"]) if found else Cell("–"),
                    share(gold["percent"]) if gold else Cell("–"),
                    difference(change) if change else Cell("–"),
                ],
            )
        )
    note = f"Reference: {reference}. Intervals come from resampling problems."
    return Table("raters", "Raters", note, columns, rows, of="rater")


def class_rows(data: Mapping[str, Any]) -> Table:
    """Precision and recall of every rater by label, against the reference and against gold."""
    columns = [
        (f"{name} {label_text(value)}", f"{name} of steps labelled {label_text(value)}")
        for value in _VALUES
        for name in ("precision", "recall")
    ]
    rows = [
        Row(
            f"{rater['label']} · {against}",
            against == "gold",
            [share(rater[against][name][value]) for value in _VALUES for name in ("precision", "recall")],
        )
        for rater in data["raters"]
        for against in ("reference", "gold")
        if rater[against] and rater[against]["steps"]
    ]
    return Table("classes", "Precision and recall by label", "", columns, rows, detail=True, of="rater")


def pair_rows(data: Mapping[str, Any]) -> Table:
    """Every pair of raters with a step or a first error in common."""
    names = {rater["rater"]: rater["label"] for rater in data["raters"]}
    columns = [
        ("alpha", "Krippendorff's alpha, ordinal"),
        ("kappa", "Cohen's kappa"),
        ("same label, %", "share of their common steps"),
        ("steps", "that both judged"),
        ("same first error, %", "solutions for which both settle the first error"),
        ("distance", "mean number of steps between the first errors that both name"),
        ("solutions", "for which both settle the first error"),
        ("only one names an error", "the first rater, the second rater"),
    ]
    rows = [
        Row(
            f"{names[pair['a']]} · {names[pair['b']]}",
            False,
            [
                plain(pair["alpha"]),
                plain(pair["kappa"]),
                share(pair["percent"]),
                Cell(f"{pair['steps']:,}"),
                share(pair["first_error"]["agreement"]),
                plain(pair["first_error"]["distance"]),
                Cell(f"{pair['first_error']['solutions']:,}"),
                Cell(f"{pair['first_error']['only_a']:,} and {pair['first_error']['only_b']:,}"),
            ],
        )
        for pair in data["pairs"]
    ]
    return Table("pairs", "Pairs of raters", "", columns, rows, detail=True, of="pair")


def calibration_rows(data: Mapping[str, Any]) -> Table:
    """How vote shares and probabilities fit what people say."""
    columns = [
        ("steps", "that the rater gave shares and a person a label"),
        ("Brier", "mean squared error of the three shares, 0 to 2, lower is better"),
        ("ECE −1, %", "calibration error of the share of -1"),
        ("ECE +1, %", "calibration error of the share of +1"),
    ]
    rows = [
        Row(
            rater["label"],
            False,
            [
                Cell(f"{found['answered']:,}"),
                plain(found["brier"]),
                *(share(found["classes"][value]["ece_equal_mass"]) for value in ("-1", "1")),
            ],
        )
        for rater in data["raters"]
        for found in [rater["calibration"]]
        if found
    ]
    note = "Shares of votes, rollouts or classes against people's labels of the same steps."
    return Table("calibration", "Calibration of shares", note, columns, rows, of="rater")


def lean(figure: Mapping[str, Any]) -> Cell:
    """A difference of labels with its sign; a dash where it is undefined."""
    if figure["value"] is None:
        return Cell("–")
    if figure["low"] is None:
        return Cell(signed(figure["value"], 3))
    return Cell(signed(figure["value"], 3), f"{signed(figure['low'], 3)} to {signed(figure['high'], 3)}")


def _of(values: Mapping[str, int], value: str) -> Cell:
    total = sum(values.values())
    return Cell(f"{100 * values[value] / total:.1f}" if total else "–")
