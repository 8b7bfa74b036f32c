"""Run the application until it is told to stop; then finish what was accepted."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from prm_kit.errors import UsageError


def listen(host: str, port: int) -> socket.socket:
    """Open the server's socket; port 0 takes a free one.

    Raises:
        UsageError: No such address, or the port is taken or not allowed.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=1024)
    except OSError as error:
        raise UsageError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    except UnicodeError as error:  # of a host that is no name
        raise UsageError(f"cannot listen on {host} port {port}: {error}") from None


def serve(app: FastAPI, listening: socket.socket, started: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGINT or SIGTERM; requests that were accepted are then answered. A second SIGINT ends at once.

    Args:
        app: The application.
        listening: Its socket.
        started: Called once connections are answered.
    """

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started()

    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, timeout_keep_alive=30)
    # The server hands the signal on after its shutdown: being told to stop is no failure here.
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        Server(config).run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass
