"""A small client for OpenAI-compatible chat endpoints: many requests at once, patient, strict with what comes back.

Own code instead of an SDK: the retry policy, the deadline, the size of an answer and the budget are what a judge run
is about, and an SDK pinned here would collide with those that other tools pin.

What goes wrong is one of three. `EndpointError` stops the run: no key, wrong address, no credit. `RefusedError` is
about this request: asking again will not help. `UnansweredError` is about the moment: tried again until the deadline,
then left for a later run.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from labeling.judge.budget import Budget, Need
from labeling.judge.endpoint import Endpoint
from labeling.judge.limiter import AdaptiveLimit, Slot
from labeling.judge.reply import MalformedReplyError, Reply, Usage, reply_of
from prm_kit.errors import PrmKitError

LARGEST_BODY = 8 * 2**20
"""Bytes of a response after which it is not read on."""

_CONNECTIONS_PER_POOL = 32
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_OUT_OF_CREDIT = ("insufficient_quota", "billing_not_active", "billing_hard_limit_reached", "account_deactivated")

T = TypeVar("T")


class EndpointError(PrmKitError):
    """The endpoint cannot be used as it was given: key, address, model, credit. Stops the run."""


class RefusedError(Exception):
    """The endpoint refused this very request (400, 413, 422): asking again will not help."""


class UnansweredError(Exception):
    """No usable response until the deadline. `kind` is one word for the report."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Patience:
    """How long and how often.

    Attributes:
        attempt: Seconds for one attempt, connecting and the whole body included.
        deadline: Seconds for one request with all its attempts.
        attempts: Most attempts; "too many requests" does not count, it ends with the deadline only.
        first_wait: Seconds that the wait after the first attempt is at most; doubled each time.
        longest_wait: Seconds that any wait is at most, also one that the server asks for.
    """

    attempt: float = 180.0
    deadline: float = 1800.0
    attempts: int = 6
    first_wait: float = 0.5
    longest_wait: float = 60.0


