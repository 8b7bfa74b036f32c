import gzip

import pytest

from labeling.label_studio.export import ATTEMPTS
from labeling.label_studio.interface import Page
from labeling.label_studio.projects import open_project
from labeling.label_studio.pull import names_of, pseudonym, pull
from labeling.label_studio.push import push
from labeling.label_studio.status import status
from labeling.label_studio.studio import StudioDownError
from prm_kit.errors import InputError


class Desk:
    """A project, a ledger and the two commands."""

    def __init__(self, studio, ledger, folder, page=Page()):  # noqa: B008
        self.studio, self.ledger, self.page = studio, ledger, page
        self.project = open_project(studio, "steps", page)
        self.export = folder / "export.json.gz"

    def push(self, *solutions):
        push(self.studio, self.project, self.page, solutions, self.ledger)

    def pull(self, **fields):
        options = {"name_of": lambda email: email.split("@")[0], "patience": 1} | fields
        return pull(self.studio, self.project, self.page, self.ledger, self.export, **options)[0]

    def status(self):
        return status(
            self.studio, self.project, self.page, self.ledger.solution, self.export, lambda email: email.split("@")[0]
        )

    def labels(self):
        return {
            (a.solution_id, a.rater.name): [label.value for label in a.labels]
            for a in self.ledger.current()
            if a.rater.kind == "human"
        }


@pytest.fixture
def desk(studio, ledger, tmp_path):
    return Desk(studio, ledger, tmp_path)


def test_labels_arrive_with_who_when_and_where(desk, make_solution):
    solution = make_solution(3)
    desk.push(solution)
    row = desk.studio.annotate(f"{solution.id}-1of1", [1, 0, -1], user=2)
    done = desk.pull()
    (annotation,) = desk.ledger.current()
    assert annotation.values(3) == (1, 0, -1)
    assert (annotation.rater.kind, annotation.rater.name, annotation.rater.version) == ("human", "bob", "page-1-all")
    assert (annotation.time, annotation.lead_time) == ("2026-11-21T10:00:00.000Z", 12.5)
    assert annotation.meta["label_studio"]["unique_ids"] == [row["unique_id"]]
    assert (done.annotations, done.solutions, done.stored, done.by_annotator) == (1, 1, 1, {"bob": 1})


def test_pulling_twice_stores_nothing_again(desk, make_solution):
    solutions = [make_solution(n, str(n)) for n in (1, 3, 30)]
    desk.push(*solutions)
    for row in desk.studio.rows:
        desk.studio.annotate(row["data"]["prm_uid"], [1] * len(row["data"]["steps"]))
    assert desk.pull().stored == 3
    again = desk.pull()
    assert (again.stored, again.known) == (0, 3)
    assert len(list(desk.ledger.everything())) == 3


def test_a_change_of_mind_supersedes_what_was_pulled_before(desk, make_solution):
    solution = make_solution(2)
    desk.push(solution)
    row = desk.studio.annotate(f"{solution.id}-1of1", [1, 1])
    desk.pull()
    row["result"][1]["value"]["choices"] = ["-1"]
    row["updated_at"] = "2026-11-21T12:00:00.000000Z"
    assert desk.pull().stored == 1
    assert desk.labels() == {(solution.id, "ann"): [1, -1]}
    assert len(desk.ledger.history(solution.id)) == 2


def test_a_second_annotation_of_the_same_person_replaces_the_first_whatever_their_order(desk, make_solution):
    solution = make_solution(2)
    desk.push(solution)
    desk.studio.annotate(f"{solution.id}-1of1", [1, -1], at="2026-11-21T11:00:00Z")
    desk.studio.annotate(f"{solution.id}-1of1", [1, 1], at="2026-11-21T10:00:00Z")
    assert desk.pull().superseded == 1
    assert desk.labels() == {(solution.id, "ann"): [1, -1]}


def test_several_annotators_of_one_task_are_several_annotations(desk, make_solution):
    solution = make_solution(2)
    desk.push(solution)
    desk.studio.annotate(f"{solution.id}-1of1", [1, 1], user=1)
    desk.studio.annotate(f"{solution.id}-1of1", [1, -1], user=2)
    desk.pull()
    assert desk.labels() == {(solution.id, "ann"): [1, 1], (solution.id, "bob"): [1, -1]}


def test_skips_are_dropped_although_they_hold_labels(desk, make_solution):
    solution = make_solution(2)
    desk.push(solution)
    desk.studio.annotate(f"{solution.id}-1of1", [1, -1], was_cancelled=True)
    done = desk.pull()
    assert (done.stored, done.skipped, desk.labels()) == (0, {"ann": 1}, {})


