import pytest

from labeling.label_studio.interface import Page, configuration
from labeling.label_studio.projects import find_project, open_project
from labeling.label_studio.push import ATTEMPTS, push
from labeling.label_studio.studio import Project, StudioDownError
from prm_kit.errors import UsageError
from prm_kit.records import Annotation, Rater, Solution

PAGE = Page()


@pytest.fixture
def project(studio):
    return open_project(studio, "steps", PAGE)


def uids(studio):
    return [row["data"]["prm_uid"] for row in studio.rows]


def test_solutions_arrive_in_the_order_given_cut_into_windows(studio, project, ledger, make_solution):
    solutions = [make_solution(3, "b"), make_solution(30, "a"), make_solution(2, "c")]
    done = push(studio, project, PAGE, solutions, ledger, batch=2)
    b, a, c = (solution.id for solution in solutions)
    assert uids(studio) == [f"{b}-1of1", f"{a}-1of3", f"{a}-2of3", f"{a}-3of3", f"{c}-1of1"]
    assert (done.solutions, done.tasks, done.added, done.known) == (3, 5, 5, 0)
    assert [solution.id for solution in ledger.solutions()] == [b, a, c]


def test_the_pages_of_a_solution_are_sent_together_so_that_a_broken_push_leaves_none_behind(
    studio, project, ledger, make_solution
):
    solutions = [make_solution(n, str(n)) for n in (2, 30, 20, 3)]  # 1, 3, 2 and 1 pages
    studio.trouble["import_tasks"] = [None, *["before"] * ATTEMPTS]
    with pytest.raises(StudioDownError):
        push(studio, project, PAGE, solutions, ledger, batch=2, patience=0)
    assert len(uids(studio)) == 4  # a request is full at two tasks, and the second solution had begun
    push(studio, project, PAGE, solutions[::-1], ledger)
    places = {}
    for place, uid in enumerate(uids(studio)):
        places.setdefault(uid.split("-")[0], []).append(place)
    assert all(found == list(range(found[0], found[0] + len(found))) for found in places.values())


def test_pushing_twice_adds_nothing(studio, project, ledger, make_solution):
    solutions = [make_solution(n, str(n)) for n in (3, 20)]
    push(studio, project, PAGE, solutions, ledger)
    before = uids(studio)
    done = push(studio, project, PAGE, [*solutions, make_solution(1, "new")], ledger)
    assert (done.added, done.known) == (1, 3)
    assert uids(studio)[:3] == before


def test_the_same_solution_given_twice_is_one_task(studio, project, ledger, make_solution):
    solution = make_solution(3)
    assert push(studio, project, PAGE, [solution] * 3, ledger, batch=2).added == 1
    assert len(studio.rows) == 1


def test_a_changed_text_is_another_task_and_the_old_one_stays(studio, project, ledger):
    old, new = (Solution.from_steps("p", ["a", text]) for text in ("b", "b!"))
    push(studio, project, PAGE, [old], ledger)
    push(studio, project, PAGE, [new], ledger)
    assert uids(studio) == [f"{old.id}-1of1", f"{new.id}-1of1"]


def test_a_task_that_would_show_something_else_today_stays_and_is_listed(studio, project, ledger):
    old, new = (Solution.from_steps("p", ["a"], reference_answer=answer) for answer in ("4", "5"))
    assert old.id == new.id
    push(studio, project, PAGE, [old], ledger)
    done = push(studio, project, PAGE, [new], ledger)
    assert (done.added, done.differing) == (0, [f"{old.id}-1of1"])
    assert "4" in studio.rows[0]["data"]["reference_html"]


@pytest.mark.parametrize("trouble", [["before"], ["after"], ["half"], ["half", "after", "before"]])
def test_a_server_that_breaks_off_loses_and_doubles_nothing(studio, project, ledger, make_solution, trouble):
    solutions = [make_solution(3, str(n)) for n in range(10)]
    studio.trouble = {"import_tasks": [None, *trouble], "healthy": ["no"]}
    done = push(studio, project, PAGE, solutions, ledger, batch=4)
    assert uids(studio) == [f"{solution.id}-1of1" for solution in solutions]
    assert (done.added, done.retries) == (10, len(trouble))


