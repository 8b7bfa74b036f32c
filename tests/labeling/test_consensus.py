from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labeling.consensus import MergeSettings, chosen, merge
from labeling.label_table import label_table
from labeling.merged import UNDECIDED, merged_annotations
from prm_kit.errors import UsageError
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, Solution, check_annotation
from prm_kit.view import View


def merged(ledger, policy="majority", **fields):
    """The merged annotations by the number of the solution's problem."""
    options = MergeSettings(policy=policy, **fields)
    view = View(ledger=ledger)
    table = chosen(label_table(view), options.kinds)
    found = merged_annotations(view.iter_solutions(), table, merge(table, options), options, "2026-01-01T00:00:00Z")
    return {solution.problem.removeprefix("problem "): annotation for solution, annotation in found}


def values(annotation, n):
    return list(annotation.values(n))


def test_the_majority_decides_and_a_tie_is_null_with_a_flag_and_the_votes(ledger_of):
    ledger = ledger_of({"a": [[1, 1, -1, 1]], "b": [[1, -1, -1, 0]], "c": [[0, None, 1, -1]]})
    found = merged(ledger)["0"]
    assert values(found, 4) == [1, None, -1, None]
    assert found.flags == (UNDECIDED,)
    assert found.labels[1].comment == "undecided: -1 0.5, 0 0.0, +1 0.5"
    assert (found.labels[1].shares, found.labels[1].count) == (None, 2)
    assert found.labels[0].shares == pytest.approx((0, 1 / 3, 2 / 3))
    assert found.rater.kind == "merged"


def test_half_of_the_votes_is_no_majority(ledger_of):
    ledger = ledger_of({"a": [[-1]], "b": [[-1]], "c": [[0]], "d": [[1]]})
    assert values(merged(ledger)["0"], 1) == [None]


def test_every_label_names_the_annotations_that_it_came_from(ledger_of):
    ledger = ledger_of({"a": [[1, 1]], "b": [[None, -1]], "rule r": [[1, -1]]})
    ids = {annotation.rater.name: annotation.id for annotation in ledger.current()}
    by_majority = merged(ledger)["0"].labels
    assert [set(label.sources) for label in by_majority] == [{ids["a"], ids["r"]}, set(ids.values())]
    by_priority = merged(ledger, "priority")["0"].labels
    assert [set(label.sources) for label in by_priority] == [{ids["a"]}, {ids["a"], ids["b"]}]


def test_priority_believes_people_first_then_judges_then_rules_step_by_step(ledger_of):
    rows = {"ann": [[1, None, None, None]], "judge j": [[-1, -1, None, None]], "rule r": [[0, 0, 1, None]]}
    assert values(merged(ledger_of(rows), "priority")["0"], 4) == [1, -1, 1, None]
    assert values(merged(ledger_of(rows), "priority", order=("rule", "judge", "human"))["0"], 4) == [0, 0, 1, None]


def test_people_who_contradict_each_other_are_not_overruled_by_a_rule(ledger_of):
    ledger = ledger_of({"a": [[1]], "b": [[-1]], "rule r": [[1]]})
    assert values(merged(ledger, "priority")["0"], 1) == [None]


def test_an_order_that_leaves_a_kind_out_is_refused(ledger_of):
    with pytest.raises(UsageError, match="where judge stands"):
        merged(ledger_of({"ann": [[1]], "judge j": [[1]]}), "priority", order=("human",))


def test_dawid_skene_believes_the_reliable_rater_where_votes_tie(ledger_of):
    # b contradicts a and c in every second step; in the last solution only a and b speak, and they differ.
    right = [[1, -1] * 6, [-1, 1] * 6]
    wrong = [[1, 1] * 6, [1, 1] * 6]
    ledger = ledger_of({"a": [*right, [-1]], "b": [*wrong, [1]], "c": [*right, None]})
    found = merged(ledger, "dawid-skene")
    assert values(merged(ledger)["2"], 1) == [None]
    assert values(found["2"], 1) == [-1]
    assert found["2"].labels[0].shares[0] > 0.9
    assert values(merged(ledger, "dawid-skene", min_confidence=1.0)["2"], 1) == [None]


