import json
import sys
from contextlib import nullcontext
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from labeling.label_studio.interface import Page
from labeling.label_studio.projects import open_project
from labeling.label_studio.studio import KnownTask, Project
from pipelines import cli
from pipelines.label import studio as verbs
from pipelines.label import studio_inputs
from pipelines.label.studio_inputs import in_order, naming
from prm_kit.errors import InputError, UsageError
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, Solution


class Server:
    """A server that remembers tasks and exports what it is told to; the protocol is tested in tests/labeling."""

    url = "http://127.0.0.1:1/"

    def __init__(self):
        self.made, self.rows, self.exported = [], [], []

    def healthy(self):
        return True

    def projects(self):
        return self.made

    def create_project(self, title, description, guide, label_config, overlap):
        self.made.append(Project(1, title, description, label_config, overlap, 0))
        return self.made[0]

    def update_project(self, project, **changes):
        pass

    def tasks(self, project):
        return iter(KnownTask(n, t.uid, t.data["prm_hash"]) for n, t in enumerate(self.rows, 1))

    def predicted(self, project, by):
        return set()

    def import_tasks(self, project, tasks):
        self.rows += tasks
        return len(tasks)

    def export(self, project):
        yield json.dumps(self.exported).encode()

    def emails(self):
        return {1: "ann@example.org"}

    def invite_link(self):
        return "http://127.0.0.1:1/user/signup/?token=x"

    def label(self, number, values):
        results = [
            {"from_name": f"label_{i}", "to_name": f"step_{i}", "type": "choices", "value": {"choices": [str(value)]}}
            for i, value in enumerate(values)
        ]
        row = {"id": number, "completed_by": 1, "updated_by": 1, "was_cancelled": False, "lead_time": 8.0}
        row |= {"result": results, "created_at": "2026-11-21T10:00:00Z", "updated_at": "2026-11-21T10:00:00Z"}
        data = json.loads(json.dumps(self.rows[number - 1].data))
        self.exported.append({"id": number, "data": data, "annotations": [row | {"unique_id": f"u{number}"}]})


@pytest.fixture
def server(monkeypatch):
    fake = Server()
    for module in (verbs, studio_inputs):
        monkeypatch.setattr(module, "server_of", lambda *_: nullcontext(fake))
    return fake


def call(*words):
    done = CliRunner().invoke(cli.app, ["label", "studio", *map(str, words)])
    assert done.exit_code == 0, (done.stdout, done.stderr, done.exception)
    return done.stdout


def test_a_round_trip_brings_exactly_the_labels_into_the_ledger(server, data, tmp_path):
    ledger = tmp_path / "ledger.sqlite"
    pushed = json.loads(
        call("push", data / "test.jsonl", "-o", tmp_path / "push", "--ledger", ledger, "--limit", 5, "--json")
    )
    assert (pushed["solutions"], pushed["added"]) == (5, 5)
    server.label(2, [1, -1, 0])
    server.label(4, [1, 1, "?"])
    pulled = json.loads(call("pull", "-o", tmp_path / "pull", "--ledger", ledger, "--names", "email", "--json"))
    assert (pulled["stored"], pulled["refused"], pulled["labels"]["values"]) == (1, 1, {"-1": 1, "0": 1, "1": 1})
    (annotation,) = Ledger(ledger).current()
    assert annotation.solution_id == server.rows[1].data["prm_solution"]
    assert annotation.values(3) == (1, -1, 0)
    assert annotation.rater == Rater("human", "ann@example.org", "page-1-all")
    (refused,) = [json.loads(line) for line in (tmp_path / "pull" / "refused.jsonl").read_text().splitlines()]
    assert refused["solution"] == server.rows[3].data["prm_solution"]
    assert (tmp_path / "pull" / "export.json.gz").is_file()
    again = json.loads(call("pull", "-o", tmp_path / "again", "--ledger", ledger, "--names", "email", "--json"))
    assert (again["stored"], again["known"]) == (0, 1)
    shown = call("status", "--ledger", ledger)
    assert "ann@example.org" in shown
    assert json.loads(call("status", "--ledger", ledger, "--json"))["tasks_labelled"] == 1


def test_pages_that_are_missing_and_labels_that_are_gone_are_told_where_people_look(server, tmp_path):
    long = Solution.from_steps("long", [str(step) for step in range(20)])
    short = Solution.from_steps("short", ["a", "b"])
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.append((), [long, short])
    call("push", "-o", tmp_path / "push", "--ledger", path)
    server.made = [replace(server.made[0], made="today")]
    server.label(1, [1] * 10)
    server.label(3, [1, 1])
    pulled = json.loads(call("pull", "-o", tmp_path / "pull", "--ledger", path, "--json"))
    assert (pulled["stored"], pulled["incomplete"], pulled["withdrawn"]) == (1, 1, 0)
    entry = json.loads((tmp_path / "pull" / "incomplete.jsonl").read_text())
    assert (entry["solution"], [page["task"] for page in entry["pages"]]) == (long.id, [2])
    shown = call("status", "--ledger", path)
    assert "missing from ann@example.org: page 2 of 2: http://127.0.0.1:1/projects/1/data?task=2" in shown
    server.exported = [{**row, "annotations": []} for row in server.exported]
    pulled = json.loads(call("pull", "-o", tmp_path / "again", "--ledger", path, "--json"))
    assert (pulled["stored"], pulled["withdrawn"]) == (0, 1)
    assert json.loads((tmp_path / "again" / "withdrawn.jsonl").read_text())["solution"] == short.id


