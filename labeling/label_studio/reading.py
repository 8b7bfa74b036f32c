"""What an export of a project holds: everything is checked here, because the server checks nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labeling.label_studio.export import exported_tasks
from labeling.label_studio.results import WindowLabels, read_annotation
from labeling.label_studio.tasks import window_of
from prm_kit.errors import InputError
from prm_kit.records import Solution


@dataclass
class Read:
    """What an export holds, before it is joined.

    Attributes:
        labels: Checked labels by (solution id, user number).
        solutions: The solutions they are about.
        annotations: Annotations seen.
        skipped: Skips seen, by user number; they are dropped, whatever labels they hold.
        refused: What is not accepted: task, annotation, annotator, solution and reason.
        foreign: Tasks that prm-kit did not push.
        present: Lasting ids of all annotations but skips.
    """

    labels: dict[tuple[str, int], list[WindowLabels]] = field(default_factory=lambda: defaultdict(list))
    solutions: dict[str, Solution] = field(default_factory=dict)
    annotations: int = 0
    skipped: Counter[int] = field(default_factory=Counter)
    refused: list[dict[str, Any]] = field(default_factory=list)
    foreign: int = 0
    present: set[str] = field(default_factory=set)

    def users(self) -> set[int]:
        """Everybody who did something in it, by number: labelled, skipped, was refused, or edited another's labels."""
        refused = {entry["annotator"] for entry in self.refused}
        editors = {labels.edited_by for found in self.labels.values() for labels in found}
        users = {user for _, user in self.labels} | set(self.skipped) | refused | editors
        return {user for user in users if user is not None}


def read_export(path: Path, solution_of: Callable[[str], Solution | None], policy: str) -> Read:
    """Check every annotation of an export.

    Args:
        path: From `download`.
        solution_of: The solution of an id, None where it is unknown.
        policy: The project's; tasks that were pushed under another are refused.

    Raises:
        InputError: It is no list of tasks.
    """
    read = Read()
    for task in exported_tasks(path):
        data = task.get("data")
        if not isinstance(data, dict) or "prm_uid" not in data:
            read.foreign += 1
            continue
        _read_task(task, data, solution_of, policy, read)
    return read


def _read_task(
    task: Mapping[str, Any],
    data: Mapping[str, Any],
    solution_of: Callable[[str], Solution | None],
    policy: str,
    read: Read,
) -> None:
    annotations = [row for row in task.get("annotations") or () if isinstance(row, dict)]
    read.annotations += len(annotations)
    problem = window = None
    solution = solution_of(str(data.get("prm_solution")))
    try:
        window = window_of(data, solution)
        if data.get("prm_policy") != policy:
            raise InputError(f"the task was pushed with policy {data.get('prm_policy')!r}, the project has {policy!r}")
    except InputError as error:
        problem = str(error)
    for row in annotations:
        if row.get("was_cancelled"):
            who = row.get("completed_by")
            read.skipped[who if isinstance(who, int) else 0] += 1
            continue
        read.present.add(str(row.get("unique_id") or ""))
        try:
            if problem is not None or window is None or solution is None:
                raise InputError(problem)
            labels = read_annotation(row, int(task["id"]), solution.id, window)
        except (InputError, KeyError) as error:
            read.refused.append(
                {
                    "task": task.get("id"),
                    "annotation": row.get("id"),
                    "annotator": _number(row.get("completed_by")),
                    "solution": data.get("prm_solution"),
                    "reason": str(error),
                }
            )
            continue
        read.solutions[solution.id] = solution
        read.labels[solution.id, labels.annotator].append(labels)


def _number(user: Any) -> int | None:
    number = user.get("id") if isinstance(user, dict) else user
    return number if isinstance(number, int) else None
