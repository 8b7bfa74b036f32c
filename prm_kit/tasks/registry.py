"""The one door to tasks: a name, with an argument after a colon where the task needs one."""

from __future__ import annotations

from collections.abc import Callable

from prm_kit.errors import UsageError, unknown_name
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.gym import GymTask
from prm_kit.tasks.problem_file import ProblemFileTask
from prm_kit.tasks.task import Task

OpenTask = Callable[[str], Task]
"""The argument after the colon ("" where there is none) to a task."""


def open_task(name: str) -> Task:
    """Open a task: "arithmetic", "reasoning-gym:DATASET", or "file:SOURCE" (`prm_kit.tasks.problem_file`).

    Raises:
        UsageError: Unknown task, or its argument is missing, superfluous or wrong.
    """
    kind, _, argument = name.partition(":")
    if kind not in TASKS:
        raise unknown_name("task", kind, TASKS)
    if bool(argument) != (kind in _ARGUMENTS):
        wanted = f"{kind}:{_ARGUMENTS[kind]}" if kind in _ARGUMENTS else kind
        raise UsageError(f"task {name!r}: write {wanted}")
    return TASKS[kind](argument)


_ARGUMENTS = {"file": "PATH", "reasoning-gym": "DATASET"}

TASKS: dict[str, OpenTask] = {
    "arithmetic": lambda argument: ArithmeticTask(),
    "file": ProblemFileTask,
    "reasoning-gym": GymTask,
}