def test_windows_of_different_people_are_reported_incomplete_and_not_mixed(desk, make_solution):
    solution = make_solution(20)
    desk.push(solution)
    desk.studio.annotate(f"{solution.id}-1of2", [1] * 10, user=1)
    desk.studio.annotate(f"{solution.id}-2of2", [-1] * 10, user=2)
    done = desk.pull()
    assert done.stored == 0
    assert [(entry["annotator"], entry["reason"]) for entry in done.incomplete] == [
        ("ann", "steps 10 to 19 are not labelled yet"),
        ("bob", "steps 0 to 9 are not labelled yet"),
    ]
    first, second = (row["id"] for row in desk.studio.rows)
    place = "http://127.0.0.1:1/projects/1/data?task="
    assert [entry["pages"] for entry in done.incomplete] == [
        [{"page": 2, "of": 2, "labelled_by": ["bob"], "task": second, "open": f"{place}{second}"}],
        [{"page": 1, "of": 2, "labelled_by": ["ann"], "task": first, "open": f"{place}{first}"}],
    ]
    assert desk.status()["incomplete"] == done.incomplete
    assert desk.pull(partial=True).stored == 2
    desk.studio.annotate(f"{solution.id}-2of2", [0] * 10, user=1)
    assert desk.pull().stored == 1
    assert desk.labels()[solution.id, "ann"] == [1] * 10 + [0] * 10


def test_an_annotation_of_a_changed_text_is_refused_and_listed(desk, make_solution):
    solution, other = make_solution(2, "p"), make_solution(2, "q")
    desk.push(solution, other)
    for pushed in (solution, other):
        desk.studio.annotate(f"{pushed.id}-1of1", [1, 1])
    desk.studio.rows[0]["data"]["steps"][1]["html"] = "something else"
    done = desk.pull()
    assert desk.labels() == {(other.id, "ann"): [1, 1]}
    (entry,) = done.refused
    assert entry["solution"] == solution.id
    assert entry["annotator"] == "ann"
    assert "changed on the server" in entry["reason"]


def test_an_annotation_of_a_solution_that_was_not_pushed_from_here_is_refused(desk, make_solution, tmp_path):
    from prm_kit.ledger import Ledger

    solution = make_solution(2)
    desk.push(solution)
    desk.studio.annotate(f"{solution.id}-1of1", [1, 1])
    desk.ledger = Ledger(tmp_path / "another.sqlite")
    assert "not in the ledger" in desk.pull().refused[0]["reason"]


def test_one_bad_annotation_stops_no_other(desk, make_solution):
    solutions = [make_solution(2, str(n)) for n in range(4)]
    desk.push(*solutions)
    uids = [f"{solution.id}-1of1" for solution in solutions]
    desk.studio.annotate(uids[0], ["nonsense", 1])
    desk.studio.annotate(uids[1], [1, None])
    desk.studio.annotate(uids[2], [1, 1], completed_by=None)
    desk.studio.annotate(uids[3], [0, -1])
    desk.studio.rows.append({"id": 99, "data": {"text": "not ours"}, "annotations": [{"id": 1}], "predictions": []})
    desk.studio.tasks = lambda project: iter(())
    done = desk.pull()
    assert desk.labels() == {(solutions[3].id, "ann"): [0, -1]}
    assert [entry["annotator"] for entry in done.refused] == ["ann", "nobody", "ann"]
    assert done.foreign_tasks == 1


def test_a_task_of_another_policy_is_refused(desk, make_solution, ledger, tmp_path):
    solution = make_solution(2)
    desk.push(solution)
    desk.studio.annotate(f"{solution.id}-1of1", [1, 1])
    desk.page = Page("first-error")
    assert "policy 'all', the project has 'first-error'" in desk.pull().refused[0]["reason"]


def test_an_edit_in_place_is_flagged_and_listed(desk, make_solution):
    solution = make_solution(2)
    desk.push(solution)
    desk.studio.annotate(f"{solution.id}-1of1", [1, 1], user=1, updated_by=2)
    done = desk.pull()
    assert done.edited == [{"solution": solution.id, "annotator": "ann", "by": ["bob"]}]
    assert next(desk.ledger.current()).flags == ("edited_by_other",)