def test_a_queue_gives_the_order_and_the_choice(server, tmp_path):
    solutions = [Solution.from_steps(f"p{n}", ["a", "b"]) for n in range(4)]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.append((), solutions)
    queue = tmp_path / "queue.jsonl"
    rows = [{"solution_id": solutions[n].id, "rank": rank, "reason": "gold"} for rank, n in enumerate((3, 1))]
    queue.write_text("".join(json.dumps(row) + "\n" for row in rows))
    call("push", "-o", tmp_path / "push", "--ledger", tmp_path / "ledger.sqlite", "--queue", queue)
    assert [task.data["prm_solution"] for task in server.rows] == [solutions[3].id, solutions[1].id]
    assert "gold" not in json.dumps([task.data for task in server.rows])


@pytest.mark.parametrize(
    ("lines", "reason"),
    [("x", "queue.jsonl:1"), ('{"solution_id": ["a"]}', "queue.jsonl:1: not an object"),
     ('{"solution_id": "a"}', "queue.jsonl:1: solution a is neither in the inputs nor"),
     ('{"solution_id": "a"}\n{"solution_id": "a"}', "in line 1 already")],
)  # fmt: skip
def test_a_bad_queue_is_refused_with_its_line(tmp_path, lines, reason):
    (tmp_path / "queue.jsonl").write_text(lines)
    with Ledger(tmp_path / "ledger.sqlite") as ledger, pytest.raises(InputError, match=reason):
        in_order([], tmp_path / "queue.jsonl", ledger)


def test_a_queue_takes_gold_questions_from_the_ledger_and_sends_nothing_if_one_solution_is_nowhere(
    server, data, tmp_path
):
    gold = Solution.from_steps("a gold question", ["a", "b"])
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.append((), [gold])
    words = ["push", data / "test.jsonl", "-o", tmp_path / "push", "--ledger", tmp_path / "ledger.sqlite"]
    call(*words, "--limit", 1)
    known = server.rows[0].data["prm_solution"]
    server.rows, server.made = [], []
    queue = tmp_path / "queue.jsonl"
    queue.write_text("".join(json.dumps({"solution_id": name}) + "\n" for name in (known, gold.id, "nowhere")))
    done = CliRunner().invoke(cli.app, ["label", "studio", *map(str, words), "--queue", str(queue)])
    assert done.exit_code != 0
    assert "queue.jsonl:3: solution nowhere" in done.stderr
    assert (server.rows, server.made) == ([], [])
    queue.write_text("".join(json.dumps({"solution_id": name}) + "\n" for name in (known, gold.id)))
    call(*words, "--queue", queue)
    assert [task.data["prm_solution"] for task in server.rows] == [known, gold.id]


def test_predictions_come_from_the_rater_that_is_named_and_only_when_asked(server, tmp_path):
    solution = Solution.from_steps("p", ["a", "b"])
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.append([Annotation.of(solution, Rater("judge", "m", "1"), [1, -1])], [solution])
    words = ("push", "-o", tmp_path / "push", "--ledger", path)
    call(*words, "--project", "blind")
    server.rows, server.made = [], []
    call(*words, "--predictions", "judge:m")
    assert [result["value"]["choices"] for result in server.rows[0].prediction] == [["1"], ["-1"]]
    done = CliRunner().invoke(cli.app, ["label", "studio", *map(str, words), "--predictions", "judge:n"])
    assert done.exit_code == 2
    assert "judge:m" in done.stderr


def test_a_project_of_another_policy_is_wrong_use(server, data, tmp_path):
    open_project(server, "prm-kit", Page())
    words = ["label", "studio", "push", str(data / "test.jsonl"), "-o", str(tmp_path), "--policy", "first-error"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 2
    assert "fixed for a project" in done.stderr


def test_without_a_server_the_command_that_starts_one_is_named(tmp_path):
    done = CliRunner().invoke(cli.app, ["label", "studio", "invite", "--data", str(tmp_path)])
    assert done.exit_code == 2
    assert "label studio up" in done.stderr


def test_a_binding_beyond_this_machine_is_warned_of(monkeypatch, tmp_path):
    from labeling.label_studio import server as starting

    def up(data, say, port, host, public_url):
        raise UsageError("not here")

    monkeypatch.setattr(starting, "up", up)
    done = CliRunner().invoke(cli.app, ["label", "studio", "up", "--host", "0.0.0.0", "--data", str(tmp_path)])
    assert "TLS" in done.stderr
    assert "TLS" not in CliRunner().invoke(cli.app, ["label", "studio", "up", "--data", str(tmp_path)]).stderr


def test_people_are_called_as_asked(tmp_path):
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"ann@example.org": "A"}))
    assert naming("email")("ann@example.org") == "ann@example.org"
    assert naming("pseudonym")("ann@example.org").startswith("annotator-")
    assert naming(str(names))("ann@example.org") == "A"
    with pytest.raises(InputError, match="bob"):
        naming(str(names))("bob@example.org")
    with pytest.raises(UsageError, match="neither"):
        naming("nickname")


def test_the_help_loads_no_client():
    code = (
        "import sys, pipelines.cli, pipelines.label.studio; print([m for m in sys.modules if 'label_studio_sdk' in m])"
    )
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
