"""Tasks by name, closed when they are no longer needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prm_kit.tasks.task import Task


@contextmanager
def opened(name: str) -> Iterator[Task]:
    """A task of `prm_kit.tasks`; if it has a checker of its own, that ends with the block.

    Raises:
        UsageError: Unknown task.
    """
    from prm_kit.tasks.registry import open_task

    task = open_task(name)
    try:
        yield task
    finally:
        if hasattr(task, "close"):
            task.close()
