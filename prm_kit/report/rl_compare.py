"""Algorithms of reinforcement learning side by side, as one offline HTML page without any script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from prm_kit import __version__
from prm_kit.files import whole_file
from prm_kit.report.curves import Curve, curves
from prm_kit.report.html import Figure, asset, content_security_policy, templates
from prm_kit.report.svg import Plot
from prm_kit.report.tables import DASH, Cell, Row, Table

_ROW = 26


def write_compare_report(path: Path, data: Mapping[str, Any]) -> None:
    """Write the page, whole or not at all.

    Args:
        path: The HTML file.
        data: What `rl.comparison.comparison` returned, with "about": facts by name.
    """
    page = render_compare(data)
    with whole_file(path) as file:
        file.write(page)


def render_compare(data: Mapping[str, Any]) -> str:
    """The page as text; a pure function of the data."""
    style = asset("page.css") + asset("rl.css")
    algorithms = data["algorithms"]
    seeds = max(len(one["alarms"]) for one in algorithms.values())
    runs = f"{seeds} seed{'s' * (seeds > 1)} each"
    return (
        templates()
        .get_template("rl_compare.html.j2")
        .render(
            data=data,
            headline=f"{len(algorithms)} algorithms, {runs}, at {data['budget']:,.0f} rollouts",
            overview=ranking(data),
            figures=small_multiples(algorithms),
            table=compare_rows(data),
            style=Markup(style),  # noqa: S704 - our own files
            policy=content_security_policy(style, ""),
            version=__version__,
        )
    )


def ranked(algorithms: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Algorithms, the best at equal rollouts first."""
    return sorted(algorithms.items(), key=lambda item: -item[1]["equal"]["mean"])


def compare_rows(data: Mapping[str, Any]) -> Table:
    """One row an algorithm."""
    columns = [
        ("rewarded by", "steps: a PRM rewards steps, alone or beside the outcome"),
        ("equal rollouts", "sampled accuracy on held-out problems where every run has as many rollouts"),
        ("sampled after", "at the end"),
        ("greedy after", "at the end"),
        ("sampled before", ""),
        ("worst seed", "sampled, at the end"),
        ("spread", "standard deviation over seeds, the mean over evaluations"),
        ("fall", "the most that a run ended below its best evaluation"),
        ("rollouts", "of a run"),
        ("alarms", "runs that raised one"),
    ]
    rows = []
    for name, one in ranked(data["algorithms"]):
        cells = [Cell("steps" if one["dense"] else "outcome")]
        cells += [_cell(one[key]) for key in ("equal", "sampled_after", "greedy_after", "sampled_before")]
        spread = DASH if one["spread"] is None else f"{one['spread']:.3f}"
        cells += [
            Cell(f"{one['worst']:.3f}"),
            Cell(spread),
            Cell(f"{one['fall']:.3f}"),
            Cell(f"{one['rollouts']:,.0f}"),
        ]
        alarmed = sum(bool(of) for of in one["alarms"])
        rows.append(Row(name, not one["dense"], [*cells, Cell(f"{alarmed} of {len(one['alarms'])}")]))
    note = "Mean over seeds and 95 % of a t distribution over them; held-out problems are the same for all."
    return Table("algorithms", "What was reached", note, columns, rows, of="algorithm")


def ranking(data: Mapping[str, Any]) -> Markup:
    """Accuracy at equal rollouts with its interval and every seed, best first."""
    order = ranked(data["algorithms"])
    figures = [one["equal"] for _, one in order]
    ends = [x for found in figures for x in (*found["seeds"], found["low"], found["high"]) if x is not None]
    start = sum(one["sampled_before"]["mean"] for _, one in order) / len(order)
    low, high = max(0.0, min(*ends, start) - 0.02), min(1.0, max(ends) + 0.02)
    plot = Plot("Accuracy at equal rollouts", (low, high), (0.0, float(len(order))),
                "held-out accuracy, sampled", size=(1000, 62 + _ROW * len(order)), left=170)  # fmt: skip
    ticks = [tick / 20 for tick in range(21) if low <= tick / 20 <= high]
    plot.x_ticks([(tick, f"{tick:.2f}") for tick in ticks])
    for tick in ticks:
        plot.rule((tick, tick), (0, len(order)), "grid")
    plot.rule((start, start), (0, len(order)), "reference")
    for place, (name, one) in enumerate(order):
        y, found, kind = len(order) - place - 0.5, one["equal"], "model" if one["dense"] else "baseline"
        plot.y_ticks([(y, name)], grid=False)
        if found["low"] is not None:
            plot.rule((max(low, found["low"]), min(high, found["high"])), (y, y), f"whisker {kind}")
        for seed, value in enumerate(found["seeds"]):
            plot.dot(value, y - 0.25, "neutral", f"{name}, seed {seed}: {value:.3f}", "triangle")
        plot.dot(found["mean"], y, kind, f"{name}: {found['mean']:.3f}")
    return plot.markup()


def small_multiples(algorithms: Mapping[str, Any]) -> list[Figure]:
    """A plot for each algorithm: its mean over seeds, from its lowest to its highest seed, before all the others."""

    def means(one: Mapping[str, Any]) -> list[tuple[float, float]]:
        return [(point["rollouts"], sum(point["sampled"]) / len(point["sampled"])) for point in one["curve"]]

    heights = [y for one in algorithms.values() for point in one["curve"] for y in point["sampled"]]
    y = max(0.0, min(heights) - 0.02), min(1.0, max(heights) + 0.02)
    drawn = []
    for name, one in ranked(algorithms):
        kind = "model" if one["dense"] else "neutral"
        others = [Curve(other, "faint", means(its)) for other, its in algorithms.items() if other != name]
        reach = [(point["rollouts"], min(point["sampled"]), max(point["sampled"])) for point in one["curve"]]
        own = Curve(name, kind, means(one), reach, shape="circle")
        plot = curves(name, [*others, own], "rollouts", "held-out accuracy", y=y)
        drawn.append(Figure(name, plot))
    return drawn


def _cell(figure: Mapping[str, Any]) -> Cell:
    if figure["low"] is None:
        return Cell(f"{figure['mean']:.3f}")
    return Cell(f"{figure['mean']:.3f}", f"{figure['low']:.3f}–{figure['high']:.3f}")
