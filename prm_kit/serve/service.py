"""Between requests and the scoring thread: sizes, cancellation, and what failures are called."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from prm_kit.errors import InputError, PrmKitError
from prm_kit.records import Solution
from prm_kit.score import StepScores
from prm_kit.serve.batcher import Answer, Batcher
from prm_kit.serve.messages import CompletionItem, StepsItem, solution_of
from prm_kit.serve.metrics import Metrics
from prm_kit.serve.settings import ServeSettings

CountTokens = Callable[[Sequence[Solution]], list[int]]
"""How many tokens each solution has for the scorer."""


class TooLargeError(PrmKitError):
    """More of something than the settings allow."""


class ClientGoneError(Exception):
    """The client left before the answer; nobody reads one."""


class Service:
    """Scores the items of requests.

    Args:
        batcher: The scoring thread.
        metrics: Where items are counted.
        settings: Limits.
        count_tokens: Counts the tokens of solutions.
    """

    def __init__(self, batcher: Batcher, metrics: Metrics, settings: ServeSettings, count_tokens: CountTokens) -> None:
        self.metrics = metrics
        self._batcher = batcher
        self._settings = settings
        self._count_tokens = count_tokens

    def check_items(self, number: int) -> None:
        """Refuse a request of too many items.

        Raises:
            TooLargeError: With the number and the limit.
        """
        _check(number, self._settings.max_items, "items")

    def solutions(self, items: Sequence[StepsItem | CompletionItem]) -> list[Solution | PrmKitError]:
        """The solution of each item, or why it is none: too large, or malformed."""
        return [self._made(lambda item=item: solution_of(item), _characters(item)) for item in items]  # type: ignore[misc]

    def rollout(self, make: Callable[[], Solution], characters: int) -> Solution | None:
        """The solution that `make` reads out of a text of so many characters; None, and counted, where it cannot."""
        made = self._made(make, characters)
        if isinstance(made, Solution):
            return made
        self.metrics.failures.labels("too large" if isinstance(made, TooLargeError) else "unreadable").inc()
        return None

    async def answers(self, solutions: Sequence[Solution], client_gone: Callable[[], Awaitable[None]]) -> list[Answer]:
        """Score the solutions of one request. One that has too many tokens, or cannot be scored, gets an error.

        Args:
            solutions: What to score.
            client_gone: Returns when the client has left; what still waits is then dropped.

        Raises:
            QueueFullError: There is no room.
            ClosingError: The server is shutting down.
            ClientGoneError: The client has left.
        """
        counted = await asyncio.to_thread(self._counted, solutions)
        tokens = {index: count for index, count in enumerate(counted) if isinstance(count, int)}
        fitting = [index for index, count in tokens.items() if count <= self._settings.max_tokens]
        job = self._batcher.submit([solutions[index] for index in fitting], [tokens[index] for index in fitting])
        scored: asyncio.Future[Any] = asyncio.wrap_future(job.future)
        gone: asyncio.Future[Any] = asyncio.ensure_future(client_gone())
        try:
            await asyncio.wait([scored, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not scored.done():
                self._batcher.cancel(job)
                self.metrics.cancelled.inc()
        if not scored.done():
            raise ClientGoneError
        found: dict[int, Answer] = dict(zip(fitting, scored.result(), strict=True))
        answers = [
            found.get(index) or (self._too_long(count) if isinstance(count, int) else count)
            for index, count in enumerate(counted)
        ]
        for answer in answers:
            self._count(answer)
        return answers

    def _counted(self, solutions: Sequence[Solution]) -> list[int | Exception]:
        """Tokens of each solution, or why they cannot be counted; what fails for one fails for no other."""
        try:
            return list(self._count_tokens(solutions))
        except Exception as error:
            if len(solutions) == 1:
                if not isinstance(error, PrmKitError):
                    logging.getLogger(__name__).exception("tokens cannot be counted")
                return [error]
        return [count for solution in solutions for count in self._counted([solution])]

    def _made(self, make: Callable[[], Solution], characters: int) -> Solution | PrmKitError:
        try:
            _check(characters, self._settings.max_characters, "characters")
            solution = make()
            _check(len(solution.spans), self._settings.max_steps, "steps")
        except (InputError, TooLargeError) as error:
            return error
        return solution

    def _too_long(self, tokens: int) -> TooLargeError:
        return TooLargeError(f"{tokens} tokens, more than the {self._settings.max_tokens} allowed")

    def _count(self, answer: Answer) -> None:
        if isinstance(answer, StepScores):
            self.metrics.items.inc()
            self.metrics.steps.inc(len(answer.probabilities))
            return
        refused = "too large" if isinstance(answer, TooLargeError) else "refused"
        self.metrics.failures.labels(refused if isinstance(answer, PrmKitError) else "error").inc()


def _check(found: int, most: int, what: str) -> None:
    if found > most:
        raise TooLargeError(f"{found} {what}, more than the {most} allowed")


def _characters(item: StepsItem | CompletionItem) -> int:
    if isinstance(item, CompletionItem):
        return len(item.problem) + len(item.completion)
    return len(item.problem) + sum(map(len, item.steps)) + len(item.separator) * max(0, len(item.steps) - 1)
