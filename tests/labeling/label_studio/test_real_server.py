"""The same promises against a real Label Studio: `pytest -m label_studio`, see .ci/label_studio.sh."""

import gzip
import json
import os
import re
import signal
import stat
import threading
import time

import pytest

from labeling.label_studio import server
from labeling.label_studio.client import SdkStudio
from labeling.label_studio.interface import Page
from labeling.label_studio.projects import find_project, open_project
from labeling.label_studio.pull import pull
from labeling.label_studio.push import push
from labeling.label_studio.status import status
from labeling.label_studio.studio import StudioError, wait_until_healthy
from prm_kit.records import Annotation, Rater

pytestmark = [
    pytest.mark.label_studio,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated"),  # inside label-studio-sdk
]
PAGE = Page()


@pytest.fixture(scope="module")
def client(real_server):
    with SdkStudio(real_server.url, real_server.credentials.token) as opened:
        yield opened


def name_of(email):
    return email.split("@")[0]


def label(client, task, values, **fields):
    """Label a task through the API, which stores anything."""
    result = [
        {"from_name": f"label_{i}", "to_name": f"step_{i}", "type": "choices", "value": {"choices": [str(value)]}}
        for i, value in enumerate(values)
        if value is not None
    ]
    return client._sdk.annotations.create(id=task, result=result, lead_time=2.5, **fields)


def tasks_by_uid(client, project):
    return {task.uid: task.id for task in client.tasks(project.id)}


def web_session(running):
    """A browser's session without a browser."""
    import httpx

    return httpx.Client(base_url=running.url, follow_redirects=True, timeout=60)


def post_form(web, path, **fields):
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', web.get(path).text)[1]
    answer = web.post(path, data={"csrfmiddlewaretoken": token, **fields}, headers={"Referer": str(web.base_url)})
    assert answer.status_code == 200, answer.status_code


@pytest.fixture(scope="module")
def bob(real_server, client):
    """The server as a second annotator sees it, who came by the invitation."""
    with web_session(real_server) as web:
        path = client.invite_link().removeprefix(real_server.url)
        post_form(web, path, email="bob@localhost.localdomain", password="a long password 1", allow_newsletters="")
        token = web.get("/api/current-user/token").json()["token"]
    with SdkStudio(real_server.url, token) as opened:
        yield opened


def test_the_server_is_private_and_starting_it_again_finds_it(real_server):
    assert stat.S_IMODE((real_server.data / "credentials.json").stat().st_mode) == 0o600
    assert real_server.host == "127.0.0.1"
    again, started = server.up(real_server.data, print)
    assert (again, started) == (real_server, False)
    log = (real_server.data / "server.log").read_text(errors="replace")
    assert real_server.credentials.password not in log
    assert real_server.credentials.token not in log


def test_a_stranger_cannot_sign_up_and_a_wrong_token_is_refused_without_secrets(real_server):
    with web_session(real_server) as web, pytest.raises(AssertionError, match="403"):
        post_form(web, "/user/signup/?token=guess", email="eve@localhost.localdomain", password="a long password 1")
    with (
        SdkStudio(real_server.url, "0" * 40) as studio,
        pytest.raises(StudioError, match="is the token right") as caught,
    ):
        studio.projects()
    assert "cookie" not in str(caught.value).lower()


def test_a_round_trip_with_two_annotators_skips_edits_and_nonsense(client, ledger, tmp_path, bob, make_solution):
    solutions = [make_solution(n, f"p{n}") for n in (3, 14, 30, 2)]
    project = open_project(client, "round trip", PAGE, overlap=2)
    assert push(client, project, PAGE, solutions, ledger).added == 6
    assert push(client, open_project(client, "round trip", PAGE), PAGE, solutions, ledger).added == 0
    numbers = tasks_by_uid(client, project)
    assert list(numbers) == [
        f"{solution.id}-{part}"
        for solution, parts in zip(solutions, (["1of1"], ["1of1"], ["1of3", "2of3", "3of3"], ["1of1"]), strict=True)
        for part in parts
    ]
    three, fourteen, thirty, two = solutions
    parts = [label(bob, numbers[f"{thirty.id}-{part}of3"], [1] * 9 + [-1]) for part in (1, 2, 3)]
    admins = label(client, numbers[f"{three.id}-1of1"], [1, 0, -1])
    label(bob, numbers[f"{three.id}-1of1"], [1, 1, 1])
    label(client, numbers[f"{fourteen.id}-1of1"], [1] * 13 + ["nonsense"])
    label(bob, numbers[f"{fourteen.id}-1of1"], [1] * 14, was_cancelled=True)
    edited = label(bob, numbers[f"{two.id}-1of1"], [1, 1])
    client._sdk.annotations.update(edited.id, result=edited.result, lead_time=9)

    done, _ = pull(client, find_project(client, "round trip"), PAGE, ledger, tmp_path / "e.json.gz", name_of)

    found = {(a.solution_id, a.rater.name): a for a in ledger.current()}
    assert {key: a.values(len(a.labels)) for key, a in found.items()} == {
        (three.id, "admin"): (1, 0, -1),
        (three.id, "bob"): (1, 1, 1),
        (thirty.id, "bob"): ((1,) * 9 + (-1,)) * 3,
        (two.id, "bob"): (1, 1),
    }
    assert found[two.id, "bob"].flags == ("edited_by_other",)
    assert (done.stored, done.skipped, len(done.refused), len(done.edited)) == (4, {"bob": 1}, 1, 1)
    assert "nonsense" in done.refused[0]["reason"]
    again, _ = pull(client, project, PAGE, ledger, tmp_path / "e.json.gz", name_of)
    assert (again.stored, again.known) == (0, 4)
    people = status(client, find_project(client, "round trip"), PAGE, ledger.solution, tmp_path / "s.gz", name_of)
    assert [(row["annotator"], row["windows"], row["skipped"]) for row in people["annotators"]] == [
        ("admin", 1, 0),
        ("bob", 5, 1),
    ]
    assert (people["tasks"], people["tasks_finished"], people["overlap"]) == (6, 1, 2)
    assert people["incomplete"] == []

    client._sdk.annotations.delete(parts[2].id)
    client._sdk.annotations.update(admins.id, was_cancelled=True)
    gone, _ = pull(client, project, PAGE, ledger, tmp_path / "e.json.gz", name_of)
    assert {(row["solution"], row["annotator"]) for row in gone.withdrawn} == {(thirty.id, "bob"), (three.id, "admin")}
    assert {(a.solution_id, a.rater.name) for a in ledger.current() if a.labels} == {(three.id, "bob"), (two.id, "bob")}
    (entry,) = gone.incomplete
    (missing,) = entry["pages"]
    assert (entry["annotator"], missing["page"], missing["task"]) == ("bob", 3, numbers[f"{thirty.id}-3of3"])
    assert missing["open"].startswith(client.url)


