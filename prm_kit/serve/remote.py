"""A step scorer that asks a server: the same scores as there, over HTTP.

A request that the server has no room for, or that a connection lost, is asked again; what fails in the end raises.
Nothing is made up: no score is ever zero because a server was not there.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import httpx2
from pydantic import ValidationError

from prm_kit.endpoint import Key, check_address
from prm_kit.errors import InputError, PrmKitError
from prm_kit.records import Solution
from prm_kit.score import StepScores, check_scores
from prm_kit.serve.messages import Failure, ScoreRequest, ScoreResponse, ServedPrm, item_of

LARGEST_ANSWER = 64 * 2**20
"""Bytes of an answer after which it is not read on."""

_RETRIED = frozenset({408, 429, 502, 503, 504})
_LONGEST_WAIT = 60.0
_CONNECTION_ATTEMPTS = 6


class RemoteError(PrmKitError):
    """The server did not answer, or not with scores."""


class _TransientError(Exception):
    """An attempt failed and another may not. `asked`: the server itself said so, perhaps how many seconds to wait."""

    def __init__(self, reason: str, *, asked: bool, wait: float | None = None) -> None:
        super().__init__(reason)
        self.asked = asked
        self.wait = wait


class _TooLargeError(Exception):
    pass


class RemoteScorer:
    """Scores steps by asking a `prm-kit serve`.

    Attributes:
        runs_elsewhere: True: whoever asks may work on while it waits for the answer.
        name: What reports call it.
        aggregation: What the server makes a solution's score with; None until the first answer.
        fingerprint: Of the PRM that it scores with; None until the first answer, or where the server does not say.

    Args:
        url: Such as "http://127.0.0.1:8000".
        token: Shown as a bearer token.
        name: What reports call it; None: the server's host and port.
        insecure: Allow http to another machine.
        items: Most solutions of one request.
        in_flight: Requests at once.
        timeout: Seconds without a sign of the server after which an attempt has failed. A connection that cannot be
            made, or is lost, is tried six times.
        deadline: Seconds for one request with all its attempts, as when the server says again and again to come back.

    Raises:
        UsageError: No address that may be asked.
    """

    runs_elsewhere = True

    def __init__(
        self,
        url: str,
        token: Key | None = None,
        *,
        name: str | None = None,
        insecure: bool = False,
        items: int = 64,
        in_flight: int = 4,
        timeout: float = 300.0,
        deadline: float = 1_800.0,
    ) -> None:
        address, local = check_address(url, name="the server's address", insecure=insecure)
        self.name = name or address.partition("://")[2]
        self.aggregation: str | None = None
        self.fingerprint: str | None = None
        self._address = address
        self._items = items
        self._in_flight = in_flight
        self._deadline = deadline
        self._local = local
        self._token = token
        self._timeout = httpx2.Timeout(timeout, connect=10.0)
        self._tls = httpx2.create_ssl_context() if address.startswith("https") else False

    def score(self, solutions: Sequence[Solution]) -> list[StepScores]:
        """Score every step of every solution.

        Raises:
            RemoteError: The server does not answer in time, fails, or answers something else than scores.
            TooLongError: A solution is larger than the server or its scorer takes.
            InputError: The server cannot score a solution; its id and the server's reason are named.
        """
        order = sorted(range(len(solutions)), key=lambda index: solutions[index].problem)
        parts = [order[start : start + self._items] for start in range(0, len(order), self._items)]
        found: dict[int, StepScores] = {}
        with self._client() as client, ThreadPoolExecutor(self._in_flight) as pool:
            stopped = threading.Event()
            asked = [pool.submit(self._part, client, [solutions[index] for index in part], stopped) for part in parts]
            try:
                for answer in wait_for(asked, return_when=FIRST_EXCEPTION).done:
                    answer.result()  # where one failed, the others are not waited for
            finally:
                stopped.set()
                pool.shutdown(cancel_futures=True)
        for part, answer in zip(parts, asked, strict=True):
            found.update(zip(part, answer.result(), strict=True))
        scores = [found[index] for index in range(len(solutions))]
        check_scores(solutions, scores)
        return scores

    def ask(self) -> str | None:
        """Ask the server what it scores with, and return the fingerprint.

        Raises:
            RemoteError: It does not answer, or is another kind of server.
        """
        try:
            with self._client() as client:
                response = client.get("/v1/prm")
        except (httpx2.TransportError, httpx2.StreamError) as error:
            raise RemoteError(f"{self._address}: {type(error).__name__}: {error}") from None
        if response.status_code != 200:
            raise RemoteError(str(self._fault(response, response.content, [])))
        try:
            answer = ServedPrm.model_validate_json(response.content)
        except ValidationError:
            raise RemoteError(f"{self._address}: does not say what it scores with; is it a prm-kit serve?") from None
        self._know(answer)
        return self.fingerprint

    def _know(self, answer: ServedPrm | ScoreResponse) -> None:
        """Remember what the server says of itself, and refuse scores of two PRMs as those of one."""
        if self.fingerprint not in (None, answer.fingerprint):
            raise RemoteError(
                f"{self._address}: the server scores with another PRM than before ({answer.fingerprint}, not "
                f"{self.fingerprint}): scores of both would be mixed; start over with one of them"
            )
        self.fingerprint, self.aggregation = answer.fingerprint, answer.aggregation

    def _client(self) -> httpx2.Client:
        return httpx2.Client(
            base_url=self._address,
            headers={"authorization": f"Bearer {self._token.reveal()}"} if self._token else {},
            timeout=self._timeout,
            verify=self._tls,
            follow_redirects=False,
            trust_env=not self._local,
        )

    def _part(self, client: httpx2.Client, solutions: Sequence[Solution], stopped: threading.Event) -> list[StepScores]:
        """Scores of some solutions; in halves where they are too large for one request."""
        body = ScoreRequest(items=[item_of(solution) for solution in solutions]).model_dump_json().encode()
        try:
            return self._answered(client, solutions, body, stopped)
        except _TooLargeError as error:
            if len(solutions) == 1:
                from prm_kit.encode import TooLongError

                own = solutions[0].id
                raise TooLongError(f"solution {own}: {self._address}: {error}", own, None, None) from None
        middle = len(solutions) // 2
        return [
            *self._part(client, solutions[:middle], stopped),
            *self._part(client, solutions[middle:], stopped),
        ]

    def _answered(
        self, client: httpx2.Client, solutions: Sequence[Solution], body: bytes, stopped: threading.Event
    ) -> list[StepScores]:
        """Scores of one request, asked again until it is answered, or `stopped` as its answer is no longer wanted."""
        until = time.monotonic() + self._deadline
        lost = 0
        for longest in _waits():
            try:
                return self._attempt(client, solutions, body)
            except _TransientError as error:
                lost += not error.asked
                wait = random.uniform(0.0, longest) if error.wait is None else error.wait  # noqa: S311 - no secret
                if lost >= _CONNECTION_ATTEMPTS or time.monotonic() + wait > until or stopped.is_set():
                    raise RemoteError(f"{self._address}: {error}; given up") from None
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _attempt(self, client: httpx2.Client, solutions: Sequence[Solution], body: bytes) -> list[StepScores]:
        try:
            headers = {"content-type": "application/json"}
            with client.stream("POST", "/v1/score", content=body, headers=headers) as response:
                text = _read(response)
        except (httpx2.TransportError, httpx2.StreamError) as error:
            raise _TransientError(f"{type(error).__name__}: {error}", asked=False) from None
        if response.status_code != 200:
            raise self._fault(response, text, solutions)
        try:
            answer = ScoreResponse.model_validate_json(text)
        except ValidationError as error:
            raise RemoteError(
                f"{self._address}: answers something else than scores: {error.errors()[0]['msg']}"
            ) from None
        if len(answer.items) != len(solutions):
            raise RemoteError(f"{self._address}: {len(answer.items)} answers for {len(solutions)} solutions")
        for solution, item in zip(solutions, answer.items, strict=True):
            if tuple(item.spans) != solution.spans:
                raise RemoteError(f"{self._address}: solution {solution.id}: scores of other steps than were asked")
        self._know(answer)
        return [item.step_scores() for item in answer.items]

    def _fault(self, response: httpx2.Response, text: bytes, solutions: Sequence[Solution]) -> Exception:
        status = response.status_code
        try:
            failure = Failure.model_validate_json(text)
        except ValidationError:
            failure = Failure(reason=" ".join(text[:2_000].decode("utf-8", "replace").split())[:300])
        if status == 413:
            return _TooLargeError("; ".join([failure.reason, *(detail.reason for detail in failure.details[:3])]))
        if status in _RETRIED:
            return _TransientError(
                f"status {status}: {failure.reason}", asked=True, wait=_retry_after(response.headers)
            )
        if status == 422 and failure.details:
            about = [_named(detail.where, solutions) + detail.reason for detail in failure.details[:3]]
            return InputError(f"{self._address}: {failure.reason}: {'; '.join(about)}")
        return RemoteError(f"{self._address}: status {status}: {failure.reason}")


def _read(response: httpx2.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise RemoteError(f"the server's answer is larger than {LARGEST_ANSWER} bytes")
    return bytes(body)


def _named(where: str, solutions: Sequence[Solution]) -> str:
    _, _, index = where.partition("items.")
    number = index.partition(".")[0]
    return f"solution {solutions[int(number)].id}: " if number.isdigit() and int(number) < len(solutions) else ""


def _retry_after(headers: httpx2.Headers) -> float | None:
    text = headers.get("retry-after", "")
    return min(float(text), _LONGEST_WAIT) if text.isascii() and text.isdigit() else None


def _waits() -> Iterator[float]:
    """Longest wait after each attempt, in seconds: doubled each time up to a minute."""
    wait = 0.5
    while True:
        yield wait
        wait = min(2 * wait, _LONGEST_WAIT)
