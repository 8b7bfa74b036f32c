import pytest

from labeling.label_table import NAMED_NONE, label_table
from labeling.labeler import WITHDRAWN
from prm_kit.errors import InputError
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, Solution, StepLabel, step_hash
from prm_kit.view import View


def test_a_row_is_one_judged_step_of_one_rater(table_of):
    table = table_of({"ann": [[1, None, -1], [0, 1]], "judge ann": [[1, 1, 1], None]})
    assert table.raters["label"].to_list() == ["human ann", "judge ann"]
    assert table.labels.select("solution", "rater", "step", "value").rows() == [
        (0, 0, 0, 1), (0, 0, 2, -1), (0, 1, 0, 1), (0, 1, 1, 1), (0, 1, 2, 1), (1, 0, 0, 0), (1, 0, 1, 1),
    ]  # fmt: skip
    assert table.n_problems == 2


def test_a_first_error_is_known_where_every_step_before_it_was_judged_none_where_every_step_was_and_else_open(table_of):
    table = table_of({"ann": [[1, 0, -1, -1], [0, -1, None], [1, None, -1], [0, 1], [1, None], [None, None]]})
    assert table.annotations["first_error"].to_list() == [2, 1, None, NAMED_NONE, None, None]
    assert table.annotations["judged"].to_list() == [4, 2, 2, 2, 1, 0]


def test_of_several_annotations_by_one_rater_the_last_counts(ledger_of):
    ledger_of({"ann": [[1, -1]]})
    ledger = ledger_of({"ann": [[0, None]]}, time="2026-01-01T00:00:00Z")
    table = label_table(View(ledger=ledger))
    assert table.labels.select("step", "value").rows() == [(0, 0)]


def test_a_rater_who_took_everything_back_is_as_if_never_asked(ledger_of):
    ledger = ledger_of({"ann": [[1, -1], [1, 1]], "judge j": [[1, 0], [1, 1]]})
    for said in [a for a in ledger.current() if a.rater.name == "ann"]:
        ledger.append([Annotation(said.solution_id, said.rater, (), flags=(WITHDRAWN,))])
    table = label_table(View(ledger=ledger))
    assert table.raters["label"].to_list() == ["judge j"]
    assert table.annotations["flags"].to_list() == [[], []]
    assert table.labels["value"].to_list() == [1, 0, 1, 1]


def test_problems_that_differ_in_case_and_white_space_are_one(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for problem in ("What is  2?", "what IS 2? ", "Else?"):
        about = Solution.from_steps(problem, ["x"])
        ledger.append([Annotation.of(about, Rater("human", "ann"), [1])], [about])
    assert label_table(View(ledger=ledger)).n_problems == 2


def test_shares_are_kept_beside_labels_also_where_there_is_no_value(tmp_path):
    about = Solution.from_steps("p", ["x", "y"])
    labels = (StepLabel(1, None, step_hash("y"), shares=(0.25, 0.0, 0.75)),)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.append([Annotation(about.id, Rater("rollout", "mc"), labels)], [about])
    table = label_table(View(ledger=ledger))
    assert table.labels.is_empty()
    assert table.shares.select("step", "wrong", "neutral", "right").rows() == [(1, 0.25, 0.0, 0.75)]


def test_choosing_kinds_keeps_numbers_and_solutions(table_of):
    table = table_of({"ann": [[1]], "judge j": [[-1]], "simulated s": [[0]]})
    chosen = table.of(["judge"])
    assert chosen.raters["label"].to_list() == ["judge j"]
    assert chosen.labels["value"].to_list() == [-1]
    assert chosen.solutions.height == 1
    assert table.of(without=["simulated"]).raters["kind"].to_list() == ["human", "judge"]


def test_nobodys_labels_are_refused(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.append([], [Solution.from_steps("p", ["x"])])
    with pytest.raises(InputError, match="nobody has labelled"):
        label_table(View(ledger=ledger))
