import pytest

from labeling.label_studio.results import read_annotation
from labeling.label_studio.tasks import Window
from prm_kit.errors import InputError

FIRST, SECOND = Window(0, 2, 0, 3), Window(1, 2, 3, 5)


def choice(name, to, *values, **fields):
    return {"from_name": name, "to_name": to, "type": "choices", "value": {"choices": list(values)}, "id": "x"} | fields


def text(name, to, *texts):
    return {"from_name": name, "to_name": to, "type": "textarea", "value": {"text": list(texts)}, "id": "x"}


def read(row, window=FIRST):
    return read_annotation(row, 9, "s" * 32, window)


def test_everything_that_the_page_can_say_is_read(make_annotation):
    row = make_annotation(
        [1, 0],
        results=[
            choice("label_2", "step_2", "-1", origin="prediction-changed"),
            text("comment_2", "step_2", "36-7 is 29"),
            choice("flags", "problem", "not_sure", "bad_problem"),
            choice("first_error", "problem", "2"),
            text("comment", "problem", "good until step 3"),
        ],
        lead_time=31.25,
        updated_at="2026-11-21T11:00:00.5+01:00",
    )
    labels = read(row)
    assert labels.values == {0: 1, 1: 0, 2: -1}
    assert labels.comments == {2: "36-7 is 29"}
    assert labels.origins == {0: "manual", 1: "manual", 2: "prediction-changed"}
    assert labels.flags == ("bad_problem", "not_sure")
    assert labels.first_error == 2
    assert labels.comment == "good until step 3"
    assert labels.time == "2026-11-21T10:00:00.500Z"
    assert (labels.lead_time, labels.task, labels.annotator, labels.edited_by) == (31.25, 9, 1, None)


def test_columns_of_a_later_window_are_steps_of_the_solution(make_annotation):
    row = make_annotation([1, -1], results=[choice("first_error", "problem", "4")])
    labels = read(row, SECOND)
    assert labels.values == {3: 1, 4: -1}
    assert labels.first_error == 4


def test_a_step_left_open_has_no_label_and_no_zero(make_annotation):
    assert read(make_annotation([None, 1, None])).values == {1: 1}


def test_somebody_else_who_changed_it_is_seen(make_annotation):
    assert read(make_annotation([1], updated_by=2)).edited_by == 2
    assert read(make_annotation([1], completed_by={"id": 3, "email": "c@x"}, updated_by=3)).edited_by is None


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([choice("label_3", "step_3", "1")], "the page shows 3 steps"),
        ([choice("label_0", "step_0", "nonsense")], "is not among"),
        ([choice("label_0", "step_0", "2")], "is not among"),
        ([choice("label_0", "step_0", "1", "-1")], "is not among"),
        ([choice("label_0", "step_0")], "is not among"),
        ([choice("label_0", "step_1", "1")], "instead of step_0"),
        ([choice("label_0", "step_0", "1"), choice("label_0", "step_0", "-1")], "set twice"),
        ([choice("zzz", "problem", "1")], "does not have"),
        ([choice("label_0", "step_0", 1)], "is not among"),
        ([choice("label_0", "step_0", "1", type="rating")], "is not among"),
        ([choice("label_0", "step_0", "1", origin="magic")], "origin"),
        ([choice("first_error", "problem", "3")], "is not among"),
        ([choice("flags", "problem", "quality_control")], "is not among"),
        ([choice("flags", "problem", ["x"])], "is not among"),
        ([text("comment_0", "step_0", 3)], "no text"),
        ([text("comment", "problem", "a\x00b")], "NUL"),
        ([text("comment", "problem", "\ud800")], "surrogate"),
        ([text("comment", "problem", "x" * 20_000)], "more than"),
        ([None], "does not have"),
        (["x"], "does not have"),
        ([{"from_name": None}], "does not have"),
    ],
)
def test_what_the_page_could_not_have_made_is_refused(make_annotation, results, reason):
    with pytest.raises(InputError, match=reason):
        read(make_annotation([], results=results))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"completed_by": None}, "no annotator"),
        ({"completed_by": True}, "no annotator"),
        ({"result": {}}, "list of results"),
        ({"updated_at": "yesterday", "created_at": None}, "ISO 8601"),
        ({"updated_at": None, "created_at": None}, "ISO 8601"),
        ({"lead_time": "1"}, "seconds"),
        ({"lead_time": float("nan")}, "seconds"),
        ({"lead_time": -1}, "seconds"),
        ({"id": "7"}, "no number"),
    ],
)
def test_a_malformed_annotation_is_refused(make_annotation, fields, reason):
    with pytest.raises(InputError, match=reason):
        read(make_annotation([1], **fields))
