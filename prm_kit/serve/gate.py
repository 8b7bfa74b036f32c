"""What every request passes before the application sees it: the token, the size of its body, the clock.

It stands outside of all else, so that nothing is read from a client that has not shown the token, no error leaves
without a JSON reason, and no trace of the code reaches a client.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from prm_kit.endpoint import Key
from prm_kit.secrecy import is_loopback
from prm_kit.serve.batcher import log_failure
from prm_kit.serve.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/health"})
"""What is answered without the token."""

_LOG = logging.getLogger("prm_kit.serve")


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers or {}


class _ClientGoneError(Exception):
    """The client left while it was still sending."""


class Gate:
    """ASGI middleware: token, body size, metrics, one log line a request, JSON errors.

    Args:
        app: The application.
        token: What clients must show, as a bearer token or as the password of basic authentication; None: nothing,
            and then only requests that are addressed to a loopback name are answered.
        max_body_bytes: Most bytes of a body.
        body_seconds: Time in which a body has to arrive.
        metrics: Where requests are counted.
        routes: Paths that metrics and log call by name; all others are "other".
    """

    def __init__(
        self,
        app: App,
        token: Key | None,
        max_body_bytes: int,
        body_seconds: float,
        metrics: Metrics,
        routes: frozenset[str],
    ) -> None:
        self._app = app
        self._token = token
        self._max_body_bytes = max_body_bytes
        self._body_seconds = body_seconds
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 0

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check(scope)
            body = await self._body(scope, receive)
            await self._app(scope, _replay(body, receive), noting_send)
        except _RefusedError as refusal:
            await _answer(noting_send, refusal.status, str(refusal), refusal.headers)
        except _ClientGoneError:
            status = 499
        except Exception as error:
            log_failure("a request failed", error)
            if not status:
                await _answer(noting_send, 500, "the server failed; its log says why")
        finally:
            seconds = time.perf_counter() - start
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            _LOG.info("%s %s %d %.1f ms", scope["method"][:10], route, status, 1000 * seconds)

    def _check(self, scope: Message) -> None:
        """Refuse who may not ask, and what says that it is too large."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        if scope["path"] not in OPEN_PATHS:
            if self._token is not None:
                if not _shows(headers.get(b"authorization", b""), self._token):
                    raise _RefusedError(401, "the token is missing or wrong", {"www-authenticate": "Bearer"})
            elif not _is_local(headers.get(b"host", b"")):
                # A page in somebody's browser could otherwise reach the server through a name of its own.
                raise _RefusedError(403, "a server without a token answers only under a loopback name")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 15 or int(length) > self._max_body_bytes:
            raise self._too_large()

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientGoneError
                    body += message.get("body", b"")
                    if len(body) > self._max_body_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            late = f"the body did not arrive within {self._body_seconds:g} s"
            raise _RefusedError(408, late, {"connection": "close"}) from None

    def _too_large(self) -> _RefusedError:
        reason = f"the body is larger than {self._max_body_bytes} bytes"
        return _RefusedError(413, reason, {"connection": "close"})


def _shows(authorization: bytes, token: Key) -> bool:
    """Whether the header carries the token; the time that it takes says nothing about the token."""
    scheme, _, shown = authorization.partition(b" ")
    if scheme.lower() == b"basic":
        try:
            shown = base64.b64decode(shown, validate=True).partition(b":")[2]
        except ValueError:
            return False
    elif scheme.lower() != b"bearer":
        return False
    return hmac.compare_digest(shown.strip(), token.reveal().encode())


def _is_local(host: bytes) -> bool:
    try:
        name = urlsplit(f"//{host.decode('ascii')}").hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _answer(send: Send, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
    body = json.dumps({"reason": reason, "details": []}).encode()
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
