"""Work on one part of something while the next part is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

P = TypeVar("P")
A = TypeVar("A")


def overlapped(parts: Iterable[P], work: Callable[[P], A]) -> list[A]:
    """`[work(part) for part in parts]`, with the work done in order in one thread while the next part is made.

    It gains where the work waits for somebody else: a server, a process of its own.

    Raises:
        Exception: What the work raised, before another part is begun, or what the making of a part raised, once the
            work that had begun has ended. Nothing goes on afterwards.
    """
    asked: list[Future[A]] = []
    with ThreadPoolExecutor(1) as pool:
        try:
            for part in parts:
                asked.append(pool.submit(work, part))
                for done in asked:
                    if done.done():
                        done.result()
            return [one.result() for one in asked]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
