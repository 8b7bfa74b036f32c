import json
import time

import numpy as np
import polars as pl
import pytest

from labeling.consensus import MergeSettings, merge
from labeling.label_table import LabelTable, label_table
from labeling.quality import gold_table, label_quality
from prm_kit.errors import UsageError
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, Solution, StepLabel, step_hash
from prm_kit.view import View


def of(data, label):
    return next(rater for rater in data["raters"] if rater["label"] == label)


def test_it_is_json_and_says_who_labelled_what(table_of):
    table = table_of({"ann": [[1, -1], [0, None]], "judge j": [[1, 1], None]}, lead_time=30.0, flags=("not_sure",))
    data = json.loads(json.dumps(label_quality(table, resamples=20), allow_nan=False))
    ann = of(data, "human ann")
    assert (ann["annotations"], ann["labels"], ann["values"]) == (2, 3, {"-1": 1, "0": 1, "1": 1})
    assert (ann["median_seconds"], ann["flags"], ann["first"]) == (30.0, {"not_sure": 2}, None)
    assert data["agreement"]["all raters"]["units"] == 2
    assert [(pair["a"], pair["b"], pair["steps"]) for pair in data["pairs"]] == [(0, 1, 2)]
    assert data["settings"]["reference"] == "majority of the raters"
    assert data["data"] == {"solutions": 2, "problems": 2, "annotations": 3, "labels": 5}


def test_merged_labels_are_the_reference_and_no_rater(table_of):
    table = table_of({"ann": [[1, -1]], "merged priority": [[1, 1]]})
    data = label_quality(table, resamples=20)
    assert [rater["label"] for rater in data["raters"]] == ["human ann"]
    assert data["settings"]["reference"] == "merged priority"
    assert of(data, "human ann")["reference"]["percent"]["value"] == 0.5
    assert data["agreement"]["all raters"]["units"] == 0
    assert any("overlap" in warning for warning in data["warnings"])


def test_which_merged_labels_has_to_be_said_where_there_are_several(table_of):
    table = table_of({"ann": [[1]], "merged majority": [[1]], "merged priority": [[-1]]})
    with pytest.raises(UsageError, match="majority, priority"):
        label_quality(table, resamples=20)
    with pytest.raises(UsageError, match="Did you mean 'majority'"):
        label_quality(table, "majorty", resamples=20)
    assert label_quality(table, "priority", resamples=20)["settings"]["reference"] == "merged priority"


def test_raters_of_a_kind_are_also_a_group(table_of):
    table = table_of({"a": [[1, 1]], "b": [[1, -1]], "judge j": [[-1, -1]]})
    data = label_quality(table, resamples=20)
    assert data["agreement"]["kind human"]["units"] == 2
    assert data["agreement"]["kind human"]["percent"]["value"] == 0.5
    assert list(data["agreement"]) == ["all raters", "kind human"]


def test_simulated_raters_are_called_so(table_of):
    data = label_quality(table_of({"simulated s": [[1]], "simulated t": [[1]]}), resamples=20)
    assert any("simulated s" in note for note in data["notes"])
    assert of(data, "simulated s")["reference"]["steps"] == 1


def test_shares_of_a_judge_are_compared_with_what_people_say(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for i in range(4):
        about = Solution.from_steps(f"p{i}", ["x"])
        label = StepLabel(0, -1, step_hash("x"), shares=(0.75, 0.0, 0.25), count=4)
        people = Annotation.of(about, Rater("human", "ann"), [-1 if i else 1])
        ledger.append([Annotation(about.id, Rater("judge", "j"), (label,)), people], [about])
    found = of(label_quality(label_table(View(ledger=ledger)), resamples=20), "judge j")["calibration"]
    # The judge gives 3/4 to -1, and three people of four agree: no calibration error. Brier: three times
    # (1/4)^2 * 2 = 1/8, once (3/4)^2 * 2 = 9/8; mean 3/8.
    assert found["classes"]["-1"]["ece_equal_mass"]["value"] == pytest.approx(0)
    assert found["brier"]["value"] == pytest.approx(3 / 8)


def test_gold_is_peoples_labels_or_those_of_the_rater_named(table_of):
    table = table_of({"ann": [[1]], "judge j": [[1]], "construction c": [[1]]})
    assert gold_table(table, None).raters["label"].to_list() == ["human ann"]
    assert gold_table(table, ["c"]).raters["label"].to_list() == ["construction c"]
    with pytest.raises(UsageError, match="unknown rater 'd'"):
        gold_table(table, ["d"])
    with pytest.raises(UsageError, match="no person's labels"):
        gold_table(table.of(["judge"]), None)


def big_table(solutions, raters, steps):
    rng = np.random.default_rng(0)
    n = solutions * raters
    truth = rng.integers(-1, 2, size=(solutions, 1, steps))
    value = np.where(rng.random((solutions, raters, steps)) < 0.8, truth, rng.integers(-1, 2, (solutions, 1, steps)))
    solution = np.repeat(np.arange(solutions), raters).astype(np.uint32)
    rater = np.tile(np.arange(raters), solutions).astype(np.uint32)
    u32 = dict.fromkeys(("annotation", "solution", "rater"), pl.UInt32)
    labels = pl.DataFrame(
        {
            "annotation": np.repeat(np.arange(n), steps),
            "solution": np.repeat(solution, steps),
            "rater": np.repeat(rater, steps),
            "step": np.tile(np.arange(steps), n).astype(np.int32),
            "value": value.ravel().astype(np.int8),
            "sources": pl.Series([None] * n * steps, dtype=pl.List(pl.String)),
        },
        schema_overrides=u32,
    )
    error = np.where((value == -1).any(axis=2), (value == -1).argmax(axis=2), -1).ravel().astype(np.int32)
    annotations = pl.DataFrame(
        {
            "annotation": np.arange(n), "id": [f"a{i}" for i in range(n)], "solution": solution, "rater": rater,
            "time": [f"2026-01-{1 + i // 3000:02}T{i % 24:02}:00:00Z" for i in range(n)], "lead_time": [60.0] * n,
            "flags": [[]] * n, "version": [""] * n, "judged": [steps] * n, "first_error": error,
        },
        schema_overrides=u32 | {"flags": pl.List(pl.String)},
    )  # fmt: skip
    about = pl.DataFrame(
        {
            "solution": np.arange(solutions), "id": [f"s{i}" for i in range(solutions)],
            "problem": np.arange(solutions) // 2, "steps": [steps] * solutions, "is_correct": [None] * solutions,
        },
        schema_overrides={"solution": pl.UInt32, "problem": pl.UInt32},
    )  # fmt: skip
    who = pl.DataFrame(
        {"rater": np.arange(raters), "kind": ["human"] * raters, "name": [f"r{i}" for i in range(raters)],
         "label": [f"human r{i}" for i in range(raters)]},
        schema_overrides={"rater": pl.UInt32},
    )  # fmt: skip
    shares = pl.DataFrame(
        schema={"annotation": pl.UInt32, "solution": pl.UInt32, "rater": pl.UInt32, "step": pl.Int32,
                "wrong": pl.Float64, "neutral": pl.Float64, "right": pl.Float64}
    )  # fmt: skip
    return LabelTable(about, who, annotations, labels, shares)


@pytest.mark.slow
def test_ten_thousand_solutions_with_three_raters_and_ten_steps_take_seconds():
    table = big_table(10_000, 3, 10)
    start = time.process_time()
    for policy in ("majority", "priority", "dawid-skene"):
        merge(table, MergeSettings(policy=policy))
    label_quality(table)
    assert time.process_time() - start < 60
