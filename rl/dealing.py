"""Whole groups dealt among the processes of a run: each samples and rewards its own, then all know everything."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

from prm_kit.distributed import World
from prm_kit.errors import PrmKitError

T = TypeVar("T")


def shares(items: int, processes: int) -> list[range]:
    """What each process gets of some items: neighbours stay together, and shares differ by one at most."""
    bounds = [items * rank // processes for rank in range(processes + 1)]
    return [range(start, end) for start, end in pairwise(bounds)]


def dealt(world: World, items: int, work: Callable[[range], T]) -> list[T]:
    """Let each process work on its share of some items, and tell all of them what came out, in the items' order.

    Args:
        world: The processes.
        items: How many items; at least one.
        work: From the places of a process's items to what it makes of them; not called without any.

    Returns:
        What the work of each process gave that had any.

    Raises:
        Exception: What the work of a process raised, in all of them; what is no error of ours is quoted to the others.
    """
    mine = shares(items, world.size)[world.rank]
    if world.size == 1:
        return [work(mine)]
    own: Exception | None = None
    failed: PrmKitError | None = None
    done: list[T] = []
    try:
        done = [work(mine)] if mine else []
    except PrmKitError as error:
        own = failed = error
    except Exception as error:
        own, failed = error, PrmKitError(f"process {world.rank}: {type(error).__name__}: {error}")
    told = world.gather((done, failed))
    if own is not None:
        raise own
    for _, failure in told:
        if failure is not None:
            raise failure
    return [one for part, _ in told for one in part]
