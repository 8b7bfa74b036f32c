import asyncio

import pytest

from labeling.judge.client import EndpointError, Patience
from labeling.judge.probe import EXAMPLE, noted_form, probe
from labeling.judge.structured import LADDER
from tests.labeling.judge.scripted_server import completion


def form_of(body):
    given = body.get("response_format", {"type": "text"})
    if given["type"] == "json_schema":
        return "json_schema_bounded" if "maxLength" in str(given) else "json_schema"
    return given["type"]


def probed(judge, forms=None):
    return asyncio.run(probe(judge.connection, judge.prompt, judge.settings, forms))


@pytest.mark.parametrize("honoured", LADDER)
@pytest.mark.parametrize(
    "otherwise",
    [
        {"status": 400, "body": {"error": "response_format is not supported"}},
        {"body": completion("")},
        {"body": completion("Sure! Step one is right.")},
    ],
    ids=["refuses", "says nothing", "ignores it"],
)
def test_the_first_form_that_is_honoured_is_found(scripted, judge_at, honoured, otherwise):
    def behaviour(number, steps, body):
        return {} if LADDER.index(form_of(body)) >= LADDER.index(honoured) else otherwise

    server = scripted(behaviour)
    assert probed(judge_at(server)) == honoured
    assert [form_of(body) for body in server.requests] == list(LADDER[: LADDER.index(honoured) + 1])


def test_it_is_asked_once_and_noted_for_this_endpoint_model_and_prompt(scripted, judge_at):
    server = scripted()
    judge = judge_at(server)
    assert noted_form(judge.connection, judge.prompt, "m") is None
    probed(judge)
    assert noted_form(judge.connection, judge.prompt, "m") == LADDER[0]
    assert noted_form(judge.connection, judge.prompt, "other") is None
    probed(judge)
    assert len(server.requests) == 1


def test_a_weak_model_that_writes_the_form_and_gets_ids_wrong_honours_it(scripted, judge_at):
    server = scripted(lambda number, steps, body: {"body": completion('{"steps": [{"id": "1"}]}')})
    assert probed(judge_at(server)) == LADDER[0]


def test_a_critic_answers_in_text(scripted, judge_at):
    server = scripted()
    assert probed(judge_at(server, prompt="processbench")) == "text"
    assert "response_format" not in server.requests[0]


def test_a_critic_that_is_held_to_a_schema_labels_by_its_index(scripted, judge_at):
    said = completion('{"analysis": "step 1 is off", "boxed_index": 1}')
    server = scripted(lambda number, steps, body: {"body": said})
    judge = judge_at(server, prompt="processbench", form="json_schema")
    assert probed(judge, ("json_schema",)) == "json_schema"
    (annotation,) = judge.label([EXAMPLE])
    assert [label.value for label in annotation.labels] == [1, -1]
    assert server.requests[-1]["response_format"]["json_schema"]["name"] == "first_error"


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_an_endpoint_that_answers_nothing_is_refused_before_the_run(scripted, judge_at, status):
    judge = judge_at(scripted(lambda number, steps, body: {"status": status}), patience=Patience(1.0, 9.0, attempts=1))
    with pytest.raises(EndpointError):
        probed(judge)


def test_nobody_there_is_told_with_the_reason(judge_at):
    judge = judge_at("http://127.0.0.1:9/v1", patience=Patience(1.0, 9.0, attempts=1))
    with pytest.raises(EndpointError, match="no answer to a test request"):
        probed(judge)
