import io

import pytest
from rich.console import Console

from prm_kit.evaluate import DevSplit, evaluate
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.report.evaluation_tables import print_tables, tables_of
from prm_kit.report.tables import Cell, label_text, share, signed
from prm_kit.score import StepScores


def labelled(values, problem, subset="one"):
    solution = Solution.from_steps(
        problem,
        [f"{problem} step {i}" for i in range(len(values))],
        is_correct=-1 not in values,
        meta={"subset": subset},
    )
    return Labelled(solution, Annotation.of(solution, Rater("human", "a"), values))


def rows(prefix):
    return [labelled([1, -1] if i % 2 else [1, 1], f"{prefix}{i}", "one" if i < 4 else "two") for i in range(8)]


def scores(items):
    return [
        StepScores(tuple((0.8, 0.1, 0.1) if v == -1 else (0.1, 0.1, 0.8) for v in item.annotation.values(2)))
        for item in items
    ]


@pytest.fixture(scope="module")
def data():
    dev = DevSplit("the other half", rows("d"), {"prm": scores(rows("d"))})
    return evaluate(rows("e"), {"prm": scores(rows("e"))}, name="rows", dev=dev, train=rows("t"), resamples=20, shown=2)


def printed(data, width=160):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_tables(data, console)
    return console.file.getvalue()


def test_figures_are_written_in_percent_with_their_interval():
    assert share({"value": 0.716, "low": 0.685, "high": 0.743, "n": 9}) == Cell("71.6", "68.5–74.3")
    assert share({"value": None, "low": None, "high": None, "n": 0}) == Cell("–")
    assert share({"value": 0.5, "low": None, "high": None, "n": 3}) == Cell("50.0")


def test_signs_are_written_out_and_zero_has_none():
    assert [signed(x) for x in (0.5, -0.5, 0.0, -0.001, None)] == ["+0.50", "−0.50", "0.00", "0.00", "abstains"]
    assert [label_text(x) for x in (1, 0, -1, None, "-1")] == ["+1", "0", "−1", "not judged", "−1"]


def test_every_scorer_has_a_line_in_every_table(data):
    tables = {table.key: table for table in tables_of(data)}
    names = [scorer["name"] for scorer in data["scorers"]]
    for key in ("first-error", "subset-f1", "steps", "classes", "calibration", "final-answer"):
        assert [row.name for row in tables[key].rows] == names
        assert all(len(row.cells) == len(tables[key].columns) for row in tables[key].rows)
    assert [row.name for row in tables["differences"].rows] == names[1:]
    assert len(tables["subsets"].rows) == 3 * len(names)


def test_the_terminal_says_both_means_the_split_of_the_threshold_and_the_baselines(data):
    text = printed(data)
    for words in ("F1, mean", "F1, weighted", "the other half", "guesser", "all correct", "8 solutions of 8 problems"):
        assert words in text


def test_warnings_and_notes_reach_the_terminal(data):
    text = printed(data | {"warnings": ["beware"], "notes": ["by the way"]})
    assert "warning: beware" in text
    assert "note: by the way" in text


def test_markup_in_names_is_printed_as_text(data):
    assert "[bold]name[/bold] [/red]" in printed(data | {"name": "[bold]name[/bold] [/red]"})


def test_one_subset_needs_no_table_of_subsets(data):
    one = data | {"data": data["data"] | {"subsets": {"all": 8}}}
    assert "subset-f1" not in {table.key for table in tables_of(one)}
