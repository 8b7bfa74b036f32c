import json
import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_kit.errors import InputError, UsageError
from prm_kit.ledger import Ledger
from prm_kit.record_json import annotation_from_json, solution_from_json
from prm_kit.records import Annotation, Labelled, Rater, Solution, StepLabel, step_hash
from prm_kit.snapshot import SnapshotWriter
from prm_kit.view import View, problem_key, split_by_problem
from prm_kit.view_files import STEP_TABLE, write_jsonl, write_parquet, write_step_table

IMPORTED, ALICE, BOT = Rater("import", "made"), Rater("human", "alice"), Rater("simulated", "alice")


def solution(n, **fields):
    return Solution.from_steps(f"{n} + 1?", [f"{n} + 1 = {n + 1}.", "Voilà 好."], **{"source": "made"} | fields)


def of(n, values, rater=IMPORTED, **fields):
    return Annotation.of(solution(n), rater, values, **fields)


@pytest.fixture
def view(tmp_path):
    """Snapshot a: 0 (twice judged), 1 (not judged), 2. Snapshot b: 2 again, 3. Ledger: alice on 1 (twice), 3, 4."""
    with SnapshotWriter(tmp_path / "a", name="a", format="test") as writer:
        writer.add(solution(0, reference_answer="1"), [of(0, [1, 1])])
        writer.add(solution(1))
        writer.add(solution(2), [of(2, [1, -1])])
        writer.add(solution(0), [of(0, [1, 0], BOT)])
    with SnapshotWriter(tmp_path / "b", name="b", format="test") as writer:
        writer.add(solution(2, source="other"), [of(2, [1, -1]), of(2, [0, None], Rater("judge", "j"))])
        writer.add(solution(3, source="other"), [of(3, [None, 1])])
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.append([of(1, [1, 1], ALICE), of(3, [-1, None], ALICE), of(4, [1, 0], ALICE)], map(solution, (1, 3, 4)))
        ledger.append([of(1, [1, -1], ALICE)])
        yield View([tmp_path / "a", tmp_path / "b"], ledger)


def test_a_view_shows_everything_once_in_the_order_of_the_solutions(view):
    found = [(int(p.solution.problem[0]), p.annotation.rater.name, p.annotation.values(2)) for p in view.labelled()]
    assert found == [
        (0, "made", (1, 1)),
        (0, "alice", (1, 0)),
        (1, "alice", (1, -1)),
        (2, "made", (1, -1)),
        (2, "j", (0, None)),
        (3, "made", (None, 1)),
        (3, "alice", (-1, None)),
        (4, "alice", (1, 0)),
    ]
    assert [s.problem[0] for s in view.iter_solutions()] == ["0", "1", "2", "3", "4"]
    assert next(view.iter_solutions()).reference_answer == "1"
    assert all(p.annotation.solution_id == p.solution.id for p in view.labelled())


def test_a_simulated_rater_never_passes_for_a_human_one(view):
    assert [p.annotation.rater for p in view.labelled(rater_kinds=["human"])] == [ALICE] * 3
    assert [p.annotation.rater for p in view.labelled(rater_kinds=["simulated"], rater_names=["alice"])] == [BOT]


def test_raters_and_sources_are_chosen_and_unknown_ones_refused(view):
    assert [p.solution.problem[0] for p in view.labelled(sources=["other"])] == ["3", "3"]
    assert [p.annotation.rater.name for p in view.labelled(rater_names=["j"])] == ["j"]
    assert list(view.labelled(rater_kinds=["rule"])) == []
    with pytest.raises(UsageError, match=r"rater kind 'humans'\. Did you mean 'human'"):
        list(view.labelled(rater_kinds=["humans"]))
    with pytest.raises(UsageError, match=r"rater name 'alcie'\. Did you mean 'alice'"):
        list(view.labelled(rater_names=["alcie"]))
    with pytest.raises(UsageError, match=r"source 'otter'\. Did you mean 'other'"):
        list(view.labelled(sources=["otter"]))


def test_both_frames_have_one_schema_whatever_they_are_made_of(view, tmp_path):
    for one in (View([tmp_path / "a"]), View([], view.ledger), View([tmp_path / "a"], Ledger(tmp_path / "new.db"))):
        assert one.solutions().collect_schema() == view.solutions().collect_schema()
        assert one.annotations().collect_schema() == view.annotations().collect_schema()
    assert view.solutions().collect().height == 5
    assert view.annotations().collect().height == 8


def test_raters_are_counted(view):
    # made: [1 1], [1 -1], [null 1]; alice: [1 -1], [-1 null], [1 0]; her simulation: [1 0]; j: [0 null]
    assert view.raters().rows() == [
        ("human", "alice", 3, 5, 2, 1, 2, 0),
        ("import", "made", 3, 5, 1, 0, 4, 0),
        ("judge", "j", 1, 1, 0, 1, 0, 0),
        ("simulated", "alice", 1, 2, 0, 1, 1, 0),
    ]


