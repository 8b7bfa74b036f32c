"""The quality of labels as one offline HTML file without any script: agreement matrix, raters, a panel for each.

As in the evaluation's page, all text of the data goes through jinja2's autoescape, and the content security policy
allows nothing but our own style.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from prm_kit import __version__
from prm_kit.files import whole_file
from prm_kit.report.figures import SERIES, reliability
from prm_kit.report.html import asset, content_security_policy, shade, templates
from prm_kit.report.quality_tables import quality_headline, quality_tables
from prm_kit.report.svg import Plot
from prm_kit.report.tables import Cell, label_text, plain, share, signed

_PERCENT = [(tick / 100, str(tick)) for tick in (0, 25, 50, 75, 100)]


class Shaded(NamedTuple):
    """A cell of a matrix: its words, its colour (CSS classes), and what is said on hover."""

    cell: Cell
    shade: str
    title: str


def write_quality_report(path: Path, data: Mapping[str, Any]) -> None:
    """Write the report on labels, whole or not at all.

    Args:
        path: The HTML file.
        data: What `labeling.quality.label_quality` returned, also after a round trip through JSON.
    """
    page = render_quality(data)
    with whole_file(path) as file:
        file.write(page)


def render_quality(data: Mapping[str, Any]) -> str:
    """The page as text; a pure function of the data."""
    style = asset("page.css") + asset("quality.css")
    overall = data["agreement"]["all raters"]
    return (
        templates()
        .get_template("quality.html.j2")
        .render(
            data=data,
            headline=quality_headline(data),
            tables={table.key: table for table in quality_tables(data)},
            tiles=[
                ("Krippendorff's alpha, ordinal", plain(overall["alpha"]), "1 perfect, 0 as by chance"),
                ("Fleiss' kappa", plain(overall["fleiss"]), "1 perfect, 0 as by chance"),
                ("Same label", share(overall["percent"]), "% of pairs of labels of one step"),
                ("Steps judged twice or more", Cell(f"{overall['units']:,}"), "what agreement is measured on"),
            ],
            matrix=matrix(data),
            panels=[_panel(rater) for rater in data["raters"]],
            style=Markup(style),  # noqa: S704 - our own files
            policy=content_security_policy(style, ""),
            version=__version__,
        )
    )


def matrix(data: Mapping[str, Any]) -> list[tuple[str, list[Shaded | None]]]:
    """Rows of raters: above the diagonal alpha, below it the agreement on the first error; None on it."""
    raters = [rater["rater"] for rater in data["raters"]]
    names = {rater["rater"]: rater["label"] for rater in data["raters"]}
    pairs = {(pair["a"], pair["b"]): pair for pair in data["pairs"]}
    rows = []
    for i, a in enumerate(raters):
        cells: list[Shaded | None] = []
        for j, b in enumerate(raters):
            pair = pairs.get((min(a, b), max(a, b)))
            if i == j:
                cells.append(None)
            elif pair is None:
                cells.append(Shaded(Cell("–"), "v x", "nothing in common"))
            elif i < j:
                title = f"{names[a]} and {names[b]}: alpha over {pair['steps']:,} steps"
                cells.append(Shaded(plain(pair["alpha"]), shade(pair["alpha"]["value"]), title))
            else:
                first = pair["first_error"]
                title = f"{names[a]} and {names[b]}: same first error, over {first['solutions']:,} solutions"
                cells.append(Shaded(share(first["agreement"]), shade(first["agreement"]["value"]), title))
        rows.append((names[a], cells))
    return rows


def drift_figure(rater: Mapping[str, Any]) -> Markup:
    """Agreement with the reference by window of time with its interval, and the share of labels that are -1."""
    windows = rater["drift"]["windows"]
    plot = Plot(
        f"Agreement over time of {rater['label']}", (-0.4, len(windows) - 0.6), (0, 1), "window of time", "percent"
    )
    plot.y_ticks(_PERCENT)
    plot.x_ticks([(i, str(i + 1)) for i in range(len(windows))])
    known = [(i, window["agreement"]) for i, window in enumerate(windows) if window["agreement"]["value"] is not None]
    banded = [(i, figure) for i, figure in known if figure["low"] is not None]
    plot.band([(i, figure["low"]) for i, figure in banded], [(i, figure["high"]) for i, figure in banded], "model")
    plot.line([(i, figure["value"]) for i, figure in known], "model")
    wrong = [(i, window["values"]["-1"] / (sum(window["values"].values()) or 1)) for i, window in enumerate(windows)]
    plot.line(wrong, "wrong")
    for i, figure in known:
        when = f"{windows[i]['first']} to {windows[i]['last']}"
        cell = share(figure)
        plot.dot(i, figure["value"], "model", f"{when}: {cell.text} % as the reference, {cell.interval}")
    for i, value in wrong:
        plot.dot(i, value, "wrong", f"{100 * value:.1f} % labelled {label_text(-1)}", "square")
    return plot.markup()


def _panel(rater: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of one rater."""
    facts: list[tuple[str, str]] = [
        ("versions", ", ".join(version or "none" for version in rater["versions"])),
        ("annotations", f"{rater['annotations']:,} of {rater['solutions']:,} solutions"),
        ("labels", ", ".join(f"{label_text(value)}: {n:,}" for value, n in rater["values"].items())),
    ]
    if rater["flags"]:
        facts.append(("flags", ", ".join(f"{flag}: {n:,}" for flag, n in rater["flags"].items())))
    if rater["first"]:
        facts.append(("from, to", f"{rater['first']}, {rater['last']}"))
    if rater["median_seconds"] is not None:
        facts.append(("median seconds", f"{rater['median_seconds']:.0f}"))
    confusions = [
        (title, _confusion(rater[key]["confusion"]), _first_error(rater[key]["first_error"]))
        for key, title in (("reference", "Against the reference"), ("gold", "Gold questions"))
        if rater[key]
    ]
    figures = []
    if rater["drift"]:
        keys = [("model", "circle", "same as the reference"), ("wrong", "square", f"labelled {label_text(-1)}")]
        figures.append(("Over time", drift_figure(rater), keys))
    if rater["calibration"]:
        labels = dict.fromkeys(SERIES, 1)
        shapes = [(kind, shape, f"share of {label_text(value)}") for value, (kind, shape) in SERIES.items()]
        figures.append(("Its shares against people's labels", reliability(rater["calibration"], labels), shapes))
    return {"label": rater["label"], "facts": facts, "confusions": confusions, "figures": figures}


def _confusion(counts: Sequence[Sequence[int]]) -> list[tuple[str, list[Shaded]]]:
    """Rows by the true label; shaded by the share of the row, right on the diagonal and wrong off it."""
    values = ("-1", "0", "1")
    rows = []
    for i, row in enumerate(counts):
        total = sum(row)
        cells = []
        for j, n in enumerate(row):
            part = n / total if total else 0.0
            title = f"{n:,} of {total:,} steps that are {label_text(values[i])} were labelled {label_text(values[j])}"
            words = Cell(f"{n:,}", f"{100 * part:.1f} %" if total else "")
            cells.append(Shaded(words, shade(part if i == j else -part), title))
        rows.append((label_text(values[i]), cells))
    return rows


def _first_error(found: Mapping[str, Any]) -> str:
    if not found["solutions"]:
        return ""
    agreement, distance = share(found["agreement"]), found["distance"]["value"]
    far = "" if distance is None else f"; mean distance {signed(distance, 2).lstrip('+')} steps where both name one"
    return (
        f"First error: the same in {agreement.text} % of {found['solutions']:,} solutions; only the rater names one in "
        f"{found['only_b']:,}, only the reference in {found['only_a']:,}{far}."
    )
