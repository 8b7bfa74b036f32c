"""An evaluation as one offline HTML file.

Everything is in the file: style, script, figures, numbers; nothing is fetched, and the content security policy allows
nothing but our own style and script, by hash. All text of the data goes through jinja2's autoescape or, for the numbers
that the script needs, through a JSON block whose `<`, `>`, `&` and quotes are escaped; the script sets text and class
names only. Without scripts the page shows the leading scorer and every figure.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import prm_kit.report.figures as figures
from prm_kit import __version__
from prm_kit.files import whole_file
from prm_kit.report.evaluation_tables import tables_of
from prm_kit.report.selection_figure import selection_figure
from prm_kit.report.tables import Cell, label_text, plain, share, signed, threshold_text

_UNDEFINED: Mapping[str, Any] = {"value": None, "low": None, "high": None, "n": 0}

Key = tuple[str, str, str]
"""CSS class, shape, words: one entry of a figure's legend."""


@dataclass(frozen=True)
class Figure:
    """A plot with its heading, legend and caption."""

    title: str
    plot: Markup
    keys: Sequence[Key] = ()
    caption: str = ""


@dataclass(frozen=True)
class Tile:
    """A headline figure of the leading scorer, beside the best baseline."""

    title: str
    cell: Cell
    other: str | None
    other_cell: Cell | None


def write_report(path: Path, data: Mapping[str, Any]) -> None:
    """Write the report of an evaluation, whole or not at all.

    Args:
        path: The HTML file.
        data: What `prm_kit.evaluate.evaluate` returned, also after a round trip through JSON.
    """
    page = render(data)
    with whole_file(path) as file:
        file.write(page)


def templates() -> Environment:
    """Our templates: what they are given is escaped, and what they are not given is an error."""
    return Environment(
        loader=PackageLoader("prm_kit.report", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


def render(data: Mapping[str, Any]) -> str:
    """The page as text; a pure function of the data."""
    style, script = asset("page.css"), asset("page.js")
    environment = templates()
    environment.filters |= {"signed": signed, "label_text": label_text, "glyph": _glyph, "shade": shade}
    leading = data["settings"]["leading"]
    return environment.get_template("page.html.j2").render(
        data=data,
        facts=data["data"],
        leading=leading,
        level=f"{100 * data['settings']['level']:.0f} %",
        tables={table.key: table for table in tables_of(data)},
        tiles=_tiles(data),
        headline=figures.headline_figure(data),
        selection=selection_figure(data),
        figures={scorer["name"]: _figures(data, scorer["name"]) for scorer in data["scorers"]},
        whys=list(dict.fromkeys(why for solution in data["solutions"] for why in solution["why"])),
        scale=[x / 5 for x in range(-5, 6)],
        scores=_scores(data),
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        policy=content_security_policy(style, script),
        version=__version__,
    )


def content_security_policy(style: str, script: str) -> str:
    """Nothing is allowed but this style and this script ("": none)."""
    scripts = _source(script) if script else "'none'"
    return f"default-src 'none'; style-src {_source(style)}; script-src {scripts}; base-uri 'none'; form-action 'none'"


def shade(value: float | None) -> str:
    """CSS classes that colour a value in [-1, 1] in steps of a tenth, and an abstention. The script has the same."""
    if value is None:
        return "v x"
    strength = min(10, int(abs(value) * 10 + 0.5))
    return "v" if not strength else f"v {'p' if value > 0 else 'n'} k{strength}"


def _figures(data: Mapping[str, Any], scorer: str) -> list[Figure]:
    found = data["first_error"][scorer]
    labels: Mapping[str, int] = data["data"]["labels"]
    position, length = "step index (from 0)", "steps in the solution"
    keys = [
        (kind, shape, f"label {label_text(label)}") for label, (kind, shape) in figures.SERIES.items() if labels[label]
    ]
    drawn = [
        Figure(title, figures.reliability(data[section][scorer], labels), keys, "Bins of equal mass.")
        for section, title in (("calibration", "Reliability"), ("calibration_after", "Reliability at the temperature"))
        if scorer in data[section]
    ]
    drawn += [
        Figure("Values by label", figures.histogram(data["histogram"][scorer]), keys),
        Figure("Value by position", figures.value_by(data["by_position"][scorer], position), keys),
        Figure("Wrong steps found, by position", figures.auroc_by(data["by_position"][scorer], position)),
        Figure("Value by length", figures.value_by(data["by_step_count"][scorer], length), keys),
        Figure("Wrong steps found, by length", figures.auroc_by(data["by_step_count"][scorer], length)),
        Figure(
            "Place of the lowest value",
            figures.lowest_place(data["lowest_step"][scorer]),
            caption=f"On the last step: {share(data['lowest_step'][scorer]['last']).text} % of solutions.",
        ),
        Figure(
            "Distance from the first error",
            figures.distance_bars(found["distance"]),
            caption="Over solutions with an error; none: no step was named.",
        ),
    ]
    sweep = data["sweep"][scorer]
    if sweep:
        where = [("model", "", "F1"), ("wrong", "", "error accuracy (long dashes)"), ("right", "", "correct accuracy")]
        on = f"on {sweep['on']}" if sweep["on"] else "on the evaluated rows, for looking only"
        caption = (
            f"Solid: {on}. Dotted: F1 on the evaluated rows. Dashed upright: {threshold_text(found['threshold'])}."
        )
        drawn.append(Figure("Threshold", figures.threshold_sweep(sweep, found["threshold"]), where, caption))
    return drawn


def _tiles(data: Mapping[str, Any]) -> list[Tile]:
    """The leading scorer's headline figures, each with the best of the baselines."""
    chosen: list[tuple[str, Callable[[str], Mapping[str, Any]], Callable[[Mapping[str, Any]], Cell], bool]] = [
        ("First-error F1, mean over subsets", lambda name: data["first_error"][name]["f1_mean"], share, True),
        ("AUROC of wrong steps", lambda name: data["steps"][name]["auroc_wrong"], share, True),
        ("Macro-F1 of step labels", lambda name: data["steps"][name]["macro_f1"], share, True),
        (
            "Brier score (lower is better)",
            lambda name: data["calibration"].get(name, {}).get("brier", _UNDEFINED),
            plain,
            False,
        ),
    ]
    leading = data["settings"]["leading"]
    baselines = [scorer["name"] for scorer in data["scorers"] if scorer["role"] == "baseline"]
    tiles = []
    for title, figure, written, higher in chosen:
        known = [name for name in baselines if name != leading and figure(name)["value"] is not None]
        best = (max if higher else min)(known, key=lambda name, of=figure: of(name)["value"], default=None)  # type: ignore[misc]
        tiles.append(Tile(title, written(figure(leading)), best, written(figure(best)) if best else None))
    return tiles


def _scores(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the script needs: numbers and names, no text of problems or steps."""
    return {
        "solutions": [
            {"subset": solution["subset"], "why": solution["why"], "scorers": solution["scorers"]}
            for solution in data["solutions"]
        ]
    }


def _glyph(label: int | None) -> str:
    return {1: "+", 0: "0", -1: "−"}.get(label, "·") if label is not None else "·"


def asset(name: str) -> str:
    """A file of this package as text."""
    return (resources.files("prm_kit.report") / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """The CSP source of an inline block: the hash of exactly what stands between its tags."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
