"""The tables of an evaluation: cut from its plain data once, for the terminal and for the HTML report alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from prm_kit.aggregate import AGGREGATIONS
from prm_kit.records import LABEL_VALUES

_MANY_SUBSETS = 6
MINUS = "\N{MINUS SIGN}"


class Cell(NamedTuple):
    """What stands in a table: a figure and, in smaller type, its interval."""

    text: str
    interval: str = ""


class Row(NamedTuple):
    """One scorer's line; baselines are set apart."""

    name: str
    is_baseline: bool
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """A table ready to be drawn.

    Attributes:
        key: Short name, used as an anchor.
        title: Its heading.
        note: How to read it, one or two sentences.
        columns: (heading, explanation) of each cell column.
        rows: The lines.
        detail: Shown folded in HTML and left out of the terminal.
        of: Heading of the first column: what the rows are about.
    """

    key: str
    title: str
    note: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Row]
    detail: bool = False
    of: str = "scorer"


def tables_of(data: Mapping[str, Any]) -> list[Table]:
    """Cut every table from an evaluation (the dict that `prm_kit.evaluate.evaluate` returns)."""
    made = (make(data) for make in _TABLES)
    return [table for table in made if table.columns and table.rows]


def print_tables(data: Mapping[str, Any], console: Console) -> None:
    """Print the main tables, the warnings and the notes of an evaluation."""
    print_all(headline(data), tables_of(data), data, console)


def print_all(line: str, tables: Sequence[Table], data: Mapping[str, Any], console: Console) -> None:
    """Print a report: its headline, the main ones of its tables, and the data's warnings and notes."""
    console.print(Text(visible(line), style="bold"))
    for table in tables:
        if not table.detail:
            print_table(table, console)
    for warning in data["warnings"]:
        console.print(Text.assemble(("warning: ", "yellow"), visible(warning)))
    for note in data["notes"]:
        console.print(Text(f"note: {visible(note)}", style="dim"))


def print_table(table: Table, console: Console) -> None:
    """Print one table."""
    drawn = RichTable(
        title=Text(visible(table.title), style="bold"), caption=Text(visible(table.note)), title_justify="left"
    )
    drawn.caption_justify = "left"
    drawn.add_column(Text(visible(table.of)), overflow="fold")
    for heading, _ in table.columns:
        drawn.add_column(Text(visible(heading)), justify="right", overflow="fold")
    for row in table.rows:
        cells = [Text.assemble(cell.text, (f"\n{cell.interval}" if cell.interval else "", "dim")) for cell in row.cells]
        drawn.add_row(Text(visible(row.name), style="dim" if row.is_baseline else "bold"), *cells)
    console.print(drawn)


def headline(data: Mapping[str, Any]) -> str:
    """One line: what was evaluated, on how much."""
    facts = data["data"]
    return (
        f"{data['name']}: {facts['solutions']:,} solutions of {facts['problems']:,} problems, "
        f"{facts['judged_steps']:,} judged steps"
    )


def share(figure: Mapping[str, Any]) -> Cell:
    """A share in [0, 1] as percent with one decimal; a dash where it is undefined."""
    return _figure(figure, lambda x: f"{100 * x:.1f}")


def plain(figure: Mapping[str, Any]) -> Cell:
    """A figure with three decimals; a dash where it is undefined."""
    return _figure(figure, lambda x: f"{x:.3f}")


def difference(figure: Mapping[str, Any]) -> Cell:
    """A difference of shares in points, with its sign."""
    return _figure(figure, lambda x: signed(100 * x, 1))


def signed(number: float | None, digits: int = 2) -> str:
    """A number with its sign, a true minus, and a fixed number of digits; "abstains" for None."""
    if number is None:
        return "abstains"
    text = f"{abs(number):.{digits}f}"
    return text if float(text) == 0 else f"{'+' if number > 0 else MINUS}{text}"


def visible(text: str) -> str:
    """Text from outside for a terminal: control and format characters (escape sequences, reordering) as escapes."""
    return "".join(ch if ch == "\n" or unicodedata.category(ch) not in ("Cc", "Cf") else ascii(ch)[1:-1] for ch in text)


def label_text(label: int | str | None) -> str:
    """How a label is written: +1, 0, -1 with a true minus, or "not judged"."""
    return {"1": "+1", "0": "0", "-1": f"{MINUS}1"}.get(str(label), "not judged")


