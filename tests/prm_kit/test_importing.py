import json

import pytest

from prm_kit.errors import InputError, UsageError
from prm_kit.importing import import_data
from prm_kit.snapshot import Snapshot

GOOD = {"prompt": "p", "completions": ["a", "b"], "labels": [True, False]}


def lines(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def numbered(n):
    return [{**GOOD, "prompt": f"p{i}"} for i in range(n)]


def test_rows_become_a_snapshot_and_are_counted(tmp_path):
    summary = import_data("trl", [lines(tmp_path / "a.jsonl", numbered(3))], tmp_path / "out")
    assert (summary["rows_read"], summary["solutions"], summary["steps"], summary["annotations"]) == (3, 3, 6, 3)
    assert summary["labels_before"] == {"True": 3, "False": 3}
    assert summary["labels_after"] == {"1": 3, "-1": 3, "null": 0}
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    snapshot = Snapshot.open(tmp_path / "out")
    assert [solution.problem for solution in snapshot.iter_solutions()] == ["p0", "p1", "p2"]
    assert snapshot.manifest.counts["rows"] == 3


def test_a_bad_row_is_counted_by_reason_and_kept_with_its_line(tmp_path):
    rows = [*numbered(120), '{"prompt": ', {**GOOD, "labels": [True]}]
    path = lines(tmp_path / "a.jsonl", rows)
    summary = import_data("trl", [path], tmp_path / "out", max_reject_share=0.05)
    assert (summary["rows_read"], summary["rows_rejected"], summary["solutions"]) == (122, 2, 120)
    assert sum(summary["rejected_by_reason"].values()) == 2
    assert "labels: N labels for N completions" in summary["rejected_by_reason"]
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert [(reject["file"], reject["line"]) for reject in rejects] == [(str(path), 121), (str(path), 122)]
    assert rejects[0]["raw"] == '{"prompt": '


@pytest.mark.parametrize(
    ("completions", "reason"),
    [
        (["a", " \n"], "step 1 is empty"),
        (["a", "b\x00"], "completion holds a NUL"),
        (["a", "b\ud800"], "completion holds a lone surrogate"),
        (["a", 3], r"completions\[1\]: int is not text"),
    ],
)
def test_text_that_cannot_be_kept_is_refused_with_its_field(tmp_path, completions, reason):
    path = lines(tmp_path / "a.jsonl", [{**GOOD, "completions": completions}])
    with pytest.raises(InputError, match=reason):
        import_data("trl", [path], tmp_path / "out")


def test_more_bad_rows_than_the_share_stop_the_import_and_leave_no_snapshot(tmp_path):
    path = lines(tmp_path / "a.jsonl", [*numbered(8), "x", "y"])
    with pytest.raises(InputError, match=r"2 of 10 rows rejected.*\n.*a\.jsonl:9: not JSON"):
        import_data("trl", [path], tmp_path / "out", max_reject_share=0.1)
    assert not (tmp_path / "out").exists()
    assert len((tmp_path / "out.rejects.jsonl").read_text().splitlines()) == 2


def test_exactly_the_share_is_allowed(tmp_path):
    path = lines(tmp_path / "a.jsonl", [*numbered(9), "x"])
    assert import_data("trl", [path], tmp_path / "out", max_reject_share=0.1)["rows_rejected"] == 1


def test_the_format_is_told_by_the_first_row(tmp_path):
    path = lines(tmp_path / "a.jsonl", numbered(2))
    assert import_data("auto", [path], tmp_path / "out")["format"] == "trl"
    with pytest.raises(UsageError, match="no format is known"):
        import_data("auto", [lines(tmp_path / "b.jsonl", [{"x": 1}])], tmp_path / "out2")


def test_a_limit_stops_reading(tmp_path):
    path = lines(tmp_path / "a.jsonl", numbered(5))
    assert import_data("trl", [path, path], tmp_path / "out", limit=3)["rows_read"] == 3


def test_step_lists_read_by_block_and_by_row_give_the_same(tmp_path):
    rows = [
        {"problem": "p", "steps": ["a", "b"], "labels": [1, 0]},
        {"problem": "q", "steps": ["a"], "labels": [None]},
        {"problem": "q", "steps": [" "], "labels": [1]},
        {"problem": "r", "steps": ["a", "b", "c"], "labels": [1, -1, None]},
    ]
    path = lines(tmp_path / "a.jsonl", rows)
    by_block = import_data("steps", [path], tmp_path / "one", max_reject_share=0.5)
    by_row = import_data("steps", [path], tmp_path / "two", max_reject_share=0.5, limit=100)
    assert by_block == by_row
    assert by_block["labels_after"] == {"null": 2, "1": 2, "0": 1, "-1": 1}
    for name in ("solutions", "annotations"):
        one, two = (getattr(Snapshot.open(tmp_path / at), name)().collect() for at in ("one", "two"))
        assert one.equals(two)


def test_solutions_without_steps_are_split_on_request(tmp_path):
    chat = {"messages": [{"role": "user", "content": "2+3?"}, {"role": "assistant", "content": "First.\n\nThen 5."}]}
    path = lines(tmp_path / "a.jsonl", [chat])
    import_data("chat", [path], tmp_path / "whole")
    import_data("chat", [path], tmp_path / "steps", split="blank_line")
    ((whole,), (steps,)) = (list(Snapshot.open(tmp_path / name).iter_solutions()) for name in ("whole", "steps"))
    assert whole.spans == ()
    assert steps.steps == ("First.", "Then 5.")


def test_nothing_to_import_and_wrong_shares_are_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="nothing to import"):
        import_data("trl", [], tmp_path / "out")
    with pytest.raises(UsageError, match="max_reject_share"):
        import_data("trl", ["x"], tmp_path / "out", max_reject_share=2)
    with pytest.raises(UsageError, match="unknown format"):
        import_data("trll", ["x"], tmp_path / "out")