class _TransientError(Exception):
    """An attempt failed and another may not. `charged`: it may have been answered, and paid for, all the same."""

    def __init__(self, kind: str, message: str, wait: float | None = None, charged: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.wait = wait
        self.charged = charged


class ChatClient:
    """Sends chat requests. One object belongs to one event loop.

    Args:
        endpoint: Where to.
        limit: How many at once.
        budget: What it may cost; asked before every attempt.
        patience: How long and how often.

    Attributes:
        retries: Attempts that failed, by kind.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        limit: AdaptiveLimit,
        budget: Budget,
        patience: Patience = Patience(),
    ) -> None:
        self.endpoint = endpoint
        self.limit = limit
        self.budget = budget
        self.retries: dict[str, int] = {}
        self._patience = patience
        self._headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
        }
        if endpoint.key is not None:
            self._headers["authorization"] = f"Bearer {endpoint.key.reveal()}"
        self._pools: list[httpx2.AsyncClient] = []
        self._next = 0
        self._tls = httpx2.create_ssl_context() if endpoint.base_url.startswith("https") else False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._pools:
            await pool.aclose()

    async def send(
        self, body: Mapping[str, Any], need: Need, deliver: Callable[[Reply], Awaitable[T]], request_id: str = ""
    ) -> T:
        """Ask until there is a response, and hand it over while the request still counts as in flight.

        Args:
            body: The request.
            need: What it may use at most.
            deliver: Called once with the response; a request is in flight until it returns.
            request_id: Sent as X-Client-Request-Id, so that a request can be found in the server's log.

        Raises:
            EndpointError: The endpoint cannot be used.
            RefusedError: It refuses this request.
            UnansweredError: No response until the deadline.
            LimitReachedError: The budget does not allow it.
        """
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        headers = self._headers | {"x-client-request-id": request_id} if request_id else self._headers
        until = time.monotonic() + self._patience.deadline
        failed = waits = 0
        while True:
            async with self.limit.slot(first=waits > 0) as slot:
                try:
                    reply = await self._paid_attempt(content, headers, need, slot)
                except _TransientError as error:
                    fault = error
                else:
                    self.limit.succeeded()
                    return await deliver(reply)
            self.retries[fault.kind] = self.retries.get(fault.kind, 0) + 1
            failed += fault.kind != "429"
            wait = self._wait(waits) if fault.wait is None else fault.wait
            waits += 1
            if failed >= self._patience.attempts or time.monotonic() + wait > until:
                raise UnansweredError(fault.kind, str(fault))
            await asyncio.sleep(wait)

    async def _paid_attempt(self, content: bytes, headers: Mapping[str, str], need: Need, slot: Slot) -> Reply:
        """One attempt, counted: an answer as the server counts it, a refusal or an error of the server as nothing.

        An attempt that ends half way (in time, unreadable, broken off once a response had begun, given up by us) may
        have been answered, and charged, behind our back: it counts as all that it needs at most.
        """
        reserved = await self.budget.reserve(need)
        used = Usage(1, need.prompt_tokens, need.completion_tokens, estimated=True)
        try:
            reply = await self._attempt(content, headers, slot)
            used = reply.usage
            return reply
        except (EndpointError, RefusedError, _TransientError) as error:
            if not isinstance(error, _TransientError) or not error.charged:
                used = Usage()
            raise
        finally:
            self.budget.settle(reserved, used)

    async def _attempt(self, content: bytes, headers: Mapping[str, str], slot: Slot) -> Reply:
        pool = self._pool()
        begun = False
        try:
            async with asyncio.timeout(self._patience.attempt):
                request = pool.build_request("POST", self.endpoint.chat_url, content=content, headers=headers)
                response = await pool.send(request, stream=True)
                begun = response.status_code == 200
                try:
                    body = await _read(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            late = f"no whole response within {self._patience.attempt:g} s"
            raise _TransientError("timeout", late, charged=True) from None
        except httpx2.TimeoutException:
            raise _TransientError("connection", "no connection within 10 s") from None
        except (httpx2.TransportError, httpx2.StreamError, ValueError) as error:
            broken = f"{type(error).__name__}: {self._clean(str(error))}"
            raise _TransientError("connection", broken, charged=begun) from None
        if response.status_code == 200:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _TransientError("garbage", "the response is compressed, which was not asked for", charged=True)
            try:
                return reply_of(self._blotted(body), len(content))
            except MalformedReplyError as error:
                raise _TransientError("garbage", str(error), charged=True) from None
        raise self._fault(response.status_code, response.headers, body, slot)

    def _fault(self, status: int, headers: Mapping[str, str], body: bytes, slot: Slot) -> Exception:
        """Sort a status that is not 200 into the three kinds of errors."""
        text = self._clean(body[:2_000].decode("utf-8", "replace"))
        where = f"{self.endpoint.chat_url}: status {status}"
        excerpt = " ".join(text.split())[:300]
        if status in (401, 402, 403) or (status == 429 and any(word in text for word in _OUT_OF_CREDIT)):
            return EndpointError(f"{where}: {excerpt or 'key or credit refused'}")
        if status == 404:
            return EndpointError(f"{where}: {excerpt}. Is the model's name right, and does --base-url end in /v1?")
        if 300 <= status < 400:
            return EndpointError(f"{where}: sends us elsewhere, which is not followed; give the final --base-url")
        if status in _RETRIED:
            wait = _retry_after(headers)
            wait = None if wait is None else min(wait, self._patience.longest_wait)
            if status in (429, 503, 529):
                self.limit.refused(slot, wait or 0.0)
            return _TransientError("429" if status == 429 else f"status {status}", f"{where}: {excerpt}", wait)
        return RefusedError(f"status {status}: {excerpt}")

    def _wait(self, waits: int) -> float:
        """Full jitter: anything between nothing and the doubled wait."""
        most = min(self._patience.first_wait * 2 ** min(waits, 30), self._patience.longest_wait)
        return random.uniform(0.0, most)  # noqa: S311 - no secret

    def _pool(self) -> httpx2.AsyncClient:
        """A pool with a free connection. Many small pools: the time to find a connection grows with the pool's size."""
        needed = -(-self.limit.in_flight // _CONNECTIONS_PER_POOL) or 1
        while len(self._pools) < needed:
            self._pools.append(
                httpx2.AsyncClient(
                    verify=self._tls,
                    timeout=httpx2.Timeout(None, connect=10.0),
                    limits=httpx2.Limits(max_connections=None, max_keepalive_connections=2 * _CONNECTIONS_PER_POOL),
                    follow_redirects=False,
                    trust_env=not self.endpoint.local,
                )
            )
        self._next = (self._next + 1) % len(self._pools)
        return self._pools[self._next]

    def _blotted(self, body: bytes) -> bytes:
        """The body without our key, should a server send it back: answers are stored."""
        return body if self.endpoint.key is None else body.replace(self.endpoint.key.reveal().encode(), b"***")

    def _clean(self, text: str) -> str:
        return text if self.endpoint.key is None else self.endpoint.key.redact(text)


async def _read(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise _TransientError("garbage", f"the response is larger than {LARGEST_BODY} bytes", charged=True)
    return bytes(body)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks us to wait; None if it does not say so in a form that can be read."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        when = email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return None
    return max(0.0, when - time.time())