def test_a_listing_that_breaks_off_is_asked_for_again(studio, project, ledger, make_solution):
    solutions = [make_solution(3, str(n)) for n in range(4)]
    push(studio, project, PAGE, solutions, ledger)
    studio.trouble = {"tasks": ["half", "before"]}
    assert push(studio, project, PAGE, solutions, ledger).added == 0
    assert len(studio.rows) == 4


def test_a_server_that_keeps_breaking_off_ends_the_push_and_the_next_one_goes_on(
    studio, project, ledger, make_solution
):
    solutions = [make_solution(3, str(n)) for n in range(4)]
    studio.trouble = {"import_tasks": [None] + ["before"] * ATTEMPTS}
    with pytest.raises(StudioDownError):
        push(studio, project, PAGE, solutions, ledger, batch=2)
    assert len(studio.rows) == 2
    assert push(studio, project, PAGE, solutions, ledger, batch=2).added == 2
    assert len(set(uids(studio))) == 4


def test_a_request_that_was_stored_late_is_not_left_twice(studio, project, ledger, make_solution):
    solution = make_solution(3)

    class Late(type(studio)):
        """The lost request is stored only after the second look."""

        def import_tasks(self, project, tasks):
            count = super().import_tasks(project, tasks)
            if self.calls.count("import_tasks") == 1:
                self.hidden, self.rows = self.rows, []
                raise StudioDownError("timed out")
            self.rows += self.hidden
            return count

    late = Late()
    late.made = studio.made
    done = push(late, project, PAGE, [solution], ledger)
    assert done.duplicates_removed == 1
    assert uids(late) == [f"{solution.id}-1of1"]


def test_predictions_go_along_only_when_given_and_only_labels_that_there_are(studio, project, ledger, make_solution):
    solution = make_solution(16)
    judge = Annotation.of(solution, Rater("judge", "m", "v1"), [1] * 8 + [-1] + [None] * 7)
    push(studio, project, PAGE, [solution], ledger)
    assert all(row["predictions"] == [] for row in studio.rows)
    studio.trouble = {"predict": ["after", "before"]}
    done = push(studio, project, PAGE, [solution], ledger, {solution.id: judge})  # for tasks that are there
    assert (done.predictions, done.retries) == (2, 2)
    (first,), (second,) = (row["predictions"] for row in studio.rows)
    assert first["by"] == "judge:m"
    assert [(r["from_name"], r["value"]["choices"]) for r in first["result"]] == [
        (f"label_{column}", ["1"]) for column in range(8)
    ]
    assert [(r["from_name"], r["value"]["choices"]) for r in second["result"]] == [("label_0", ["-1"])]
    assert studio.changes[-1] == {"predictions_by": "judge:m"}
    assert push(studio, project, PAGE, [solution], ledger, {solution.id: judge}).predictions == 0


def test_a_solution_without_steps_is_listed_and_the_others_go(studio, project, ledger, make_solution):
    empty = Solution("p", "c", ())
    done = push(studio, project, PAGE, [empty, make_solution(2)], ledger)
    assert list(done.skipped) == [empty.id]
    assert done.added == 1


def test_a_project_is_found_again_and_its_settings_are_fixed(studio, project):
    assert open_project(studio, "steps", PAGE).id == project.id
    with pytest.raises(UsageError, match="has policy 'all', which is fixed"):
        open_project(studio, "steps", Page("first-error"))
    with pytest.raises(UsageError, match="keyboard"):
        open_project(studio, "steps", Page(keyboard="azerty"))
    with pytest.raises(UsageError, match="three characters"):
        open_project(studio, "ab", PAGE)
    with pytest.raises(UsageError, match="Did you mean 'steps'"):
        find_project(studio, "stesp")


def test_an_older_page_is_brought_up_to_date_and_the_overlap_raised(studio):
    studio.made = [Project(4, "steps", PAGE.description(), "<View/>", 1, 0)]
    open_project(studio, "steps", PAGE, overlap=2)
    assert studio.changes[0]["label_config"] == configuration(PAGE)
    assert studio.changes[1] == {"overlap": 2}


def test_somebody_elses_project_and_one_of_two_namesakes_are_refused(studio):
    studio.made = [Project(1, "theirs", "about cats", "", 1, 0)]
    with pytest.raises(UsageError, match="mark"):
        open_project(studio, "theirs", PAGE)
    studio.made = [Project(n, "twins", PAGE.description(), "", 1, 0) for n in (1, 2)]
    with pytest.raises(UsageError, match="numbers 1, 2"):
        open_project(studio, "twins", PAGE)
