import io
import re

import pytest
from rich.console import Console

from prm_kit.report.quality import matrix, render_quality, write_quality_report
from prm_kit.report.quality_tables import print_quality, quality_tables


def figure(value, n=40):
    return {"value": value, "low": None if value is None else value - 0.1, "high": value and value + 0.1, "n": n}


def compared(value):
    return {
        "steps": 40,
        "confusion": [[8, 1, 1], [0, 0, 0], [2, 0, 28]],
        "percent": figure(value),
        "kappa": figure(0.5),
        "lean": figure(-0.05),
        "first_error": {
            "solutions": 10, "only_a": 1, "only_b": 2, "both": 5, "agreement": figure(0.7), "distance": figure(1.5)
        },
        "precision": {v: figure(0.8) for v in ("-1", "0", "1")},
        "recall": {"-1": figure(0.8), "0": figure(None), "1": figure(0.9)},
    }  # fmt: skip


def rater(number, label, **fields):
    return {
        "rater": number, "label": label, "kind": "human", "name": label, "versions": [""], "annotations": 20,
        "solutions": 20, "labels": 40, "values": {"-1": 10, "0": 0, "1": 30}, "flags": {"not_sure": 2},
        "median_seconds": 61.0, "first": "2026-01-01T00:00:00Z", "last": "2026-01-02T00:00:00Z",
        "reference": compared(0.9), "gold": compared(0.75), "drift": None, "calibration": None,
    } | fields  # fmt: skip


def made(text="ann"):
    window = {"first": text, "last": text, "annotations": 10, "values": {"-1": 5, "0": 0, "1": 15}}
    drift = {
        "windows": [window | {"agreement": figure(0.9)}, window | {"agreement": figure(None)}],
        "change": figure(-0.2),
    }
    point = [{"n": 10, "probability": 0.2, "share": 0.3}]
    classes = {v: {"ece_equal_mass": figure(0.1), "reliability": point} for v in ("-1", "0", "1")}
    calibration = {"answered": 40, "brier": figure(0.4), "nll": figure(0.9), "bins": 10, "classes": classes}
    group = {
        "raters": 3, "units": 40, "labels": 90, "values": {"-1": 20, "0": 10, "1": 60}, "alpha": figure(0.61),
        "alpha_nominal": figure(0.5), "fleiss": figure(0.52), "percent": figure(0.8),
    }  # fmt: skip
    first = compared(0.5)["first_error"]
    pair = {"a": 0, "b": 2, "steps": 40, "alpha": figure(-0.3), "kappa": figure(0.1), "percent": figure(0.5)}
    return {
        "name": text,
        "settings": {"resamples": 1000, "level": 0.95, "seed": 0, "reference": text},
        "data": {"solutions": 20, "problems": 10, "annotations": 60, "labels": 120},
        "agreement": {"all raters": group, text: group},
        "raters": [
            rater(0, text, drift=drift, flags={text: 1}, versions=[text]),
            rater(2, "judge j", calibration=calibration, gold=None, median_seconds=None, first=None),
            rater(5, "rule r", reference=None, gold=None, values={"-1": 0, "0": 0, "1": 0}),
        ],
        "pairs": [pair | {"confusion": [[1, 0, 0], [0, 0, 0], [0, 0, 2]], "first_error": first}],
        "warnings": [text],
        "notes": [text],
    }


def test_the_matrix_has_alpha_above_the_diagonal_and_first_errors_below():
    rows = dict(matrix(made()))
    assert [cell and cell.cell.text for cell in rows["ann"]] == [None, "-0.300", "–"]
    assert [cell and cell.cell.text for cell in rows["judge j"]] == ["70.0", None, "–"]
    assert rows["ann"][1].shade == "v n k3"
    assert rows["ann"][2].shade == "v x"


def test_the_page_shows_every_rater_and_every_figure_and_needs_nothing_from_outside():
    page = render_quality(made())
    for words in ("0.610", "Over time", "Its shares against people", "Gold questions", "judge j", "rule r"):
        assert words in page
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=\"(?!#)", page)
    assert "default-src &#39;none&#39;; style-src" in page


def test_what_is_unknown_is_a_dash_in_the_tables():
    tables = {table.key: table for table in quality_tables(made())}
    rule = next(row for row in tables["raters"].rows if row.name == "rule r")
    assert [cell.text for cell in rule.cells[2:5]] == ["–", "–", "–"]
    assert rule.cells[6].text == "–"
    assert [row.name for row in tables["calibration"].rows] == ["judge j"]
    assert tables["pairs"].detail


def test_the_terminal_shows_the_same_tables():
    console = Console(file=io.StringIO(), width=200, color_system=None)
    print_quality(made(), console)
    out = console.file.getvalue()
    for words in ("alpha, ordinal", "0.610", "judge j", "warning: ann"):
        assert words in out


@pytest.mark.parametrize(
    "text",
    ["</style><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{{7*7}} {% raw %}", '" onmouseover="x'],
)
def test_hostile_names_are_shown_as_text(text, tmp_path):
    write_quality_report(tmp_path / "r.html", made(text))
    page = (tmp_path / "r.html").read_text()
    tags = lambda page: sorted(set(re.findall(r"<([a-z0-9]+)[\s>]", page)))  # noqa: E731
    assert tags(page) == tags(render_quality(made()))
    assert text not in page.split("</style>", 1)[1] or not re.search(r"[<>\"&']", text)
    assert "49" not in page or "{{7*7}}" in page
