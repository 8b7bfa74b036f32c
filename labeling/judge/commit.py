"""The group commit: records are written together, and how many are not yet written is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

MOST_UNCOMMITTED = 64
COMMIT_SECONDS = 0.5

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Writer(Protocol[T_contra]):
    """Puts records on disk."""

    def write(self, records: Sequence[T_contra]) -> None:
        """Write records durably, in the order given."""
        ...

    def close(self) -> None:
        """Close what was opened; called last, in the thread that wrote."""
        ...


class GroupCommit(Generic[T]):
    """Collects records and writes them together: every `seconds`, or as soon as `most` wait.

    At most `most` records are accepted and not yet written: whoever brings another one waits. That is what a killed
    run loses of what it had, besides the requests in flight.

    Args:
        writer: Writes the records; called in one thread of its own.
        most: Records.
        seconds: Seconds.
    """

    def __init__(self, writer: Writer[T], most: int = MOST_UNCOMMITTED, seconds: float = COMMIT_SECONDS) -> None:
        self._writer = writer
        self._most = most
        self._seconds = seconds
        self._held: list[T] = []
        self._free = asyncio.Semaphore(most)
        self._full = asyncio.Event()
        self._closing = False
        self._failure: BaseException | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is held, also after an error."""
        self._closing = True
        self._full.set()
        try:
            if self._task is not None:
                await self._task
            await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.close)
        finally:
            self._thread.shutdown()
        if self._failure is not None and error is None:
            raise self._failure

    async def add(self, record: T) -> None:
        """Hand over a record; returns when it is accepted, which is before it is written.

        Raises:
            Exception: What `write` raised; nothing is accepted after that.
        """
        await self._free.acquire()
        if self._failure is not None:
            self._free.release()
            raise self._failure
        self._held.append(record)
        if len(self._held) >= self._most // 2:
            self._full.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._held or not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._full.wait()
            if not self._closing:
                self._full.clear()
            now, self._held = self._held, []
            if not now:
                continue
            try:
                if self._failure is None:
                    await loop.run_in_executor(self._thread, self._writer.write, now)
            except Exception as error:  # told to whoever adds next, and at the end
                self._failure = error
            for _ in now:
                self._free.release()
