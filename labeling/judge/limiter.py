"""How many requests may be in flight: more while the server takes them, half as many when it says "too many".

As in TCP (additive increase, multiplicative decrease; Chiu and Jain 1989, RFC 5681): below a threshold each answer
raises the limit by one, so that it doubles per round trip; above it by one per round trip. A refusal halves limit and
threshold once, however many requests of the same flight are refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Slot:
    """A permission to have one request in flight, and the number of cuts when it was given."""

    cuts: int


class AdaptiveLimit:
    """The limit on requests in flight.

    Args:
        start: Requests in flight at first.
        most: The limit never grows beyond.
    """

    def __init__(self, start: int = 10, most: int = 100) -> None:
        self.limit = float(min(start, most))
        self.in_flight = 0
        self.peak = 0
        self.cuts = 0
        self._most = most
        self._threshold = float("inf")
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._paused_until = 0.0

    @asynccontextmanager
    async def slot(self, first: bool = False) -> AsyncIterator[Slot]:
        """Wait for a slot and hold it.

        Args:
            first: Go before all who wait: for what has waited before.
        """
        await self._acquire(first)
        try:
            yield Slot(self.cuts)
        finally:
            self.in_flight -= 1
            self._wake()

    def succeeded(self) -> None:
        """The server took a request: the limit grows, up to twice what was ever in flight."""
        if self.limit > 2 * self.peak:
            return
        step = 1.0 if self.limit < self._threshold else 1.0 / self.limit
        self.limit = min(self.limit + step, float(self._most))
        self._wake()

    def refused(self, slot: Slot, pause: float = 0.0) -> None:
        """The server said "too many".

        Args:
            slot: The slot of the refused request: of one flight only the first refusal halves the limit.
            pause: Seconds in which nothing new is sent.
        """
        if slot.cuts == self.cuts:
            self.cuts += 1
            self.limit = self._threshold = max(1.0, min(self.limit, float(self.in_flight)) / 2)
        if pause:
            self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + pause)

    async def _acquire(self, first: bool) -> None:
        while self.in_flight >= int(self.limit) or (not first and self._waiting):
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.appendleft(place) if first else self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._wake()
                raise
            first = True  # woken: nobody goes before
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            while (wait := self._paused_until - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(wait)
        except BaseException:
            self.in_flight -= 1
            self._wake()
            raise

    def _wake(self) -> None:
        free = int(self.limit) - self.in_flight
        while free > 0 and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                free -= 1
