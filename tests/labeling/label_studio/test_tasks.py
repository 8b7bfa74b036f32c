import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.label_studio.interface import MAX_STEPS, Page
from labeling.label_studio.tasks import Window, task_data, tasks_of, uid, window_of, windows
from prm_kit.errors import InputError
from prm_kit.records import Annotation, Rater, Solution


def test_thirty_steps_are_three_windows_of_ten():
    # 30 steps need 3 windows of at most 14; 30 = 10 + 10 + 10
    assert windows(30) == [Window(0, 3, 0, 10), Window(1, 3, 10, 20), Window(2, 3, 20, 30)]
    # 29 = 10 + 10 + 9
    assert [(w.first, w.last) for w in windows(29)] == [(0, 10), (10, 20), (20, 29)]
    assert windows(14) == [Window(0, 1, 0, 14)]


@given(st.integers(1, 400))
def test_windows_cover_every_step_once_and_none_is_too_long(n_steps):
    found = windows(n_steps)
    assert [step for w in found for step in range(w.first, w.last)] == list(range(n_steps))
    sizes = [w.last - w.first for w in found]
    assert max(sizes) <= MAX_STEPS
    assert max(sizes) - min(sizes) <= 1
    assert len(found) == -(-n_steps // MAX_STEPS)


def test_a_solution_without_steps_is_refused():
    with pytest.raises(InputError, match="without steps"):
        list(tasks_of(Solution("p", "c", ()), Page()))


def test_a_later_window_shows_the_earlier_steps_and_not_the_following_ones(make_solution):
    first, second = tasks_of(make_solution(20), Page())
    assert first["earlier"] == []
    assert len(first["steps"]) == len(second["steps"]) == 10
    shown = second["earlier"][0]["html"]
    assert "Step 10 of 20" in shown
    assert "Step 11 of 20" not in shown
    assert second["steps"][0]["title"] == "Step 11 of 20"
    assert second["steps"][0]["options"][0]["hotkey"] == "q"
    assert [option["alias"] for option in second["first_error_options"]] == [str(step) for step in range(10, 20)]


def test_a_task_holds_no_label_and_not_whether_the_answer_is_right(make_solution):
    right, wrong = (
        Solution.from_steps("p", ["a", "b"], final_answer="4", is_correct=is_correct, meta={"gold": [1, -1]})
        for is_correct in (True, False)
    )
    assert list(tasks_of(right, Page())) == list(tasks_of(wrong, Page()))
    assert "gold" not in json.dumps(list(tasks_of(right, Page())))
    Annotation.of(right, Rater("human", "gold"), [1, -1])  # what is gold stays in a ledger


def test_another_text_or_split_is_another_task(make_solution):
    a, b = make_solution(3, "p"), make_solution(3, "q")
    assert a.id != b.id
    assert {task["prm_uid"] for task in tasks_of(a, Page())}.isdisjoint(t["prm_uid"] for t in tasks_of(b, Page()))


def test_a_task_comes_back_through_json_with_its_window(make_solution):
    solution = make_solution(30)
    for task, window in zip(tasks_of(solution, Page()), windows(30), strict=True):
        assert window_of(json.loads(json.dumps(task)), solution) == window
        assert task["prm_uid"] == uid(solution.id, window)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda task: task["steps"][0].update(html="other"), "changed on the server"),
        (lambda task: task.update(reference_html="7"), "changed on the server"),
        (lambda task: task.pop("prm_hash"), "changed on the server"),
        (lambda task: task.update(extra=1), "changed on the server"),
    ],
)
def test_a_task_that_was_edited_on_the_server_is_refused(make_solution, change, reason):
    solution = make_solution(3)
    (task,) = tasks_of(solution, Page())
    change(task)
    with pytest.raises(InputError, match=reason):
        window_of(task, solution)


def test_a_task_about_another_text_or_an_unknown_solution_is_refused(make_solution):
    (task,) = tasks_of(make_solution(3), Page())
    with pytest.raises(InputError, match="not in the ledger"):
        window_of(task, None)
    with pytest.raises(InputError, match="does not show a part"):
        window_of(task, make_solution(3, "q"))


def test_even_a_consistent_forgery_of_the_steps_is_refused(make_solution):
    from prm_kit.files import value_sha256

    solution = make_solution(3)
    (task,) = tasks_of(solution, Page())
    task["steps"][0]["hash"] = "0" * 32
    task["prm_hash"] = value_sha256({key: value for key, value in task.items() if key != "prm_hash"})
    with pytest.raises(InputError, match="text of the solution has changed"):
        window_of(task, solution)


def test_an_answer_in_bare_tex_is_shown_as_a_formula():
    solution = Solution.from_steps("p", ["a"], final_answer=r"\frac{1}{2}", reference_answer=None)
    data = task_data(solution, windows(1)[0], Page(language="zh"))
    assert "<mfrac>" in data["final_html"]
    assert "未知" in data["reference_html"]
