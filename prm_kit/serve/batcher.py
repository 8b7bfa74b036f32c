"""One thread that scores, and the queue before it: items of many requests make one batch.

Each batch takes one item of every waiting request before a second one of any, so that nobody waits for another's long
list: the longest waiting request first, then those that ask about the same problem, so that its prefix is computed
once, then the next longest waiting. While tokens are left, more of the same problems follow, then the rest. A request
that got nothing is before all others next time, so that nobody waits for ever.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from prm_kit.errors import PrmKitError
from prm_kit.records import Solution
from prm_kit.score import StepScorer, StepScores, check_scores

Answer = StepScores | Exception
"""What came of one item: its scores, or why there are none."""

_LOG = logging.getLogger("prm_kit.serve")


class QueueFullError(PrmKitError):
    """No room for a request.

    Attributes:
        retry_after: Seconds after which there should be room.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ClosingError(PrmKitError):
    """The server is not there yet, or is shutting down and takes nothing new."""


class Job:
    """The items of one request.

    Attributes:
        future: One answer per item, in order; never an exception.
    """

    def __init__(self, solutions: Sequence[Solution], tokens: Sequence[int]) -> None:
        self.solutions = solutions
        self.tokens = tokens
        self.future: Future[list[Answer]] = Future()
        self.future.set_running_or_notify_cancel()
        self.waiting = list(range(len(solutions)))
        self.cancelled = False
        self._found: dict[int, Answer] = {}
        self._finish()

    def deliver(self, index: int, answer: Answer) -> None:
        """Note the answer of one item; with the last one the future is done."""
        self._found[index] = answer
        self._finish()

    def _finish(self) -> None:
        if len(self._found) == len(self.solutions):
            self.future.set_result([self._found[index] for index in range(len(self.solutions))])


Place = tuple[Job, int]
"""A request and the index of one of its items."""


class Batcher:
    """Scores the items of concurrent requests together.

    Args:
        scorer: Whoever scores; only called in one thread.
        batch_tokens: Most tokens of a batch; one item longer than that goes alone.
        queue_items: Most items that wait.
        on_batch: Called as on_batch(items, tokens, seconds) after each batch.
    """

    def __init__(
        self,
        scorer: StepScorer,
        batch_tokens: int,
        queue_items: int,
        on_batch: Callable[[int, int, float], None] = lambda items, tokens, seconds: None,
    ) -> None:
        self._scorer = scorer
        self._batch_tokens = batch_tokens
        self._queue_items = queue_items
        self._on_batch = on_batch
        self._jobs: list[Job] = []  # those with waiting items, the longest waiting first
        self._change = threading.Condition()
        self._closing = True
        self._tokens_per_second = 0.0
        self._thread: threading.Thread | None = None

    @property
    def ready(self) -> bool:
        """Whether requests are taken and scored."""
        return self._thread is not None and self._thread.is_alive() and not self._closing

    @property
    def queued_items(self) -> int:
        """Items that wait."""
        with self._change:
            return self._queued()

    def start(self) -> None:
        """Start the thread, for the first time or again after `close`."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="prm-kit-scoring", daemon=True)
        self._thread.start()

    def submit(self, solutions: Sequence[Solution], tokens: Sequence[int]) -> Job:
        """Queue the items of one request.

        Args:
            solutions: What to score.
            tokens: How long each is.

        Raises:
            QueueFullError: There is no room for them.
            ClosingError: `start` was not called, or `close` was.
        """
        job = Job(solutions, tokens)
        with self._change:
            if not self.ready:
                raise ClosingError("the server is starting or shutting down")
            queued = self._queued()
            if queued + len(solutions) > self._queue_items:
                raise QueueFullError(
                    f"{queued} items are waiting and {len(solutions)} more would exceed {self._queue_items}",
                    self._retry_after(),
                )
            if solutions:
                self._jobs.append(job)
                self._change.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Drop what of a request is still waiting; its future will not be done."""
        with self._change:
            job.cancelled = True
            self._jobs = [other for other in self._jobs if other is not job]

    def close(self) -> None:
        """Take nothing new, finish what was taken, and end the thread."""
        with self._change:
            self._closing = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join()

    def _queued(self) -> int:
        return sum(len(job.waiting) for job in self._jobs)

    def _retry_after(self) -> int:
        queued = sum(job.tokens[index] for job in self._jobs for index in job.waiting)
        seconds = queued / self._tokens_per_second if self._tokens_per_second else 1.0
        return max(1, min(60, math.ceil(seconds / 2)))

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._jobs and not self._closing:
                    self._change.wait()
                if not self._jobs:
                    return
                places = self._take()
            self._score(places)

    def _take(self) -> list[Place]:
        """Choose a batch and take it out of the queue."""
        taken: dict[Place, None] = {}
        used = 0

        def take(job: Job, index: int) -> bool:
            nonlocal used
            if (job, index) in taken or (taken and used + job.tokens[index] > self._batch_tokens):
                return False
            taken[job, index] = None
            used += job.tokens[index]
            return True

        same_problem: dict[str, dict[Job, int]] = {}  # the first such item of each request
        for job in self._jobs:
            for index in job.waiting:
                same_problem.setdefault(job.solutions[index].problem, {}).setdefault(job, index)
        served: set[Job] = set()
        for job in self._jobs:
            if job in served:
                continue
            if not take(job, job.waiting[0]):
                break  # not overtaken by shorter ones of later requests, this time or the next
            served.add(job)
            for other, index in same_problem[job.solutions[job.waiting[0]].problem].items():
                if other not in served and take(other, index):
                    served.add(other)
        problems = {job.solutions[index].problem for job, index in taken}
        for same in (True, False):
            for job in self._jobs:
                for index in job.waiting:
                    if (job.solutions[index].problem in problems) == same and used < self._batch_tokens:
                        take(job, index)
        for job in self._jobs:
            job.waiting = [index for index in job.waiting if (job, index) not in taken]
        self._jobs = sorted((job for job in self._jobs if job.waiting), key=served.__contains__)  # a stable sort
        return list(taken)

    def _score(self, places: Sequence[Place]) -> None:
        tokens = sum(job.tokens[index] for job, index in places)
        start = time.perf_counter()
        answers = list(self._answers([job.solutions[index] for job, index in places]))
        seconds = time.perf_counter() - start
        rate = tokens / max(seconds, 1e-6)
        self._tokens_per_second = 0.8 * self._tokens_per_second + 0.2 * rate if self._tokens_per_second else rate
        self._on_batch(len(places), tokens, seconds)
        for (job, index), answer in zip(places, answers, strict=True):
            job.deliver(index, answer)

    def _answers(self, solutions: Sequence[Solution]) -> Iterator[Answer]:
        """Score; where that fails, in halves, until what fails stands alone."""
        try:
            scores = self._scorer.score(solutions)
            check_scores(solutions, scores)
        except Exception as error:  # the scorer may be anybody's
            failure = error
        else:
            yield from scores
            return
        if len(solutions) == 1:
            if not isinstance(failure, PrmKitError):
                log_failure("scoring failed", failure)
            yield failure
            return
        middle = len(solutions) // 2
        yield from self._answers(solutions[:middle])
        yield from self._answers(solutions[middle:])


def log_failure(what: str, error: Exception) -> None:
    """Log an error with its place in the code, but little of its text: that may quote what a client sent."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    _LOG.error("%s: %s: %r\n%s", what, type(error).__name__, str(error)[:200], frames)
