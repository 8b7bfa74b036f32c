import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from prm_kit.errors import InputError
from prm_kit.serve.app import create_app
from prm_kit.serve.rewards import after_prompt, problem_in, rollout, without_final_tokens
from prm_kit.serve.settings import ServeSettings

EXCHANGE = json.loads((Path(__file__).parent / "recorded" / "openrlhf.json").read_text(encoding="utf-8"))


@pytest.fixture
def client(lengths):
    with TestClient(create_app(lengths), base_url="http://127.0.0.1") as client:
        yield client


def test_the_openrlhf_exchange_is_answered_as_its_agent_reads_it(client):
    answer = client.post("/get_reward?aggregate=min", json=EXCHANGE["request"])
    assert answer.status_code == 200, answer.text
    # "Step 2: So it is 5." has 19 characters, so p(-1) = 0.19; "Step 1: 2 + 3 = 5." 18; "It is 5." 8.
    assert answer.json() == EXCHANGE["response"]
    figures = client.get("/metrics").text
    assert 'prm_kit_failures_total{kind="unreadable"} 2.0' in figures  # null, and counted; never 0


def test_rollouts_are_read_into_problem_and_steps():
    request = EXCHANGE["request"]
    for query, prompt, label, wanted in zip(*request.values(), EXCHANGE["solutions"], strict=True):
        if wanted is None:
            with pytest.raises(InputError):
                rollout(query, prompt, label)
        else:
            solution = rollout(query, prompt, label)
            assert [solution.problem, list(solution.steps)] == wanted
            assert solution.reference_answer == label


def test_a_rollout_that_the_scorer_refuses_is_null_and_its_neighbours_are_not(client):
    body = {"query": ["p\nrefused", "p\ngood", "p\nbroken"], "prompts": ["p\n"] * 3}
    found = client.post("/get_reward?aggregate=last", json=body).json()
    assert found["rewards"] == [None, 0.96, None]
    assert found["extra_logs"]["prm_failed"] == [1.0, 0.0, 1.0]


def test_a_rollout_beyond_the_limits_is_null(lengths):
    settings = ServeSettings(max_characters=30, max_tokens=8)
    with TestClient(create_app(lengths, settings), base_url="http://127.0.0.1") as client:
        body = {"query": ["p" + "a" * 40, "p" + "a" * 27, "pa"], "prompts": ["p"] * 3}
        assert client.post("/get_reward", json=body).json()["rewards"] == [None, None, 0.99]
        assert 'prm_kit_failures_total{kind="too large"} 2.0' in client.get("/metrics").text


def test_a_rollout_whose_tokens_cannot_be_counted_is_null_and_its_neighbours_are_not(lengths):
    def count(solutions):
        if any("uncountable" in one.steps for one in solutions):
            raise InputError("step 0 holds what no tokenizer takes")
        if any("crash" in one.steps for one in solutions):
            raise RuntimeError("broken at /secret/path")
        return [1] * len(solutions)

    with TestClient(create_app(lengths, count_tokens=count), base_url="http://127.0.0.1") as client:
        body = {"query": ["p\nuncountable", "p\ngood", "p\ncrash"], "prompts": ["p\n"] * 3}
        found = client.post("/get_reward?aggregate=last", json=body).json()
        assert found["rewards"] == [None, 0.96, None]
        assert found["extra_logs"]["prm_failed"] == [1.0, 0.0, 1.0]
        figures = client.get("/metrics").text
        assert 'failures_total{kind="refused"} 1.0' in figures
        assert 'failures_total{kind="error"} 1.0' in figures
        items = [{"problem": "p", "steps": [step]} for step in ("good", "uncountable")]
        failure = client.post("/v1/score", json={"items": items})
        assert failure.status_code == 422
        assert failure.json()["details"] == [{"where": "items.1", "reason": "step 0 holds what no tokenizer takes"}]


@pytest.mark.parametrize("body", [{"query": ["a"], "prompts": []}, {"query": ["a"]}, {"query": "a", "prompts": "a"}])
def test_lists_of_different_lengths_are_refused(client, body):
    assert client.post("/get_reward", json=body).status_code == 422


def test_an_unknown_aggregation_is_refused(client):
    assert client.post("/get_reward?aggregate=sum", json=EXCHANGE["request"]).status_code == 422


def test_slime_gets_one_number_or_null(client):
    prompt = "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n"
    body = {"prompt": prompt, "response": "It is 5.<|im_end|>", "label": "5", "metadata": {}}
    assert client.post("/slime", json=body).json() == 0.92
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "What is 2 + 3?"}]
    assert client.post("/slime", json=body | {"prompt": chat}).json() == 0.92
    assert client.post("/slime", json=body | {"response": " <|im_end|>"}).json() is None


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nP\nq<|im_end|>\n<|im_start|>assistant\n", "P\nq"),
        ("<|im_start|>user\nold<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\nP<|im_end|>\n", "P"),
        (
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nP<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "P",
        ),
        ("<s>[INST] P [/INST]", "P"),
        ("<bos><start_of_turn>user\nP<end_of_turn>\n<start_of_turn>model\n", "P"),
        ("<｜begin▁of▁sentence｜><｜User｜>P<｜Assistant｜><think>\n", "P"),
        ("<|endoftext|><|user|>\nP\n<|assistant|>\n", "P"),
        ("<s>P\n", "P"),
        ("P if x < 3 | y > 2", "P if x < 3 | y > 2"),
    ],
)
def test_the_problem_is_what_the_user_asks(prompt, problem):
    assert problem_in(prompt) == problem


@pytest.mark.parametrize(
    ("query", "prompt", "response"),
    [
        ("P\nanswer", "P\n", "answer"),
        ("<s> P\nanswer", "P\n", "answer"),  # decoding has put a token before it
        ("<s><s> P answer", "<s>P", "answer"),  # twice, and a space
        ("P , q answer", "P, q", "answer"),  # white space cleaned up
        ("<|begin_of_text|>P  answer", "<|begin_of_text|>P  ", "answer"),
        ("Q answer", "P", None),
        ("P", "P and more", None),  # the prompt was cut
    ],
)
def test_the_response_is_what_follows_the_prompt(query, prompt, response):
    assert after_prompt(query, prompt) == response


@given(st.text(alphabet="ab \n<|s>"), st.text(alphabet="ab \n<|s>"))
def test_a_query_that_begins_with_its_prompt_is_cut_exactly_there(prompt, response):
    assert after_prompt(prompt + response, prompt) == response


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("5.<|im_end|>\n<|endoftext|><|endoftext|>", "5."),
        ("5. <pad> <pad></s>", "5. "),
        ("a <|im_end|> b", "a <|im_end|> b"),
        ("<|im_end|>", ""),
        ("x < y > z", "x < y > z"),
        ("", ""),
    ],
)
def test_special_tokens_at_the_end_of_a_response_are_cut_off(text, kept):
    assert without_final_tokens(text) == kept


def test_hostile_texts_are_read_in_time_that_grows_with_their_length():
    start = time.process_time()
    without_final_tokens("<s>" * 30_000 + "x")
    problem_in("<|im_start|>user\n" * 12_000)
    after_prompt("a " * 30_000, "a" * 30_000)
    assert time.process_time() - start < 10
