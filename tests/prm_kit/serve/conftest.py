import contextlib
import threading
import time

import pytest
import uvicorn

from prm_kit.errors import InputError
from prm_kit.score import StepScores
from prm_kit.serve.server import listen


class Lengths:
    """Gives a step of n characters p(-1) = n / 100; refuses "refused", breaks at "broken", dawdles at "slow"."""

    name = "lengths"

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.unbounded = False
        self.go = threading.Event()

    def score(self, solutions):
        self.calls.append(len(solutions))
        steps = [step for solution in solutions for step in solution.steps]
        if "slow" in steps:
            assert self.go.wait(10)
        if "broken" in steps:
            raise RuntimeError("broken at /secret/path")
        if "refused" in steps:
            raise InputError("step 0 has too many tokens")
        return [self._scores(solution.steps) for solution in solutions]

    def _scores(self, steps):
        if self.unbounded:
            return StepScores((None,) * len(steps), tuple(float(len(step)) for step in steps))
        bad = [len(step) / 100 for step in steps]
        return StepScores(tuple(None if p == 0.11 else (p, 0.25 - p / 4, 0.75 - 3 * p / 4) for p in bad))


@pytest.fixture
def lengths():
    return Lengths()


@pytest.fixture
def serving():
    """A context manager that serves an application on a loopback port and gives its address."""

    @contextlib.contextmanager
    def run(app):
        listening = listen("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.002)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
            listening.close()

    return run
