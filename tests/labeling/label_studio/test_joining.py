import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.label_studio.joining import DISAGREES, EDITED, INCOMPLETE, IncompleteError, join, newest
from labeling.label_studio.results import WindowLabels
from labeling.label_studio.studio import Project
from labeling.label_studio.tasks import windows
from prm_kit.errors import InputError
from prm_kit.records import Rater, Solution, check_annotation

ANN = Rater("human", "ann", "page-1-all")
PROJECT = Project(3, "steps", "", "", 1, 0, "2026-11-21")
LONG = Solution.from_steps("p", [f"step {i}" for i in range(30)])
SHORT = Solution.from_steps("p", [f"step {i}" for i in range(4)])


def labels_of(solution, values, index=0, **fields):
    """What somebody said of one window; `values` by column, None leaves the step open."""
    window = windows(len(solution.spans))[index]
    by_step = {window.first + i: value for i, value in enumerate(values) if value is not None}
    return WindowLabels(
        **{
            "solution_id": solution.id,
            "window": window,
            "annotator": 1,
            "values": by_step,
            "comments": {},
            "origins": dict.fromkeys(by_step, "manual"),
            "flags": (),
            "first_error": None,
            "comment": None,
            "time": f"2026-11-21T10:0{index}:00.000Z",
            "lead_time": 10.0,
            "task": 100 + index,
            "annotation": 200 + index,
            "unique_id": f"u{index}",
            "edited_by": None,
        }
        | fields
    )


def joined(solution, found, policy="all", partial=False):
    annotation = join(solution, found, ANN, policy, PROJECT, {1: "ann", 2: "bob"}, partial)
    check_annotation(solution, annotation)
    return annotation


def test_windows_of_one_annotator_are_one_annotation():
    parts = [labels_of(LONG, [1] * 10, 0), labels_of(LONG, [0] * 10, 1), labels_of(LONG, [1] * 9 + [-1], 2)]
    annotation = joined(LONG, parts)
    assert annotation.values(30) == (1,) * 10 + (0,) * 10 + (1,) * 9 + (-1,)
    assert annotation.first_error == 29
    assert annotation.lead_time == 30.0
    assert annotation.time == "2026-11-21T10:02:00.000Z"
    assert annotation.meta == {
        "steps": 30,
        "label_studio": {
            "project": 3,
            "made": "2026-11-21",
            "tasks": [100, 101, 102],
            "annotations": [200, 201, 202],
            "unique_ids": ["u0", "u1", "u2"],
            "origin": "manual",
        },
    }


def test_a_missing_window_is_incomplete_and_named():
    with pytest.raises(IncompleteError, match="steps 10 to 19 are not labelled yet"):
        joined(LONG, [labels_of(LONG, [1] * 10, 0), labels_of(LONG, [1] * 10, 2)])


def test_a_partial_annotation_is_flagged():
    annotation = joined(LONG, [labels_of(LONG, [1] * 10, 0)], partial=True)
    assert annotation.flags == (INCOMPLETE,)
    assert annotation.values(30) == (1,) * 10 + (None,) * 20


def test_when_every_step_is_asked_for_an_open_step_is_refused():
    with pytest.raises(InputError, match="step 2 has no label"):
        joined(SHORT, [labels_of(SHORT, [1, -1, None, 1])])


@pytest.mark.parametrize(
    ("values", "accepted"),
    [
        ([1, 0, -1, None], True),  # exactly up to the first -1
        ([1, 0, -1, 1], True),  # all
        ([-1, None, None, None], True),
        ([1, 1, 1, 1], True),
        ([1, 1, 1, None], False),  # no error, and yet not to the end
        ([1, None, -1, None], False),  # a gap before the error
        ([-1, 1, None, None], False),  # on after the error, but not to the end
        ([None, None, None, None], False),
    ],
)
def test_until_the_first_error_pull_accepts_exactly_the_steps_up_to_it_or_all(values, accepted):
    if accepted:
        assert joined(SHORT, [labels_of(SHORT, values)], "first-error").values(4) == tuple(values)
    else:
        with pytest.raises(InputError):
            joined(SHORT, [labels_of(SHORT, values)], "first-error")


@given(st.lists(st.sampled_from([-1, 0, 1, None]), min_size=4, max_size=4))
def test_the_policy_agrees_with_a_slow_reference(values):
    prefix = values[: values.index(-1) + 1] if -1 in values else values
    wanted = (None not in prefix and values[len(prefix) :] == [None] * (4 - len(prefix))) or None not in values
    try:
        joined(SHORT, [labels_of(SHORT, values)], "first-error")
        accepted = True
    except InputError:
        accepted = False
    assert accepted == wanted


def test_until_the_first_error_later_windows_may_be_missing_or_empty():
    first = labels_of(LONG, [1] * 4 + [-1] + [None] * 5, 0)
    wanted = (1, 1, 1, 1, -1) + (None,) * 25
    assert joined(LONG, [first], "first-error").values(30) == wanted
    assert joined(LONG, [first, labels_of(LONG, [], 2)], "first-error").values(30) == wanted


def test_until_the_first_error_an_earlier_window_must_be_there():
    with pytest.raises(IncompleteError):
        joined(LONG, [labels_of(LONG, [1, -1], 1)], "first-error")


def test_the_newest_labels_of_a_window_count():
    old = labels_of(SHORT, [1, 1, 1, 1], time="2026-11-21T10:00:00.000Z", annotation=5)
    new = labels_of(SHORT, [1, -1, 1, 1], time="2026-11-21T10:00:00.001Z", annotation=4)
    assert newest([new, old]) == [new]
    assert newest([old, dataclasses.replace(new, time=old.time, annotation=6)])[0].annotation == 6


def test_what_the_annotator_wrote_and_ticked_is_kept():
    said = labels_of(
        SHORT, [1, 1, -1, 1], comments={2: "no", 3: "why?"}, flags=("not_sure",), comment="hm", first_error=2
    )
    annotation = joined(SHORT, [said])
    assert [label.comment for label in annotation.labels] == [None, None, "no", "why?"]
    assert (annotation.flags, annotation.comment) == (("not_sure",), "hm")
    assert annotation.meta["label_studio"]["named_first_error"] == 2


def test_a_comment_on_an_open_step_is_kept_without_a_label():
    annotation = joined(SHORT, [labels_of(SHORT, [-1], comments={3: "also bad"})], "first-error")
    assert [(label.step, label.value) for label in annotation.labels] == [(0, -1), (3, None)]


def test_a_named_first_error_that_is_not_the_first_one_labelled_wrong_is_flagged():
    assert joined(SHORT, [labels_of(SHORT, [1, -1, 1, 1], first_error=2)]).flags == (DISAGREES,)
    assert joined(SHORT, [labels_of(SHORT, [1, 1, 1, 1], first_error=2)]).flags == (DISAGREES,)
    assert joined(SHORT, [labels_of(SHORT, [1, -1, 1, 1], first_error=1)]).flags == ()


def test_an_edit_by_somebody_else_is_flagged_with_the_name():
    annotation = joined(SHORT, [labels_of(SHORT, [1] * 4, edited_by=2)])
    assert annotation.flags == (EDITED,)
    assert annotation.meta["label_studio"]["edited_by"] == ["bob"]


def test_accepted_predictions_are_told_from_labels_by_hand():
    said = labels_of(SHORT, [1] * 4, origins={0: "prediction", 1: "prediction-changed", 2: "manual", 3: "manual"})
    assert joined(SHORT, [said]).meta["label_studio"]["origin"] == {"0": "prediction", "1": "prediction-changed"}
