import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from prm_kit.errors import UsageError
from prm_kit.serve.server import listen

ROOT = Path(__file__).parents[3]

SCRIPT = """
    import sys
    from prm_kit.score import StepScores
    from prm_kit.serve.app import create_app
    from prm_kit.serve.server import listen, serve
    from prm_kit.serve.settings import ServeSettings

    class Held:
        name = "held"

        def score(self, solutions):
            sys.stdin.readline()  # until the test lets go
            return [StepScores(((0.0, 0.0, 1.0),)) for _ in solutions]

    listening = listen("127.0.0.1", 0)
    app = create_app(Held(), ServeSettings(batch_tokens=1))
    serve(app, listening, lambda: print(listening.getsockname()[1], flush=True))
    print("stopped", "torch" in sys.modules)
"""


def test_told_to_stop_the_server_answers_what_it_accepted_and_then_takes_nothing():
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=ROOT, **pipes) as process:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        body = {"items": [{"problem": "p", "steps": ["a"]}] * 2}
        with ThreadPoolExecutor() as pool:
            asked = [pool.submit(httpx2.post, f"{url}/v1/score", json=body, timeout=60) for _ in range(3)]
            wait_until(lambda: "prm_kit_queue_items 5.0" in httpx2.get(f"{url}/metrics").text)  # one is being scored
            process.terminate()
            wait_until(lambda: refuses(url))
            process.stdin.write("\n" * 6)
            process.stdin.flush()
            assert [one.result().status_code for one in asked] == [200, 200, 200]
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "stopped False\n"), error  # and serving alone loads no torch


def wait_until(done):
    until = time.monotonic() + 60
    while not done():
        assert time.monotonic() < until
        time.sleep(0.02)


def refuses(url):
    try:
        httpx2.get(f"{url}/health")
    except httpx2.TransportError:
        return True
    return False


def test_a_port_that_is_taken_is_refused_in_one_line():
    taken = listen("127.0.0.1", 0)
    with pytest.raises(UsageError, match=r"cannot listen on 127\.0\.0\.1 port"):
        listen("127.0.0.1", taken.getsockname()[1])
    taken.close()


def test_a_host_that_is_no_name_is_refused_in_one_line():
    with pytest.raises(UsageError, match=r"cannot listen on a+ port 0"):
        listen("a" * 80, 0)
