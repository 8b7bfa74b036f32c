"""Several processes that train one model: who they are, what they tell each other, and how work is dealt among them.

`torchrun` starts the processes and says in their environment who each one is. Without it there is one process, and
everything here costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from prm_kit.errors import PrmKitError
from prm_kit.files import whole_directory

T = TypeVar("T")

_PATIENCE = timedelta(hours=1)
"""How long a process waits for the others, which may wait for the first one to import data. The dead are noticed at
once: their connections close, or torchrun ends the rest."""

_CLOSED = ("gloo", "connection closed", "connection reset", "nccl", "broken pipe")


@dataclass(frozen=True)
class World:
    """The processes of one run.

    Attributes:
        rank: Which one this is, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes what is written once."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """What every process hands in, in the order of their ranks; all of them get it."""
        if self.size == 1:
            return [value]
        found: list[T] = [value] * self.size
        dist.all_gather_object(found, value)
        return found

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes, number by number: in float64, in the order of the ranks, the same everywhere."""
        return [float(sum(column)) for column in zip(*self.gather([float(value) for value in values]), strict=True)]

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        """Put into tensors, which have the same shapes in every process, the sums of all of them."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def agree(self, value: T) -> T:
        """What the first process says."""
        if self.size == 1:
            return value
        said = [value]
        dist.broadcast_object_list(said, src=0)
        return said[0]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process does the block before the others do: it makes the files that they find."""
        if self.size > 1 and not self.is_first:
            dist.barrier()
        yield
        if self.size > 1 and self.is_first:
            dist.barrier()

    @contextmanager
    def whole_directory(self, path: Path) -> Iterator[Path]:
        """A directory that all fill, and that appears under its name when all are done, or not at all."""
        if not self.is_first:
            yield self.agree(path)
            dist.barrier()
            dist.barrier()
            return
        with whole_directory(path) as part:
            yield self.agree(part)
            if self.size > 1:
                dist.barrier()
        if self.size > 1:
            dist.barrier()


@contextmanager
def world_of_torchrun() -> Iterator[World]:
    """Join the other processes that torchrun started; one process alone where it started none.

    With CUDA, this process takes the device of its local rank. Inside another `world_of_torchrun`, the same world.

    Raises:
        PrmKitError: Another process is gone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield World()
        return
    if dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size())
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=_PATIENCE)
    world = World(dist.get_rank(), dist.get_world_size())
    try:
        yield world
    except RuntimeError as error:
        if not any(sign in str(error).lower() for sign in _CLOSED):
            raise
        raise PrmKitError(
            f"process {world.rank} of {world.size} lost another one, which was killed or failed "
            f"(its own message or torchrun's report says why); start the same command again to go on "
            f"from the last saved state. torch says: {str(error).splitlines()[0][:200]}"
        ) from None
    finally:
        dist.destroy_process_group()


def local_rank() -> int:
    """Which of the processes on this machine this is, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def deal(tokens: Sequence[int], hands: int) -> list[list[int]]:
    """Deal units of work into hands of about equal tokens: the longest first, each to the hand that has least.

    Args:
        tokens: Of every unit.
        hands: How many.

    Returns:
        Indices of the units of every hand, in increasing order. A hand is empty where there are fewer units.
    """
    found: list[list[int]] = [[] for _ in range(hands)]
    held = [0] * hands
    for index in sorted(range(len(tokens)), key=lambda index: (-tokens[index], index)):
        least = held.index(min(held))
        found[least].append(index)
        held[least] += tokens[index]
    return [sorted(hand) for hand in found]
