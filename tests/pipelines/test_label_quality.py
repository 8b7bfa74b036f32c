import json

import pytest
from typer.testing import CliRunner

from labeling.simulated import SimulatedAnnotator
from pipelines.cli import app
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, Solution

SOLUTIONS = [Solution.from_steps(f"problem {i}", ["a", "b", "c"]) for i in range(12)]
TRUTH = {s.id: Annotation.of(s, Rater("human", "expert"), [1, 0, -1]) for s in SOLUTIONS}


@pytest.fixture
def stores(tmp_path):
    """A ledger with two simulated annotators, and one with gold of a quarter of the solutions."""
    ledger, gold = tmp_path / "ledger.sqlite", tmp_path / "gold.sqlite"
    with Ledger(ledger) as opened:
        for name, habit in (("ann", "exact"), ("ben", "careless")):
            opened.append(list(SimulatedAnnotator(name, TRUTH, habit).label(SOLUTIONS)), SOLUTIONS)
    with Ledger(gold) as opened:
        opened.append([TRUTH[s.id] for s in SOLUTIONS[:3]], SOLUTIONS[:3])
    return ledger, gold


def quality(*words):
    return CliRunner().invoke(app, ["label", "quality", *map(str, words), "--resamples", "20"])


def test_the_report_has_gold_scores_and_the_page_is_offline(stores, tmp_path):
    ledger, gold = stores
    done = quality("--ledger", ledger, "--gold", gold, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    data = json.loads((tmp_path / "out" / "summary.json").read_text())
    ann, ben = data["raters"]
    assert (ann["gold"]["percent"]["value"], ann["gold"]["steps"]) == (1.0, 9)
    assert ben["gold"]["percent"]["value"] < 1.0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "simulated ben" in page
    assert "http:" not in page
    assert "https:" not in page


def test_gold_may_stand_in_the_same_ledger_under_a_rater_of_its_own(stores, tmp_path):
    ledger, _ = stores
    with Ledger(ledger) as opened:
        opened.append(list(TRUTH.values()))
    done = quality("--ledger", ledger, "--gold-rater", "expert", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    data = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [rater["label"] for rater in data["raters"]] == ["simulated ann", "simulated ben"]
    assert data["raters"][0]["gold"]["steps"] == 36


def test_without_anything_to_read_it_is_wrong_use(tmp_path, stores):
    assert quality("--out", tmp_path / "out").exit_code == 2
    missing = quality("--ledger", stores[0], "--gold", tmp_path / "none", "--out", tmp_path / "out")
    assert missing.exit_code == 2
    assert "no such gold labels" in missing.output
