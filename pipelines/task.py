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


def held_out_in(task: str, source: str | None) -> str:
    """The task's name with another source for its held-out problems, where one is given.

    Raises:
        UsageError: The task reads no source.
    """
    from prm_kit.errors import UsageError
    from prm_kit.tasks.problem_file import with_held_out

    if source is None:
        return task
    if not task.startswith("file:"):
        raise UsageError(f"--held-out-file goes with a task file:SOURCE, not with {task}")
    return with_held_out(task, source)
