"""A Label Studio server that lives in memory: it stores everything and checks nothing, like the real one."""

import itertools
import json

import pytest

from labeling.label_studio.studio import KnownTask, Project, StudioDownError
from prm_kit.ledger import Ledger
from prm_kit.records import Solution


class FakeStudio:
    """Implements `studio.Studio`. `trouble` holds what happens to the next calls of a method, one entry a call:
    None (works), "before" (breaks off before it is done), "after" (done, but the answer is lost), "half" (an import
    that stored half, an export that ends early)."""

    url = "http://127.0.0.1:1/"

    def __init__(self):
        self.made = []
        self.rows = []
        self.accounts = {1: "ann@example.org", 2: "bob@example.org"}
        self.trouble = {}
        self.calls = []
        self.changes = []
        self._numbers = itertools.count(1)

    def _meet(self, name):
        self.calls.append(name)
        queue = self.trouble.get(name, [])
        what = queue.pop(0) if queue else None
        if what == "before":
            raise StudioDownError(f"{name}: connection refused")
        return what

    def healthy(self):
        return self._meet("healthy") is None

    def projects(self):
        self._meet("projects")
        return list(self.made)

    def create_project(self, title, description, guide, label_config, overlap):
        project = Project(len(self.made) + 1, title, description, label_config, overlap, 0, "2026-11-21")
        self.made.append(project)
        return project

    def update_project(self, project, **changes):
        self.changes.append(changes)

    def tasks(self, project):
        what = self._meet("tasks")
        for number, row in enumerate(self.rows):
            if what == "half" and number == len(self.rows) // 2:
                raise StudioDownError("tasks: broke off")
            data = row["data"]
            yield KnownTask(row["id"], data["prm_uid"], data["prm_hash"], len(row["annotations"]))

    def predicted(self, project, by):
        return {row["id"] for row in self.rows if any(found["by"] == by for found in row["predictions"])}

    def import_tasks(self, project, tasks):
        what = self._meet("import_tasks")
        stored = tasks[: len(tasks) // 2] if what == "half" else tasks
        for task in stored:
            data = json.loads(json.dumps(task.data))
            predictions = [{"result": list(task.prediction), "by": task.predicted_by}] if task.prediction else []
            self.rows.append({"id": next(self._numbers), "data": data, "annotations": [], "predictions": predictions})
        if what in ("after", "half"):
            raise StudioDownError("import_tasks: the answer was lost")
        return len(stored)

    def predict(self, number, task):
        what = self._meet("predict")
        row = next(row for row in self.rows if row["id"] == number)
        row["predictions"].append({"result": list(task.prediction), "by": task.predicted_by})
        if what == "after":
            raise StudioDownError("predict: the answer was lost")

    def delete_tasks(self, project, tasks):
        self.rows = [row for row in self.rows if row["id"] not in tasks]

    def export(self, project):
        what = self._meet("export")
        text = json.dumps([row for row in self.rows if row["annotations"]]).encode()
        if what == "half":
            yield text[: len(text) // 2]
            return
        yield text[:100]
        yield text[100:]

    def emails(self):
        return dict(self.accounts)

    def invite_link(self):
        return "http://127.0.0.1:1/user/signup/?token=x"

    def remove(self, annotation):
        for row in self.rows:
            row["annotations"] = [there for there in row["annotations"] if there is not annotation]

    def annotate(self, uid, values, user=1, at="2026-11-21T10:00:00.000000Z", **fields):
        """Label a task as the page does: `values` by column, None leaves the step open."""
        row = next(row for row in self.rows if row["data"]["prm_uid"] == uid)
        made = annotation(values, user, at, next(self._numbers), **fields)
        row["annotations"].append(made)
        return made


def annotation(values, user=1, at="2026-11-21T10:00:00.000000Z", number=7, results=(), **fields):
    """An exported annotation, written down after a recorded one of Label Studio 1.23.2."""
    labels = [
        {
            "id": f"r{column}",
            "type": "choices",
            "value": {"choices": [str(value)]},
            "origin": "manual",
            "to_name": f"step_{column}",
            "from_name": f"label_{column}",
        }
        for column, value in enumerate(values)
        if value is not None
    ]
    return {
        "id": number,
        "completed_by": user,
        "result": [*labels, *results],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": at,
        "updated_at": at,
        "draft_created_at": None,
        "lead_time": 12.5,
        "prediction": {},
        "result_count": len(labels),
        "unique_id": f"00000000-0000-4000-8000-{number:012d}",
        "import_id": None,
        "last_action": None,
        "bulk_created": False,
        "task": 1,
        "project": 1,
        "updated_by": user,
        "parent_prediction": None,
        "parent_annotation": None,
        "last_created_by": None,
    } | fields


def solution_of(n_steps, name="p"):
    steps = [f"step {i} of {name}: ${i}^2 = {i * i}$" for i in range(n_steps)]
    return Solution.from_steps(f"Problem {name}", steps, final_answer="4", reference_answer="5")


@pytest.fixture
def studio():
    return FakeStudio()


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


@pytest.fixture
def make_annotation():
    return annotation


@pytest.fixture
def make_solution():
    return solution_of


@pytest.fixture(scope="module")
def real_server(tmp_path_factory):
    """A real Label Studio on an empty database, stopped at the end. Needs `pytest -m label_studio`."""
    from labeling.label_studio import server

    data = tmp_path_factory.mktemp("label-studio")
    found, started = server.up(data, print)
    assert started
    yield found
    server.down(data)