def test_an_empty_view_and_a_missing_ledger_are_refused(tmp_path):
    with pytest.raises(UsageError, match="at least one"):
        list(View().labelled())
    with pytest.raises(InputError, match="no such ledger"):
        View([], tmp_path / "typo.db")


def test_an_empty_snapshot_is_an_empty_view(tmp_path):
    with SnapshotWriter(tmp_path / "s", name="s", format="test"):
        pass
    view = View([tmp_path / "s"])
    assert list(view.labelled()) == list(view.iter_solutions()) == []
    assert view.raters().height == 0
    assert write_step_table(view, tmp_path / "t.parquet") == 0
    assert pl.read_parquet(tmp_path / "t.parquet").columns == STEP_TABLE.names


def test_json_lines_hold_every_record(view, tmp_path):
    assert write_jsonl(view, tmp_path / "out") == {"solutions": 5, "annotations": 8}
    rows = {}
    for name in ("solutions", "annotations"):
        lines = (tmp_path / "out" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows[name] = [json.loads(line) for line in lines]
    assert [solution_from_json(row) for row in rows["solutions"]] == list(view.iter_solutions())
    assert [annotation_from_json(row) for row in rows["annotations"]] == [p.annotation for p in view.labelled()]


def test_parquet_holds_every_column(view, tmp_path):
    write_parquet(view, tmp_path / "out")
    for name, frame in (("solutions", view.solutions()), ("annotations", view.annotations())):
        assert pl.read_parquet(tmp_path / f"out/{name}.parquet").equals(frame.collect())


def test_the_step_table_has_steps_and_labels_side_by_side(view, tmp_path):
    assert write_step_table(view, tmp_path / "steps.parquet", rater_kinds=["human", "judge"]) == 5
    rows = pl.read_parquet(tmp_path / "steps.parquet").select("problem", "steps", "labels", "rater_name").rows()
    assert rows == [
        ("0 + 1?", ["0 + 1 = 1.", "Voilà 好."], [None, None], None),
        ("1 + 1?", ["1 + 1 = 2.", "Voilà 好."], [1, -1], "alice"),
        ("2 + 1?", ["2 + 1 = 3.", "Voilà 好."], [0, None], "j"),
        ("3 + 1?", ["3 + 1 = 4.", "Voilà 好."], [-1, None], "alice"),
        ("4 + 1?", ["4 + 1 = 5.", "Voilà 好."], [1, 0], "alice"),
    ]


def test_a_label_without_a_hard_value_is_null_in_the_step_table(tmp_path):
    soft = StepLabel(1, None, step_hash("Voilà 好."), shares=(0.5, 0.0, 0.5))
    with SnapshotWriter(tmp_path / "s", name="s", format="test") as writer:
        writer.add(solution(0), [Annotation(solution(0).id, BOT, (soft,))])
    write_step_table(View([tmp_path / "s"]), tmp_path / "t.parquet")
    assert pl.read_parquet(tmp_path / "t.parquet")["labels"].to_list() == [[None, None]]
    (pair,) = View([tmp_path / "s"]).labelled()
    assert pair.annotation.labels == (soft,)


problems = st.lists(st.text(alphabet="aB \n", max_size=5), max_size=30)


@settings(max_examples=50, deadline=None)
@given(problems, st.integers(0, 3))
def test_no_problem_is_on_two_sides_and_none_is_lost(texts, seed):
    rows = [Labelled(Solution.from_steps(text, ["s"]), Annotation("x", BOT, ())) for text in texts]
    sides = split_by_problem(rows, {"train": 0.5, "dev": 0.25, "test": 0.25}, seed)
    keys = [{problem_key(pair.solution.problem) for pair in side} for side in sides.values()]
    assert sum(map(len, sides.values())) == len(rows)
    assert sum(map(len, keys)) == len(set().union(*keys))
    alone = {side: split_by_problem([pair], {"train": 0.5, "dev": 0.25, "test": 0.25}, seed) for side in sides
             for pair in sides[side][:1]}  # fmt: skip
    assert all(len(parts[side]) == 1 for side, parts in alone.items())


def test_split_shares_come_out_near_the_fractions():
    rows = [Labelled(Solution.from_steps(f"problem {n}", ["s"]), Annotation("x", BOT, ())) for n in range(4000)]
    sides = split_by_problem(rows, {"train": 0.9, "dev": 0.1}, seed=0)
    assert abs(len(sides["dev"]) - 400) < 4 * math.sqrt(4000 * 0.1 * 0.9)  # four standard deviations
    other = split_by_problem(rows, {"train": 0.9, "dev": 0.1}, seed=1)
    assert {p.solution.id for p in sides["dev"]} != {p.solution.id for p in other["dev"]}
    assert split_by_problem(rows, {"all": 1.0, "none": 0.0}, seed=0)["none"] == []
    with pytest.raises(UsageError, match="sum to 1"):
        split_by_problem(rows, {"train": 0.9, "dev": 0.2}, seed=0)
