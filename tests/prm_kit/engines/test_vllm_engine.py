"""Against a small server that answers as vLLM's documentation says; no vLLM was ever run here."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from prm_kit.endpoint import Key
from prm_kit.engines.engine import Limits, Rollout
from prm_kit.engines.vllm_engine import VllmEngine, VllmError
from prm_kit.errors import UsageError

LIMITS = Limits(4, (7,), 0.5, seed=3)


class Server:
    """Remembers what it is asked; its rollouts are the prefix's last token until it stops after two of them."""

    def __init__(self):
        self.asked, self.status, self.change = [], {}, lambda answer: answer
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                asked = json.loads(body) if body else None
                outer.asked.append((self.path, asked, self.headers.get("authorization")))
                status = outer.status.get(self.path, 200)
                said = json.dumps(outer.change(outer.answer(asked)) if self.path == "/v1/completions" else {})
                self.send_response(status)
                self.end_headers()
                self.wfile.write((said if status == 200 else "Not Found").encode())

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def answer(self, asked):
        choices = [self.choice(asked, index) for index in range(asked["n"])]
        return {"id": "cmpl-1", "object": "text_completion", "choices": choices[::-1], "usage": {}}

    def choice(self, asked, index):
        cut = index == 1
        last = asked["prompt"][-1]
        ids = [last] * asked["max_tokens"] if cut else [last, last, asked["stop_token_ids"][0]]
        return {
            "index": index,
            "text": "",
            "token_ids": ids,
            "prompt_token_ids": asked["prompt"],
            "logprobs": {"tokens": [""] * len(ids), "token_logprobs": [-0.5] * len(ids), "top_logprobs": []},
            "finish_reason": "length" if cut else "stop",
            "stop_reason": None if cut else 7,
        }


@pytest.fixture
def server():
    server = Server()
    thread = Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def test_a_request_says_all_that_decides_a_rollout(server, tmp_path):
    VllmEngine(server.url, tmp_path, token=Key("secret")).generate([[1, 2]], 2, LIMITS)
    ((path, asked, authorization),) = server.asked
    assert (path, authorization) == ("/v1/completions", "Bearer secret")
    seed = asked.pop("seed")
    assert 0 <= seed < 2**62
    assert asked == {
        "model": "policy", "prompt": [1, 2], "n": 2, "max_tokens": 4, "temperature": 0.5, "stop_token_ids": [7],
        "ignore_eos": True, "logprobs": 0, "return_token_ids": True, "top_p": 1.0, "top_k": -1, "min_p": 0.0,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0,
    }  # fmt: skip


def test_rollouts_come_in_the_order_asked_with_their_log_probabilities(server, tmp_path):
    found = VllmEngine(server.url, tmp_path, in_flight=3).generate([[1, k] for k in range(2, 6)], 2, LIMITS)
    assert found == [
        [Rollout((k, k, 7), (-0.5,) * 3, "stop"), Rollout((k,) * 4, (-0.5,) * 4, "length")] for k in range(2, 6)
    ]


def test_another_prefix_or_seed_has_other_random_numbers_and_the_same_the_same(server, tmp_path):
    engine = VllmEngine(server.url, tmp_path, in_flight=1)
    engine.generate([[1], [2], [1]], 1, LIMITS)
    engine.generate([[1]], 1, Limits(4, (7,), 0.5, seed=4))
    one, two, again, other = (asked["seed"] for _, asked, _ in server.asked)
    assert one == again
    assert len({one, two, other}) == 3


def test_new_weights_are_put_into_its_folder_before_it_is_told_to_read_them(server, tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"old")
    (folder / "tokenizer.json").write_bytes(b"old")

    def save(path):
        assert not server.asked
        (path / "model.safetensors").write_bytes(b"new")
        (path / "config.json").write_bytes(b"new")

    VllmEngine(server.url, folder).sync(save)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "model.safetensors": b"new",
        "config.json": b"new",
        "tokenizer.json": b"old",
    }
    assert [one[:2] for one in server.asked] == [
        ("/collective_rpc", {"method": "reload_weights"}),
        ("/reset_prefix_cache", None),
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["served"]


def test_a_server_that_was_started_otherwise_is_refused_with_the_mend(server, tmp_path):
    server.status["/collective_rpc"] = 404
    with pytest.raises(VllmError, match="collective_rpc: status 404: Not Found: start it with VLLM_SERVER_DEV_MODE=1"):
        VllmEngine(server.url, tmp_path / "served").sync(lambda path: None)
    server.status["/v1/completions"] = 404  # it serves a model under another name
    with pytest.raises(VllmError, match="completions: status 404: Not Found: start it with --served-model-name policy"):
        VllmEngine(server.url, tmp_path / "served").generate([[1, 2]], 1, LIMITS)


def changed(**fields):
    def change(answer):
        answer["choices"][-1].update(fields)
        return answer

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(token_ids=None), r"choices\.1\.token_ids"),
        (changed(finish_reason="abort"), r"choices\.1\.finish_reason"),
        (changed(logprobs={"token_logprobs": [-0.5]}), "1 log-probabilities of 3 tokens"),
        (changed(logprobs={"token_logprobs": [None] * 3}), "token_logprobs"),
        (changed(token_ids=[2, 2, 2]), "ended by stop with token 2"),
        (changed(token_ids=[2, 2, 2], finish_reason="length"), "cut at 3 tokens instead of 4.*max-model-len"),
        (changed(index=5), "numbers of its rollouts are 1, 5"),
        (lambda answer: {}, "choices: Field required"),
    ],
)
def test_what_is_no_rollout_is_refused(server, tmp_path, change, reason):
    server.change = change
    with pytest.raises(VllmError, match=reason):
        VllmEngine(server.url, tmp_path).generate([[1, 2]], 2, LIMITS)


def test_a_server_that_fails_is_named(server, tmp_path):
    server.status["/v1/completions"] = 500
    with pytest.raises(VllmError, match="/v1/completions: status 500"):
        VllmEngine(server.url, tmp_path).generate([[1, 2]], 1, LIMITS)
    with pytest.raises(UsageError, match="use https"):
        VllmEngine("http://example.org", tmp_path)
    with pytest.raises(UsageError, match="no tokens"):
        VllmEngine(server.url, tmp_path).generate([[]], 1, LIMITS)
