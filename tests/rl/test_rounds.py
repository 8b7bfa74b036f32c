"""Whole runs whose rollouts branch, are rewarded beside the next ones, or come from a server."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file

from prm_kit.engines.engine import Limits
from prm_kit.engines.transformers_engine import TransformersEngine
from prm_kit.errors import UsageError
from prm_kit.policy import Policy
from prm_kit.score import StepScores
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from rl.learning import Learner
from rl.train import train
from rl.train_settings import RlSettings

PROBLEMS = ArithmeticTask().problems("train", 6, 0)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy")
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(path)
    return str(path)


class LikesShortSteps:
    """A scorer: the shorter a step, the better."""

    name = "short"

    def score(self, solutions):
        return [
            StepScores(tuple((len(s) / (20 + len(s)), 0.0, 20 / (20 + len(s))) for s in one.steps)) for one in solutions
        ]


class Elsewhere(LikesShortSteps):
    """The same as one that runs somewhere else."""

    runs_elsewhere = True


def verdict(problem, completion):
    return len(completion) % 2 == 0


def settings(policy, algorithm="grpo", **changes):
    asked = {
        "updates": 2, "problems": 3, "max_new_tokens": 30, "split": "newline", "learning_rate": 1e-2, "device": "cpu",
        "parts": {"weights": {"process": 0.0, "format": 0.0}}, "branching": {"roots": 2, "branches": 2},
    }  # fmt: skip
    return RlSettings(policy=policy, algorithm=algorithm, **{**asked, **changes})


def lines(out):
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["part"] == "train"]


@pytest.mark.parametrize(
    ("algorithm", "at"),
    [
        ("grpo", "entropy"),
        ("rloo-min", "value"),
        ("gfpo", "random"),
        ("gfpo-anchored", "value"),
        ("vapo-gae", "random"),
    ],
)
def test_algorithms_learn_from_branches_and_count_what_was_written(policy, tmp_path, algorithm, at):
    parts = {"critic": {"warm_up": 0}} if algorithm == "vapo-gae" else {}
    asked = settings(policy, algorithm, parts=parts, updates=1, branching={"roots": 2, "branches": 2, "at": at})
    summary = train(asked, PROBLEMS, verdict, tmp_path / "run", scorer=LikesShortSteps())
    (line,) = lines(tmp_path / "run")
    assert summary["rollouts"] == line["sampled"] == 3 * 2 * (1 + 2)
    assert line["sampled_tokens"] < line["sampled"] * line["tokens"] + 200  # a branch writes less than a whole one
    assert line["gradient_norm"] > 0
    shown = [json.loads(one) for one in (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()]
    assert all("prefix" in one for one in shown)


def test_a_run_with_branches_that_was_killed_goes_on_as_if_it_had_not_been(policy, tmp_path, monkeypatch):
    asked = settings(policy, "gfpo", checkpoint_every=1, branching={"roots": 2, "branches": 2, "at": "value"})
    train(asked, PROBLEMS, verdict, tmp_path / "whole", scorer=LikesShortSteps())
    learn, calls = Learner.learn, []

    def dies(self, material, number):
        calls.append(number)
        if len(calls) == 2:
            raise RuntimeError("killed")
        return learn(self, material, number)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "learn", dies)
        with pytest.raises(RuntimeError, match="killed"):
            train(asked, PROBLEMS, verdict, tmp_path / "cut", scorer=LikesShortSteps())
    train(asked, PROBLEMS, verdict, tmp_path / "cut", scorer=LikesShortSteps())
    for file in ("metrics.jsonl", "rollouts.jsonl", "checkpoint/model.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_run_is_the_same_to_the_byte_whether_or_not_rewards_are_found_beside_it(policy, tmp_path):
    for name, scorer in (("after", LikesShortSteps()), ("beside", Elsewhere())):
        asked = settings(policy, "rloo-min", parts={}, branching=None, group_size=4, parts_of_round=3)
        train(asked, PROBLEMS, verdict, tmp_path / name, scorer=scorer)
    for file in ("metrics.jsonl", "rollouts.jsonl", "checkpoint/model.safetensors"):
        assert (tmp_path / "beside" / file).read_bytes() == (tmp_path / "after" / file).read_bytes()


def test_an_error_of_the_scorer_stops_the_update_that_asked_it(policy, tmp_path):
    class Fails(Elsewhere):
        asked = 0

        def score(self, solutions):
            self.asked += 1
            if self.asked == 4:  # the first part of the second update
                raise UsageError("the server is gone")
            return super().score(solutions)

    asked = settings(policy, "rloo-min", parts={}, branching=None, group_size=4, parts_of_round=3)
    with pytest.raises(UsageError, match="the server is gone"):
        train(asked, PROBLEMS, verdict, tmp_path / "run", scorer=Fails())
    assert len(lines(tmp_path / "run")) == 1


def test_what_cannot_use_branches_is_refused_before_the_run_leaves_a_trace(policy, tmp_path):
    with pytest.raises(UsageError, match="centres over all rollouts"):
        train(settings(policy, "reinforce++"), PROBLEMS, verdict, tmp_path / "run")
    value = settings(policy, branching={"roots": 2, "branches": 2, "at": "value"})
    with pytest.raises(UsageError, match="nobody values the steps"):
        train(value, PROBLEMS, verdict, tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Vllm:
    """Answers as a vLLM server would, with the model in its folder: as it was when it was last told to read it."""

    def __init__(self, folder):
        self.folder, self.loads, self.model = Path(folder), 0, None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                asked = json.loads(body) if body else {}
                said = json.dumps(outer.answer(self.path, asked)).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def answer(self, path, asked):
        if path == "/collective_rpc":
            self.loads += 1
            self.model = Policy.load(self.folder).model
        if path != "/v1/completions":
            return {}
        limits = Limits(asked["max_tokens"], tuple(asked["stop_token_ids"]), asked["temperature"], asked["seed"])
        (found,) = TransformersEngine(self.model).generate([asked["prompt"]], asked["n"], limits)
        return {
            "choices": [
                {
                    "index": index,
                    "token_ids": one.ids,
                    "logprobs": {"token_logprobs": one.log_probabilities},
                    "finish_reason": one.finish,
                }
                for index, one in enumerate(found)
            ]
        }


def test_a_server_samples_from_the_weights_of_the_latest_update(policy, tmp_path):
    server = Vllm(tmp_path / "served")
    thread = Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.http.server_address[1]}"
    try:
        asked = settings(policy, engine="vllm", engine_url=url, engine_folder=str(tmp_path / "served"))
        train(asked, PROBLEMS, verdict, tmp_path / "run")
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
    assert server.loads == 3  # at the start, and after both updates
    served = load_file(tmp_path / "served" / "model.safetensors")
    trained = load_file(tmp_path / "run" / "checkpoint" / "model.safetensors")
    assert all(torch.equal(served[name], trained[name]) for name in trained)
    # the log-probabilities that it sampled with are those of the trainer: the weights were in time
    assert all(line["mismatch_most"] < 1e-4 for line in lines(tmp_path / "run"))


def test_a_server_needs_an_address_and_a_folder(policy):
    with pytest.raises(ValueError, match="engine: vllm, engine_url and engine_folder go together"):
        settings(policy, engine="vllm")
    with pytest.raises(ValueError, match="go together"):
        settings(policy, engine_url="http://127.0.0.1:8000")
    with pytest.raises(ValueError, match="leave lora out"):
        settings(policy, engine="vllm", engine_url="http://127.0.0.1:1", engine_folder="x", lora={"rank": 2})
    # a run that goes on would start from, and compare itself with, what it had overwritten
    with pytest.raises(ValueError, match=r"engine_folder is written to after every update; copy the policy, .*policy"):
        settings(policy, engine="vllm", engine_url="http://127.0.0.1:1", engine_folder=f"{policy}/.")
