"""The figures of an evaluation report, each a pure function from plain data to SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from prm_kit.report.svg import Plot, Point
from prm_kit.report.tables import label_text, share, signed, threshold_text

SERIES: dict[str, tuple[str, str]] = {"1": ("right", "circle"), "0": ("neutral", "triangle"), "-1": ("wrong", "square")}
"""Per label: CSS class and the shape of its dots."""

_PERCENT = [(tick / 100, str(tick)) for tick in (0, 25, 50, 75, 100)]
_ROW = 26


def headline_figure(data: Mapping[str, Any]) -> Markup:
    """First-error F1 of every scorer with its interval, models above baselines."""
    scorers = sorted(data["scorers"], key=lambda scorer: scorer["role"] != "model")
    figures = [(scorer, data["first_error"][scorer["name"]]["f1_mean"]) for scorer in scorers]
    highs = [figure["high"] or figure["value"] or 0.0 for _, figure in figures]
    high = min(1.0, (int(max(highs, default=0.0) * 10) + 1) / 10)
    size = (620, 62 + _ROW * len(figures))
    plot = Plot("First-error F1 of every scorer", (0.0, high), (0.0, float(len(figures))), size=size, left=210)
    plot.x_label = "first-error F1, plain mean over subsets, in percent"
    plot.x_ticks([(tick / 10, str(tick * 10)) for tick in range(int(high * 10) + 1)])
    for tick in range(int(high * 10) + 1):
        plot.rule((tick / 10, tick / 10), (0, len(figures)), "grid")
    for index, (scorer, figure) in enumerate(figures):
        y = len(figures) - index - 0.5
        kind = "model" if scorer["role"] == "model" else "baseline"
        name = scorer["name"]
        plot.y_ticks([(y, name if len(name) <= 30 else f"{name[:29]}…")], grid=False)
        if figure["value"] is None:
            continue
        cell = share(figure)
        if figure["low"] is not None:
            plot.rule((figure["low"], figure["high"]), (y, y), f"whisker {kind}")
        plot.dot(figure["value"], y, kind, f"{name}: {cell.text}, {cell.interval}, n = {figure['n']}")
    return plot.markup()


def reliability(table: Mapping[str, Any], labels: Mapping[str, int]) -> Markup:
    """Share of steps that are of a class against the probability given to it; classes without labels are left out."""
    plot = Plot("Reliability diagram", (0, 1), (0, 1), "probability given, %", "share that is so, %")
    plot.y_ticks(_PERCENT)
    plot.x_ticks(_PERCENT)
    plot.rule((0, 1), (0, 1), "reference")
    for label, (kind, shape) in SERIES.items():
        curve = table["classes"][label]["reliability"]
        if not labels[label]:
            continue
        plot.line([(point["probability"], point["share"]) for point in curve], kind)
        for point in curve:
            words = f"p({label_text(label)}) {100 * point['probability']:.1f} %: {100 * point['share']:.1f} % are so"
            plot.dot(point["probability"], point["share"], kind, f"{words}, n = {point['n']}", shape)
    return plot.markup()


def value_by(slices: Sequence[Mapping[str, Any]], x_label: str) -> Markup:
    """Mean value of steps by slice, apart for each label, with intervals."""
    reached = [x for one in slices for figure in one["mean_value"].values() for x in _known(figure)]
    low, high = _range(reached)
    plot = _sliced(f"Mean value by {x_label}", slices, (low, high), x_label, "mean value")
    plot.y_ticks(_value_ticks(low, high))
    for label, (kind, shape) in SERIES.items():
        found = [(float(i), slice_["mean_value"][label], slice_["slice"]) for i, slice_ in enumerate(slices)]
        _series(plot, found, kind, shape, f"label {label_text(label)}", lambda figure: signed(figure["value"]))
    return plot.markup()


def auroc_by(slices: Sequence[Mapping[str, Any]], x_label: str) -> Markup:
    """AUROC of wrong steps by slice, with intervals."""
    plot = _sliced(f"AUROC of wrong steps by {x_label}", slices, (0.0, 1.0), x_label, "AUROC of wrong steps, %")
    plot.y_ticks(_PERCENT)
    plot.rule((-0.4, len(slices) - 0.6), (0.5, 0.5), "reference")
    found = [(float(i), slice_["auroc_wrong"], slice_["slice"]) for i, slice_ in enumerate(slices)]
    _series(plot, found, "model", "circle", x_label, lambda figure: share(figure).text)
    return plot.markup()


def histogram(table: Mapping[str, Any]) -> Markup:
    """Histogram of the value, one row per label that has steps; heights are shares of the label's steps."""
    rows = [(label, table["counts"][label]) for label in SERIES if sum(table["counts"][label])]
    edges = table["edges"]
    plot = Plot("Values by label", (edges[0], edges[-1]), (0, max(len(rows), 1)), "value", "share of the label's steps")
    plot.x_ticks(_value_ticks(edges[0], edges[-1]))
    for index, (label, counts) in enumerate(rows):
        floor, total, peak = len(rows) - 1 - index, sum(counts), max(counts)
        plot.rule((edges[0], edges[-1]), (floor, floor), "grid")
        plot.y_ticks([(floor + 0.4, label_text(label))], grid=False)
        for left, right, count in zip(edges, edges[1:], counts, strict=False):
            if count:
                words = (
                    f"label {label_text(label)}, value {signed(left)} to {signed(right)}: {100 * count / total:.1f} %"
                )
                plot.bar((left, right), (floor, floor + 0.9 * count / peak), SERIES[label][0], f"{words}, n = {count}")
    return plot.markup()