def test_a_server_that_breaks_off_is_asked_again(desk, make_solution):
    solution = make_solution(2)
    desk.push(solution)
    desk.studio.annotate(f"{solution.id}-1of1", [1, 1])
    desk.studio.trouble = {"export": ["half", "before", "half"], "healthy": ["no"]}
    assert desk.pull().stored == 1


def test_a_server_that_keeps_breaking_off_stores_nothing_and_leaves_no_half_export(desk, make_solution):
    solution = make_solution(2)
    desk.push(solution)
    desk.studio.annotate(f"{solution.id}-1of1", [1, 1])
    desk.studio.trouble = {"export": ["half"] * ATTEMPTS}
    with pytest.raises(StudioDownError):
        desk.pull()
    assert desk.labels() == {}
    assert not desk.export.exists()


def test_the_export_is_kept_verbatim(desk, make_solution):
    solution = make_solution(2)
    desk.push(solution)
    desk.studio.annotate(f"{solution.id}-1of1", [1, 1])
    desk.pull()
    assert gzip.decompress(desk.export.read_bytes()) == b"".join(desk.studio.export(1))


def test_until_the_first_error_later_pages_are_submitted_empty(studio, ledger, tmp_path, make_solution):
    desk = Desk(studio, ledger, tmp_path, Page("first-error"))
    solution = make_solution(20)
    desk.push(solution)
    desk.studio.annotate(f"{solution.id}-1of2", [1, 1, -1])
    desk.studio.annotate(f"{solution.id}-2of2", [])
    assert desk.pull().stored == 1
    assert desk.labels() == {(solution.id, "ann"): [1, 1, -1]}


def test_two_people_cannot_have_one_name():
    with pytest.raises(InputError, match="several annotators"):
        names_of({1: "a@x", 2: "b@x"}, lambda email: "same", {1, 2})
    assert names_of({1: "a@x", 2: "b@x"}, lambda email: "same", {2, 7}) == {2: "same"}


def test_an_account_that_did_nothing_needs_no_name(desk, make_solution):
    table = {"ann@example.org": "A", "bob@example.org": "B"}  # and admin@localhost is in no such file
    desk.studio.accounts[3] = "admin@localhost"
    solutions = [make_solution(2, name) for name in "pqr"]
    desk.push(*solutions)
    uids = [f"{solution.id}-1of1" for solution in solutions]
    desk.studio.annotate(uids[0], [1, -1], user=1)
    desk.studio.annotate(uids[1], ["x"], user={"id": 2})
    assert desk.pull(name_of=table.__getitem__).by_annotator == {"A": 1}
    assert status(desk.studio, desk.project, desk.page, desk.ledger.solution, desk.export, table.__getitem__)
    desk.studio.annotate(uids[2], [1, 1], user=1, updated_by=3)
    with pytest.raises(KeyError, match="admin@localhost"):
        desk.pull(name_of=table.__getitem__)


def test_a_pseudonym_does_not_show_the_address_and_is_the_same_for_it():
    assert pseudonym("Ann@Example.org") == pseudonym("ann@example.org ")
    assert pseudonym("ann@example.org") != pseudonym("bob@example.org")
    assert "ann@" not in pseudonym("ann@example.org")


def test_status_counts_pages_labels_and_skips_by_annotator_and_stores_nothing(desk, make_solution):
    solutions = [make_solution(20), make_solution(2, "q")]
    desk.push(*solutions)
    desk.studio.annotate(f"{solutions[0].id}-1of2", [1] * 9 + [-1], lead_time=20.0)
    desk.studio.annotate(f"{solutions[1].id}-1of1", [1, 0], lead_time=10.0)
    desk.studio.annotate(f"{solutions[1].id}-1of1", [1, 0], user=2, was_cancelled=True)
    desk.studio.annotate(f"{solutions[1].id}-1of1", ["x"], user=2)
    found = status(
        desk.studio, desk.project, desk.page, desk.ledger.solution, desk.export, lambda email: email.split("@")[0]
    )
    assert found["tasks_labelled"] == found["tasks_finished"] == 2
    ann, bob = found["annotators"]
    # 20 s over 10 steps and 10 s over 2 steps: the median of 2 and 5
    assert ann == {
        "annotator": "ann", "windows": 2, "labels": {"-1": 1, "0": 1, "1": 10}, "skipped": 0, "refused": 0,
        "seconds_per_step": 3.5, "last": "2026-11-21T10:00:00.000Z",
    }  # fmt: skip
    assert (bob["windows"], bob["skipped"], bob["refused"]) == (0, 1, 1)
    assert desk.labels() == {}
