import copy
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prm_kit.errors import InputError, UsageError
from prm_kit.serve.app import create_app
from prm_kit.serve.check import check_server
from prm_kit.serve.golden import GoldenItem

RECORDED = {
    name: json.loads((Path(__file__).parent / "recorded" / f"{name}.json").read_text()) for name in ("vllm", "sglang")
}


@pytest.fixture
def playing():
    """Plays one recorded exchange, and notes what was asked."""
    servers = []

    def start(exchange):
        asked = []

        class Handler(BaseHTTPRequestHandler):
            def answer(self, value):
                body = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                assert self.path == "/v1/models"
                self.answer(exchange["models"])

            def do_POST(self):
                asked.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
                self.answer(exchange["response"])

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def item_of(exchange, **changes) -> GoldenItem:
    fields = {name: exchange[name] for name in ("ids", "prompt_length", "read_positions", "outputs")}
    texts = {"problem": "p", "completion": "a\nb", "spans": [(0, 1), (2, 3)]}
    scores = {"probabilities": exchange["outputs"], "values": [-0.6, 0.85]}
    return GoldenItem.model_validate(fields | texts | scores | changes)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_recorded_exchange_is_asked_with_ids_and_compared(playing, engine):
    exchange = RECORDED[engine]
    url, asked = playing(exchange)
    (checked,) = check_server(url, [item_of(exchange)], engine)
    assert asked == [(exchange["path"], exchange["request"])]
    assert checked.difference == pytest.approx(0.01)  # 0.89 for 0.9, 0.06 for 0.05
    assert checked.passed


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_server_that_says_something_else_fails(playing, engine):
    url, _ = playing(RECORDED[engine])
    (checked,) = check_server(url, [item_of(RECORDED[engine], outputs=[[0.7, 0.2, 0.1], [0.03, 0.05, 0.92]])], engine)
    assert (checked.passed, checked.difference) == (False, pytest.approx(0.03))


def test_vllm_rows_of_every_token_are_read_at_the_marks(playing):
    exchange = copy.deepcopy(RECORDED["vllm"])
    rows = exchange["response"]["data"][0]["data"]
    other = [1.0, 0.0, 0.0]
    exchange["response"]["data"][0]["data"] = [other, other, other, rows[0], other, rows[1]]
    url, _ = playing(exchange)
    assert check_server(url, [item_of(exchange)], "vllm")[0].passed


def test_sglang_logits_are_turned_into_probabilities(playing):
    exchange = copy.deepcopy(RECORDED["sglang"])
    rows = exchange["response"]["scores"][0]
    exchange["response"]["scores"][0] = [[math.log(p) + 3 for p in row] for row in rows]
    url, _ = playing(exchange)
    (checked,) = check_server(url, [item_of(exchange)], "sglang")
    assert checked.difference == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ({"data": [{"data": [[0.7, 0.2, 0.1]]}]}, "1 rows of 3 numbers, not 2 of 3"),
        ({"data": [{"data": [[0.7, 0.3], [0.1, 0.9]]}]}, "2 rows of 2 numbers, not 2 of 3"),
        ({"data": [{"data": [[0.7, 0.2, 0.1], [math.nan] * 3]}]}, "NaN or infinite"),
        ({"data": []}, "another form"),
        ({"data": [{"data": "QUJD"}]}, "another form"),
    ],
)
def test_an_answer_of_another_form_fails_with_the_reason(playing, response, reason):
    url, _ = playing(RECORDED["vllm"] | {"response": response})
    (checked,) = check_server(url, [item_of(RECORDED["vllm"])], "vllm")
    assert not checked.passed
    assert reason in checked.reason


def test_a_server_of_ours_is_sent_texts(lengths, serving):
    texts = {"completion": "a" * 20 + "\n" + "b" * 10, "spans": [(0, 20), (21, 31)]}
    right = item_of(RECORDED["vllm"], **texts, probabilities=[(0.2, 0.2, 0.6), (0.1, 0.225, 0.675)])
    wrong = item_of(RECORDED["vllm"], **texts, probabilities=[(0.2, 0.2, 0.6), (0.2, 0.125, 0.675)])
    with serving(create_app(lengths)) as url:
        checked = check_server(url, [right, wrong], "prm-kit")
    assert [one.passed for one in checked] == [True, False]
    assert checked[1].difference == pytest.approx(0.1)


def test_what_cannot_be_compared_is_refused(playing):
    url, _ = playing(RECORDED["vllm"])
    with pytest.raises(UsageError, match="unknown engine 'vlm'"):
        check_server(url, [], "vlm")
    with pytest.raises(InputError, match="no outputs for this engine"):
        check_server(url, [item_of(RECORDED["vllm"], outputs=None)], "vllm")
    with pytest.raises(InputError, match="which model"):
        check_server("http://127.0.0.1:9", [item_of(RECORDED["vllm"])], "vllm")
