"""The outcome of attacks on a scorer: a table for the terminal and one offline HTML page without any script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console

from prm_kit import __version__
from prm_kit.evaluate.attacks import CONTROL
from prm_kit.files import whole_file
from prm_kit.report.html import asset, content_security_policy, templates
from prm_kit.report.tables import DASH, Cell, Row, Table, print_all, share, signed

_CLIP = 300


def print_stress(data: Mapping[str, Any], console: Console) -> None:
    """Print the tables, warnings and notes of `prm_kit.evaluate.stress.stress`."""
    print_all(stress_headline(data), [attack_rows(data)], data, console)


def write_stress_report(path: Path, data: Mapping[str, Any]) -> None:
    """Write the page, whole or not at all."""
    page = render_stress(data)
    with whole_file(path) as file:
        file.write(page)


def render_stress(data: Mapping[str, Any]) -> str:
    """The page as text; a pure function of the data."""
    style = asset("page.css")
    return (
        templates()
        .get_template("stress.html.j2")
        .render(
            data=data,
            headline=stress_headline(data),
            tables=[attack_rows(data), failure_rows(data)],
            style=Markup(style),  # noqa: S704 - our own file
            policy=content_security_policy(style, ""),
            version=__version__,
        )
    )


def stress_headline(data: Mapping[str, Any]) -> str:
    """One line: how many attacks were withstood."""
    leading = data["settings"]["leading"]
    tried = [attack["scorers"][leading]["holds"] for attack in data["attacks"] if attack["name"] != CONTROL]
    return (
        f"{data['name']}: {leading} withstands {tried.count(True)} of {len(tried) - tried.count(None)} attacks "
        f"({data['data']['right']:,} right and {data['data']['wrong']:,} wrong solutions)"
    )


def attack_rows(data: Mapping[str, Any]) -> Table:
    """One row an attack: pass rates of the scorer, and of a constant and a random one."""
    leading = data["settings"]["leading"]
    columns = [("verdict", f"pass: at least {100 * data['settings']['holds']:.0f} % of the trials pass")]
    columns += [(scorer["name"], "share of trials that pass, in percent") for scorer in data["scorers"]]
    columns += [("trials", "passed or failed"), ("refused", "refused by name, or abstained"), ("must follow", "")]
    rows = []
    for attack in data["attacks"]:
        found = attack["scorers"][leading]
        verdict = {True: "pass", False: "FAIL", None: DASH}[found["holds"]]
        rates = [share(attack["scorers"][scorer["name"]]["rate"]) for scorer in data["scorers"]]
        counts = [Cell(f"{found['passed'] + found['failed']:,}"), Cell(f"{found['refused'] + found['abstained']:,}")]
        rows.append(Row(attack["name"], False, [Cell(verdict), *rates, *counts, Cell(attack["what"])]))
    note = (
        f"Percent of trials that pass, with intervals over problems; a solution's score is the "
        f"{data['settings']['aggregation']} of its steps."
    )
    return Table("attacks", "Attacks", note, columns, rows, of="attack")


def failure_rows(data: Mapping[str, Any]) -> Table:
    """A failed trial of each attack that has one."""
    leading = data["settings"]["leading"]
    rows = []
    for attack in data["attacks"]:
        failure = attack["scorers"][leading]["failure"]
        if failure:
            where = "the solution" if failure["step"] is None else f"step {failure['step']}"
            cells = [
                Cell(where), Cell(signed(failure["number"], 3)), Cell(_clipped(failure["text"])),
                Cell(_clipped(failure["problem"])),
            ]  # fmt: skip
            rows.append(Row(attack["name"], False, cells))
    columns = [("of", ""), ("number", "its value or score"), ("text", ""), ("problem", "")]
    return Table("failures", "A failed trial of each attack", "The first one.", columns, rows, of="attack")


def _clipped(text: str) -> str:
    return text if len(text) <= _CLIP else f"{text[:_CLIP]}… ({len(text):,} characters)"
