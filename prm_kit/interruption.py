"""Ctrl-C and SIGTERM as a question that a loop answers at a safe point."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class InterruptedSafelyError(KeyboardInterrupt):
    """The run was asked to stop and did so at a point that it can go on from."""


class Interruption:
    """While open, the first SIGINT or SIGTERM only asks to stop; a second one acts as it did before.

    Outside the main thread no signal can be caught; `check` then never raises.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def check(self) -> None:
        """Say where stopping is safe.

        Raises:
            InterruptedSafelyError: Somebody has asked.
        """
        if self.asked:
            raise InterruptedSafelyError("stopped as asked; the same command goes on from here")

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
