import pytest

from prm_kit.evaluate import DevSplit, evaluate
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.report import render
from prm_kit.report.evaluation_tables import tables_of
from prm_kit.score import StepScores


def row(problem, answer, values, right, **meta):
    steps = [f"{problem} {answer} {k}" for k in range(len(values))]
    solution = Solution.from_steps(problem, steps, final_answer=answer, is_correct=right, meta=meta)
    return Labelled(solution, Annotation.of(solution, Rater("human", "a"), values))


def rows(prefix):
    return [
        row(f"{prefix} problem {i}", answer, [1, 1 if answer == "1" else -1], answer == "1")
        for i in range(4)
        for answer in ("1", "2")
    ]


def says(items, unbounded=False):
    found = []
    for item in items:
        labels = item.annotation.values(len(item.solution.spans))
        values = tuple(40.0 * (label or 0) for label in labels)
        up = [0.8 if label == 1 else 0.3 for label in labels]
        found.append(
            StepScores((None,) * len(values), values) if unbounded else StepScores(tuple((1 - p, 0.0, p) for p in up))
        )
    return found


@pytest.fixture(scope="module")
def data():
    dev = DevSplit("held out", rows("d"), {"prm": says(rows("d"))})
    return evaluate(rows("e"), {"prm": says(rows("e"))}, name="e", dev=dev, train=rows("e")[:2], resamples=20, shown=1)


def tables(data):
    return {table.key: table for table in tables_of(data)}


def cells(table):
    return {row.name: [cell.text for cell in row.cells] for row in table.rows}


def test_picks_of_the_model_stand_beside_random_majority_oracle_and_the_baselines(data):
    found = cells(tables(data)["selection"])
    assert list(found)[:4] == ["random", "majority", "oracle", "best by prm, min"]
    assert found["random"] == ["50.0", "50.0"]
    assert found["majority"] == ["50.0", "50.0"]
    assert found["best by prm, min"] == ["50.0", "100.0"]
    assert found["best by length and position, mean"][0] == "50.0"
    assert "vote by prm, product" in cells(tables(data)["votes"])


def test_calibration_stands_there_before_and_after(data):
    prm = cells(tables(data)["calibrated"])["prm"]
    before, after = data["calibration"]["prm"], data["calibration_after"]["prm"]
    assert prm[:3] == [
        f"{after['temperature']['value']:.3g}", f"{before['brier']['value']:.3f}", f"{after['brier']['value']:.3f}",
    ]  # fmt: skip


def test_shared_problems_are_counted_and_listed(data):
    found = tables(data)
    assert cells(found["contamination"])["problems"] == ["4", "1", "1", "4", "1"]
    assert cells(found["overlaps"]) == {"e problem 0": ["100.0", "the same text", "e problem 0"]}


def test_the_page_has_the_curves_and_a_second_reliability_diagram(data):
    page = render(data)
    for text in (
        "Picking one of N solutions",
        "Reliability at the temperature",
        'id="contamination"',
        'id="calibrated"',
    ):
        assert text in page


def test_an_unbounded_scorer_is_drawn_on_its_own_scale_and_has_dashes_where_it_has_no_figure():
    found = evaluate(rows("e"), {"pqm": says(rows("e"), True)}, name="e", resamples=20, shown=1)
    assert cells(tables(found)["steps"])["pqm"][3:6] == ["–", "–", "–"]
    assert cells(tables(found)["first-error"])["pqm"][-1] == "–"
    assert "pqm" not in cells(tables(found)["calibration"])
    page = render(found)
    assert "+40" in page
    assert "nan" not in page.lower()


def test_prmbench_has_the_columns_of_its_leaderboard():
    items = [row(f"p{i}", "1", [1, -1], None, classification="circular", idx=f"p{i}") for i in range(3)]
    found = tables(evaluate(items, {"prm": says(items)}, name="p", dev=None, resamples=20, shown=0))
    headings = [heading for heading, _ in found["prmbench"].columns]
    assert headings == [
        "overall", "simplicity", "NR", "NCL", "soundness", "ES", "SC", "DC", "CI", "sensitivity", "PS", "DR", "MS",
    ]  # fmt: skip
    assert cells(found["prmbench"])["prm"] == ["100.0", "–", "–", "100.0", *["–"] * 9]
    assert cells(found["prmbench"])["all correct"][0] == "33.3"  # F1 2/3, negative F1 0


def test_tables_without_a_figure_are_left_out():
    items = [row("p", str(i), [None], i == 0) for i in range(2)]
    found = tables(evaluate(items, {"prm": says(items)}, name="p", resamples=20, shown=0))
    assert "selection" in found
    assert not {"prmbench", "contamination", "calibrated", "differences", "steps", "first-error"} & set(found)
