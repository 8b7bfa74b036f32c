"""Many solutions at once: every one that is answered goes to the ledger, whatever happens to the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labeling.judge.client import EndpointError, UnansweredError
from labeling.judge.labeler import JudgeLabeler
from labeling.judge.reply import Usage
from labeling.judge.session import Judged, Session
from prm_kit.errors import LimitReachedError
from prm_kit.records import Solution

HOPELESS = 25
"""Solutions in a row without an answer after which the endpoint is given up."""

_LOOK_SECONDS = 0.2
_GRACE_SECONDS = 10.0


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        labelled: Solutions whose annotation went to the ledger.
        unanswered: Solutions left for a later run, by reason.
        limit: The limit that ended the run.
        interrupted: Whether somebody asked to stop.
        spent: What was used by now, earlier runs in the same store included.
        from_store: Answers that were there already.
        retries: Failed attempts by kind.
        faults: Unusable parts of answers by kind.
        peak: Most requests in flight.
        labelled_meanwhile: Solutions that another process labelled for the same rater while this one did.
    """

    labelled: int = 0
    unanswered: Counter[str] = field(default_factory=Counter)
    limit: LimitReachedError | None = None
    interrupted: bool = False
    spent: Usage = field(default_factory=Usage)
    from_store: int = 0
    retries: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    peak: int = 0
    labelled_meanwhile: int = 0

    def counts(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "labelled": self.labelled,
            "labelled_meanwhile_by_another_process": self.labelled_meanwhile,
            "unanswered": dict(sorted(self.unanswered.items())),
            "answers_from_store": self.from_store,
            "failed_attempts": dict(sorted(self.retries.items())),
            "faulty_answers": dict(sorted(self.faults.items())),
            "peak_in_flight": self.peak,
        }


async def judge_into(
    labeler: JudgeLabeler,
    solutions: Iterable[Solution],
    ledger: Path,
    progress: Callable[[int, Session], None],
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Label solutions into a ledger, as many at once as the endpoint takes.

    Stopping, by a limit or because somebody asks, lets the requests in flight end for ten seconds; then they are
    given up. What was answered is on disk in every case.

    Args:
        labeler: The judge.
        solutions: What is to be labelled; read as it is needed.
        ledger: Where the annotations go.
        progress: Called now and then with the number labelled and the session.
        asked_to_stop: Asked several times a second.

    Raises:
        EndpointError: The endpoint cannot be used, or answers nothing at all.
    """
    connection = labeler.connection
    async with connection.open(ledger, labeler.rater) as session:
        run = _Run(labeler, session, iter(solutions))
        # Votes of a solution end at different times; twice the solutions keep the slots filled.
        at_once = max(2, 2 * connection.concurrency // labeler.settings.votes)
        workers = [asyncio.create_task(run.work()) for _ in range(at_once)]
        try:
            await _watch(workers, run, progress, asked_to_stop)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        outcome = run.outcome
        outcome.from_store, outcome.faults = session.from_store, session.faults
        outcome.spent, outcome.retries = session.client.budget.spent, session.client.retries
        outcome.peak = session.client.limit.peak
    outcome.labelled_meanwhile = session.writer.labelled_meanwhile
    outcome.labelled -= outcome.labelled_meanwhile
    return outcome


async def _watch(
    workers: list[asyncio.Task[None]],
    run: _Run,
    progress: Callable[[int, Session], None],
    asked_to_stop: Callable[[], bool],
) -> None:
    """Wait for the workers; show progress; end the run in time if it is to stop."""
    loop = asyncio.get_running_loop()
    everybody = asyncio.gather(*workers)
    grace_ends: float | None = None
    try:
        while not everybody.done():
            await asyncio.wait([everybody], timeout=_LOOK_SECONDS)
            progress(run.outcome.labelled, run.session)
            if asked_to_stop():
                run.outcome.interrupted = run.stopping = True
            if run.stopping and grace_ends is None:
                grace_ends = loop.time() + _GRACE_SECONDS
            if grace_ends is not None and loop.time() > grace_ends:
                return
        everybody.result()
    finally:
        everybody.cancel()
        await asyncio.gather(everybody, return_exceptions=True)


class _Run:
    """What the workers share."""

    def __init__(self, labeler: JudgeLabeler, session: Session, solutions: Iterator[Solution]) -> None:
        self.labeler = labeler
        self.session = session
        self.outcome = Outcome()
        self.stopping = False
        self._solutions = solutions
        self._in_a_row = 0

    async def work(self) -> None:
        """Label one solution after the other until there is none, or the run is to stop."""
        for solution in self._solutions:
            try:
                annotation = await self.labeler.judge(solution, self.session)
            except LimitReachedError as error:
                self.outcome.limit = error
                self.stopping = True
            except UnansweredError as error:
                self.outcome.unanswered[error.kind] += 1
                self._in_a_row += error.kind != "not in store"
                if self._in_a_row >= HOPELESS:
                    raise EndpointError(f"{self._in_a_row} solutions in a row without an answer: {error}") from None
            else:
                self._in_a_row = 0
                await self.session.commit.add(Judged(solution, annotation))
                self.outcome.labelled += 1
            if self.stopping:
                return
            if not self.session.connection.offline:
                continue
            await asyncio.sleep(0)