def test_the_filter_keeps_what_both_kinds_agree_on_until_the_first_error_and_sends_the_rest_to_people(ledger_of):
    ledger = ledger_of({
        #           same error        none, 0 is judge's  other error    only one     open          error or none
        "rollout r": [[1, -1, -1], [1, 1], [-1, 1, 1, 1], [1], [1, None], [1, -1, 1, 1]],
        "judge j": [[1, -1, 1], [1, 0], [1, 1, -1, 1], None, [1, 1], [1, 1, 1, 1]],
    })  # fmt: skip
    found = merged(ledger, "filter")
    assert values(found["0"], 3) == [1, -1, None]
    assert values(found["1"], 2) == [1, 0]
    assert [len(label.sources) for label in found["0"].labels] == [2, 2]
    assert [len(found[key].labels) for key in "2345"] == [0, 0, 0, 0]
    table = label_table(View(ledger=ledger))
    result = merge(table, MergeSettings(policy="filter"))
    ids = dict(table.solutions.select("solution", "id").rows())
    problems = {solution.id: solution.problem[-1] for solution in ledger.solutions()}
    rest = {problems[ids[n]]: (reason, score) for n, reason, score in result.rest.rows()}
    # Errors 0 and 2 of 4 steps: 2/4 apart; error 1 against none, which stands behind the last step: 3/4.
    assert rest == {
        "2": ("disagreement", 0.5),
        "4": ("one side leaves the first error open", 0.0),
        "5": ("disagreement", 0.75),
    }
    assert result.about == {"agreed": 2, "not_agreed": 3}


def test_dawid_skene_passes_over_raters_who_gave_no_value(ledger_of):
    ledger = ledger_of({"a": [[1, -1]], "judge j": [[1, -1]], "rollout soft": [[None, None]]})
    assert values(merged(ledger, "dawid-skene")["0"], 2) == [1, -1]
    table = label_table(View(ledger=ledger))
    estimated = merge(table, MergeSettings(policy="dawid-skene")).about["estimated"]
    assert {label: found["labels"] for label, found in estimated.items()} == {"human a": 2, "judge j": 2}


def test_the_filter_keeps_no_error_with_unjudged_steps_before_it(ledger_of):
    ledger = ledger_of({"rule r": [[None, -1], [1, -1]], "judge j": [[1, -1], [1, -1]]})
    found = merged(ledger, "filter", between=("rule", "judge"))
    assert [values(found[key], 2) for key in "01"] == [[None, None], [1, -1]]


def test_the_filter_needs_both_kinds(ledger_of):
    with pytest.raises(UsageError, match="kind rollout"):
        merged(ledger_of({"judge j": [[1]]}), "filter")


def test_merged_and_simulated_raters_are_left_out_unless_asked_for(ledger_of):
    ledger = ledger_of({"ann": [[1]], "merged majority": [[-1]], "simulated s": [[-1]]})
    assert values(merged(ledger)["0"], 1) == [1]
    assert values(merged(ledger, kinds=("simulated",))["0"], 1) == [-1]
    with pytest.raises(UsageError, match="no rater of kind judge"):
        merged(ledger, kinds=("judge",))


def test_a_version_changes_with_the_settings():
    versions = {MergeSettings(policy="priority", **fields).rater.version for fields in ({}, {"kinds": ("human",)})}
    assert len(versions) == 2
    assert MergeSettings().rater == MergeSettings().rater


def test_flags_of_those_who_labelled_are_kept(ledger_of):
    ledger = ledger_of({"a": [[1]]}, flags=("bad_problem",))
    ledger = ledger_of({"b": [[-1]]}, flags=("not_sure",))
    assert merged(ledger)["0"].flags == ("bad_problem", "not_sure", UNDECIDED)


def test_a_solution_about_which_nothing_was_said_gets_an_annotation_without_labels(ledger_of):
    assert merged(ledger_of({"a": [[None], [1]]}))["0"].labels == ()


rows_strategy = st.lists(
    st.lists(st.sampled_from([-1, 0, 1, None]), min_size=3, max_size=3), min_size=1, max_size=5
)  # one row a rater


@given(rows_strategy)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_majority_is_what_counting_by_hand_gives(tmp_path_factory, rows):
    about = Solution.from_steps("p", ["x", "y", "z"])
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.sqlite")
    ledger.append([Annotation.of(about, Rater("human", str(i)), row) for i, row in enumerate(rows)], [about])
    [found] = merged(ledger).values()
    check_annotation(about, found)
    for step in range(3):
        votes = Counter(row[step] for row in rows if row[step] is not None)
        winner = [value for value, n in votes.items() if 2 * n > votes.total()]
        assert found.values(3)[step] == (winner[0] if winner else None)
