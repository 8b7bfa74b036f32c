"""What was pulled and is gone from the server, or stands again; over whole pulls against the server in memory."""

import dataclasses

import pytest

from labeling.label_studio.interface import Page
from labeling.label_studio.projects import open_project
from labeling.label_studio.pull import pull
from labeling.label_studio.push import push
from labeling.labeler import WITHDRAWN
from prm_kit.records import Annotation, Rater

PAGE = Page()


class Desk:
    """A project and a ledger that was pushed from."""

    def __init__(self, studio, ledger, folder):
        self.studio, self.ledger, self.export = studio, ledger, folder / "export.json.gz"
        self.project = open_project(studio, "steps", PAGE)

    def push(self, *solutions):
        push(self.studio, self.project, PAGE, solutions, self.ledger)
        return solutions

    def pull(self, name_of=lambda email: email.split("@")[0]):
        return pull(self.studio, self.project, PAGE, self.ledger, self.export, name_of, patience=1)[0]

    def stored(self):
        return len(list(self.ledger.everything()))

    def current(self):
        return {(a.rater.name, *(label.value for label in a.labels)) for a in self.ledger.current()}


@pytest.fixture
def desk(studio, ledger, tmp_path):
    return Desk(studio, ledger, tmp_path)


def test_what_was_deleted_on_the_server_is_taken_back_once_and_its_history_stays(desk, make_solution):
    (solution,) = desk.push(make_solution(2))
    made = desk.studio.annotate(f"{solution.id}-1of1", [1, -1])
    desk.studio.annotate(f"{solution.id}-1of1", [1, 1], user=2)
    desk.pull()
    desk.studio.remove(made)
    done = desk.pull()
    assert done.withdrawn == [{"solution": solution.id, "annotator": "ann"}]
    assert desk.current() == {("ann",), ("bob", 1, 1)}
    labelled, taken_back = desk.ledger.history(solution.id, Rater("human", "ann", ""))
    assert labelled.values(2) == (1, -1)
    assert (taken_back.flags, taken_back.meta[WITHDRAWN]) == ((WITHDRAWN,), labelled.id)
    assert desk.pull().withdrawn == []
    assert desk.stored() == 3


def test_what_became_a_skip_is_taken_back(desk, make_solution):
    (solution,) = desk.push(make_solution(2))
    made = desk.studio.annotate(f"{solution.id}-1of1", [1, -1])
    desk.pull()
    made["was_cancelled"] = True
    assert len(desk.pull().withdrawn) == 1
    assert desk.current() == {("ann",)}


def test_a_solution_of_which_one_page_was_deleted_is_taken_back_and_incomplete(desk, make_solution):
    (solution,) = desk.push(make_solution(20))
    desk.studio.annotate(f"{solution.id}-1of2", [1] * 10)
    second = desk.studio.annotate(f"{solution.id}-2of2", [1] * 10)
    desk.pull()
    desk.studio.remove(second)
    done = desk.pull()
    assert (len(done.withdrawn), len(done.incomplete)) == (1, 1)
    desk.studio.annotate(f"{solution.id}-2of2", [0] * 10)
    assert desk.pull().stored == 1
    assert desk.current() == {("ann", *[1] * 10, *[0] * 10)}


@pytest.mark.parametrize("how", ["a second annotation is deleted again", "a skip is taken back"])
def test_labels_that_stand_again_are_current_again_and_stored_once(desk, make_solution, how):
    (solution,) = desk.push(make_solution(2))
    first = desk.studio.annotate(f"{solution.id}-1of1", [1, -1])
    desk.pull()
    if how.startswith("a second"):
        second = desk.studio.annotate(f"{solution.id}-1of1", [0, 0], at="2026-11-21T12:00:00Z")
        desk.pull()
        assert desk.current() == {("ann", 0, 0)}
        desk.studio.remove(second)
    else:
        first["was_cancelled"] = True
        desk.pull()
        assert desk.current() == {("ann",)}
        first["was_cancelled"] = False
    done = desk.pull()
    assert (done.stored, done.withdrawn, desk.current()) == (1, [], {("ann", 1, -1)})
    again = desk.pull()
    assert (again.stored, again.known, desk.stored()) == (0, 1, 3)


def test_tidying_up_tasks_takes_no_label_back(desk, make_solution):
    (solution,) = desk.push(make_solution(2))
    desk.studio.annotate(f"{solution.id}-1of1", [1, 1])
    desk.pull()
    desk.studio.rows.clear()
    done = desk.pull()
    assert (done.withdrawn, done.tasks_removed, desk.current()) == ([], 1, {("ann", 1, 1)})


def test_another_server_whose_project_has_the_same_number_takes_nothing_back(desk, make_solution):
    (solution,) = desk.push(make_solution(2))
    made = desk.studio.annotate(f"{solution.id}-1of1", [1, 1])
    desk.pull()
    desk.studio.remove(made)
    desk.project = dataclasses.replace(desk.project, made="another day")
    assert desk.pull().withdrawn == []
    desk.project = dataclasses.replace(desk.project, made="")
    assert desk.pull().withdrawn == []
    assert desk.current() == {("ann", 1, 1)}


def test_what_another_project_said_later_stays_and_the_two_do_not_take_turns(desk, make_solution):
    (solution,) = desk.push(make_solution(2))
    desk.studio.annotate(f"{solution.id}-1of1", [1, 1])
    desk.pull()
    later = Annotation.of(
        solution, Rater("human", "ann", "page-1-all"), [0, 0], time="2026-11-21T13:00:00Z",
        meta={"steps": 2, "label_studio": {"project": 9, "made": "x", "unique_ids": ["y"], "tasks": [1]}},
    )  # fmt: skip
    desk.ledger.append([later])
    done = desk.pull()
    assert (done.stored, done.withdrawn, desk.current()) == (0, [], {("ann", 0, 0)})


def test_people_who_are_called_otherwise_are_not_counted_twice(desk, make_solution):
    (solution,) = desk.push(make_solution(2))
    desk.studio.annotate(f"{solution.id}-1of1", [1, 1])
    desk.pull()
    assert desk.pull(name_of=lambda email: email).withdrawn == [{"solution": solution.id, "annotator": "ann"}]
    assert desk.current() == {("ann",), ("ann@example.org", 1, 1)}