def test_a_task_that_was_edited_on_the_server_is_refused(client, ledger, tmp_path, make_solution):
    solution = make_solution(3, "edited")
    project = open_project(client, "edited text", PAGE)
    push(client, project, PAGE, [solution], ledger)
    ((number),) = tasks_by_uid(client, project).values()
    label(client, number, [1, 1, 1])
    data = client._sdk.tasks.get(str(number)).data
    data["steps"][0]["html"] = "another text"
    client._sdk.tasks.update(str(number), data=data)
    done, _ = pull(client, project, PAGE, ledger, tmp_path / "e.json.gz", name_of)
    assert "changed on the server" in done.refused[0]["reason"]
    assert list(ledger.current()) == []


def test_predictions_are_stored_for_new_and_for_known_tasks(client, ledger, make_solution):
    solutions = [make_solution(2, f"predicted {n}") for n in range(2)]
    project = open_project(client, "predicted", PAGE)
    judged = {s.id: Annotation.of(s, Rater("judge", "m", "v1"), [1, -1]) for s in solutions}
    push(client, project, PAGE, solutions[:1], ledger)
    assert push(client, project, PAGE, solutions, ledger, judged).predictions == 2
    assert client.predicted(project.id, "judge:m") == {task.id for task in client.tasks(project.id)}
    assert push(client, project, PAGE, solutions, ledger, judged).predictions == 0


def test_a_personal_access_token_works_like_a_legacy_one(real_server, client):
    account = real_server.credentials
    with web_session(real_server) as web:
        post_form(web, "/user/login/", email=account.email, password=account.password)
        headers = {"X-CSRFToken": web.cookies["csrftoken"], "Referer": real_server.url}
        token = web.post("/api/token/", headers=headers).json()["token"]
    assert len(token) > 100
    with SdkStudio(real_server.url, token) as studio:
        assert [project.id for project in studio.projects()] == [project.id for project in client.projects()]


def kill_and_restart(running, pause=0.0):
    """As a machine would: no goodbye. It comes back on the same port."""
    os.kill(running.pid, signal.SIGKILL)
    time.sleep(pause)
    server.down(running.data)
    return server.up(running.data, print, running.port)[0]


def test_a_server_killed_in_the_middle_of_a_push_loses_and_doubles_nothing(real_server, client, ledger, make_solution):
    solutions = [make_solution(5, f"pushed {n}") for n in range(60)]
    project = open_project(client, "killed push", PAGE)
    restarts = []

    def progress(stage, done, total, note):
        if not restarts:
            now = server.running(real_server.data)
            restarts.append(threading.Thread(target=kill_and_restart, args=(now,)))
            restarts[0].start()

    done = push(client, project, PAGE, solutions, ledger, progress=progress, batch=10)
    restarts[0].join()
    assert [task.uid for task in client.tasks(project.id)] == [f"{solution.id}-1of1" for solution in solutions]
    assert done.retries >= 1


def test_a_server_killed_in_the_middle_of_a_pull_loses_nothing(real_server, client, ledger, tmp_path, make_solution):
    solutions = [make_solution(3, f"pulled {n}") for n in range(20)]
    project = open_project(client, "killed pull", PAGE)
    push(client, project, PAGE, solutions, ledger)
    for number in tasks_by_uid(client, project).values():
        label(client, number, [1, 0, -1])
    original, restarts = client.export, []

    def export(project):
        pieces = original(project)
        if not restarts:
            restarts.append(threading.Thread(target=kill_and_restart, args=(server.running(real_server.data), 1.0)))
            restarts[0].start()
            time.sleep(0.5)
        yield from pieces

    client.export = export
    try:
        done, _ = pull(client, project, PAGE, ledger, tmp_path / "e.json.gz", name_of)
    finally:
        client.export = original
        restarts[0].join()
    assert done.stored == 20
    assert len(json.loads(gzip.decompress((tmp_path / "e.json.gz").read_bytes()))) == 20
    wait_until_healthy(client, 60)