def threshold_text(threshold: Mapping[str, Any]) -> str:
    """Where a threshold lies and where it was chosen."""
    where = f"chosen on {threshold['chosen_on']}" if threshold["chosen_on"] else "fixed"
    return f"{threshold['rule']} below {signed(threshold['value'], 3)}, {where}"


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
            Cell(signed(found["threshold"]["value"]), "chosen" if found["threshold"]["chosen_on"] else "fixed"),
        ]

    facts = data["data"]
    split = facts["threshold_split"]
    chosen = f"Thresholds were chosen on: {split}." if split else "Thresholds are fixed, none was chosen on data."
    note = (
        f"ProcessBench protocol over {facts['solutions_with_error']:,} solutions with an error and "
        f"{facts['solutions_without_error']:,} without; {facts['right_answer_wrong_process']:,} of the former have the "
        f"right final answer. {chosen}"
    )
    return _by_scorer(data, "first-error", "First error", note, columns, "first_error", cells)


def subset_f1_rows(data: Mapping[str, Any]) -> Table:
    """First-error F1 in each subset, one column each (none where there is one subset, or more than fit)."""
    subsets = list(data["data"]["subsets"].items())
    shown = subsets if 1 < len(subsets) <= _MANY_SUBSETS else []
    columns = [(subset, f"first-error F1 in {subset}, {n:,} solutions") for subset, n in shown]
    note = "Solutions: " + ", ".join(f"{subset} {n:,}" for subset, n in shown) + "."

    def cells(found: Mapping[str, Any]) -> list[Cell]:
        return [share(found["subsets"][subset]["f1"]) for subset, _ in shown]

    return _by_scorer(data, "subset-f1", "First-error F1 by subset", note, columns, "first_error", cells)


def subset_rows(data: Mapping[str, Any]) -> Table:
    """Both accuracies and F1 of every scorer in every subset."""
    roles = _roles(data)
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
    return _by_scorer(data, "steps", "Steps", note, columns, "steps", cells)


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
            for cell in (share(of["precision"]), share(of["recall"]), share(of["f1"]), Cell(f"{of['predicted']:,}"))
        ]

    support = ", ".join(f"{label_text(label)}: {n:,}" for label, n in data["data"]["labels"].items())
    note = f"Support {support}. A dash is undefined: the class has no labels, or was never predicted."
    return _by_scorer(data, "classes", "Classes", note, columns, "steps", cells, detail=True)


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
    return _by_scorer(data, "calibration", "Calibration", note, columns, "calibration", cells)


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

    return _by_scorer(data, "final-answer", "Final answer", note, columns, "final_answer", cells, detail=True)


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
    return _by_scorer(data, "differences", f"{leading} minus each other", note, columns, "differences", cells)


_BINNINGS = ("mass", "width")

_TABLES: tuple[Callable[[Mapping[str, Any]], Table], ...] = (
    first_error_rows,
    subset_f1_rows,
    subset_rows,
    step_rows,
    class_rows,
    calibration_rows,
    difference_rows,
    final_answer_rows,
)


def _by_scorer(
    data: Mapping[str, Any],
    key: str,
    title: str,
    note: str,
    columns: Sequence[tuple[str, str]],
    section: str,
    cells: Callable[[Mapping[str, Any]], list[Cell]],
    detail: bool = False,
) -> Table:
    rows = [
        Row(scorer, is_baseline, cells(data[section][scorer]))
        for scorer, is_baseline in _roles(data).items()
        if scorer in data[section]
    ]
    return Table(key, title, note, columns, rows, detail)


def _roles(data: Mapping[str, Any]) -> dict[str, bool]:
    """Per scorer, in order, whether it is a baseline."""
    return {scorer["name"]: scorer["role"] == "baseline" for scorer in data["scorers"]}


def _figure(figure: Mapping[str, Any], written: Callable[[float], str]) -> Cell:
    if figure["value"] is None:
        return Cell("–")
    if figure["low"] is None:
        return Cell(written(figure["value"]))
    low, high = written(figure["low"]), written(figure["high"])
    return Cell(
        written(figure["value"]), f"{low}–{high}" if low[0].isdigit() and high[0].isdigit() else f"{low} to {high}"
    )
