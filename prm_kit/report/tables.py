"""What a table is, how its cells are written, and how it is printed: for the terminal and for HTML alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

MINUS = "\N{MINUS SIGN}"
DASH = "–"


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
    if threshold["value"] is None:
        return "none: unbounded scores, and no development split to choose one on"
    where = f"chosen on {threshold['chosen_on']}" if threshold["chosen_on"] else "fixed"
    return f"{threshold['rule']} below {signed(threshold['value'], 3)}, {where}"


def _figure(figure: Mapping[str, Any], written: Callable[[float], str]) -> Cell:
    if figure["value"] is None:
        return Cell(DASH)
    if figure["low"] is None:
        return Cell(written(figure["value"]))
    low, high = written(figure["low"]), written(figure["high"])
    return Cell(
        written(figure["value"]), f"{low}–{high}" if low[0].isdigit() and high[0].isdigit() else f"{low} to {high}"
    )


def by_scorer(
    data: Mapping[str, Any],
    key: str,
    title: str,
    note: str,
    columns: Sequence[tuple[str, str]],
    section: str,
    cells: Callable[[Mapping[str, Any]], list[Cell]],
    detail: bool = False,
) -> Table:
    """A table with a row for every scorer that the section has something of."""
    rows = [
        Row(scorer, is_baseline, cells(data[section][scorer]))
        for scorer, is_baseline in roles_of(data).items()
        if scorer in data[section]
    ]
    return Table(key, title, note, columns, rows, detail)


def roles_of(data: Mapping[str, Any]) -> dict[str, bool]:
    """Per scorer, in order, whether it is a baseline."""
    return {scorer["name"]: scorer["role"] == "baseline" for scorer in data["scorers"]}