def threshold_sweep(table: Mapping[str, Any], threshold: Mapping[str, Any]) -> Markup:
    """F1 and both accuracies along thresholds: on the split where it was chosen, and F1 on the evaluated rows."""
    xs, chosen = table["threshold"], table["chosen"]
    low, high = min(-1.0 if threshold["rule"] == "value" else 0.0, xs[0]), max(1.0, xs[-1])
    plot = Plot(f"Threshold: {threshold_text(threshold)}", (low, high), (0, 1), f"threshold ({threshold['rule']})", "%")
    plot.y_ticks(_PERCENT)
    plot.x_ticks(
        [(x, text) for x, text in _value_ticks(-1.0, 1.0) if low <= x] if high <= 2 else _value_ticks(low, high)
    )
    plot.rule((chosen, chosen), (0, 1), "chosen")
    for part, kinds in (
        ("chosen_on_split", {"error_accuracy": "wrong long", "correct_accuracy": "right", "f1": "model"}),
        ("evaluated", {"f1": "model dashed"}),
    ):
        for key, kind in kinds.items() if table[part] else ():
            points = [(x, y) for x, y in zip(xs, table[part][key], strict=True) if y is not None]
            plot.line(points, kind)
    return plot.markup()


def distance_bars(counts: Mapping[str, int]) -> Markup:
    """How far from the true first error the named step is."""
    top = max(*counts.values(), 1)
    plot = Plot("Distance of the named step from the first error", (-0.6, len(counts) - 0.4), (0, top))
    plot.x_label, plot.y_label = "named step − first error, in steps", "solutions"
    for index, (key, count) in enumerate(counts.items()):
        name = key.replace("<=-", "≤−").replace(">=", "≥").replace("-", "−")
        kind = {"0": "right", "none": "neutral"}.get(key, "wrong")
        plot.x_ticks([(index, name)])
        plot.bar((index - 0.42, index + 0.42), (0, count), kind, f"{name}: {count}")
        plot.text(index, count, str(count), "tick", "middle")
    return plot.markup()


def lowest_place(table: Mapping[str, Any]) -> Markup:
    """Where in a solution its lowest value lies, from the first step to the last."""
    counts, total = table["tenths"], max(sum(table["tenths"]), 1)
    top = max(*counts, 1) / total
    plot = Plot("Place of the lowest value", (0, 1), (0, top), "relative position of the lowest value", "solutions, %")
    plot.x_ticks([(0, "first"), (0.5, "middle"), (1, "last")])
    plot.y_ticks([(top * part, f"{100 * top * part:.0f}") for part in (0, 0.5, 1)])
    for index, count in enumerate(counts):
        words = f"{index * 10} to {index * 10 + 10} % of the way: {100 * count / total:.1f} % of solutions, n = {count}"
        plot.bar((index / 10, index / 10 + 0.1), (0, count / total), "model", words)
    return plot.markup()


def _known(figure: Mapping[str, Any]) -> list[float]:
    return [figure[key] for key in ("value", "low", "high") if figure[key] is not None]


def _range(values: Sequence[float]) -> Point:
    """[-1, 1], or what values without bounds reach."""
    low, high = min(values, default=-1.0), max(values, default=1.0)
    return (-1.0, 1.0) if low >= -1 and high <= 1 else (low, high)


def _value_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Five ticks from end to end."""
    digits = 1 if high - low < 20 else 0
    ticks = [low + (high - low) * k / 4 for k in range(5)]
    return [(x, signed(x, digits)) for x in ticks]


def _sliced(title: str, slices: Sequence[Mapping[str, Any]], y: Point, x_label: str, y_label: str) -> Plot:
    plot = Plot(title, (-0.5, max(len(slices), 1) - 0.5), y, x_label, y_label)
    plot.x_ticks([(index, slice_["slice"]) for index, slice_ in enumerate(slices)])
    return plot


def _series(
    plot: Plot, found: Sequence[tuple[float, Mapping[str, Any], str]], kind: str, shape: str, name: str, written: Any
) -> None:
    bounded = [(x, figure) for x, figure, _ in found if figure["low"] is not None]
    plot.band([(x, figure["low"]) for x, figure in bounded], [(x, figure["high"]) for x, figure in bounded], kind)
    plot.line([(x, figure["value"]) for x, figure, _ in found if figure["value"] is not None], kind)
    for x, figure, slice_ in found:
        if figure["value"] is not None:
            plot.dot(x, figure["value"], kind, f"{name}, {slice_}: {written(figure)}, n = {figure['n']}", shape)
