"""Annotations of a project to the ledger: everything is checked here, because the server checks nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from labeling.label_studio.export import download, exported_tasks
from labeling.label_studio.interface import Page
from labeling.label_studio.joining import EDITED, IncompleteError, join, newest
from labeling.label_studio.results import WindowLabels, read_annotation
from labeling.label_studio.studio import Project, Studio
from labeling.label_studio.tasks import window_of
from prm_kit.errors import InputError
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, Solution

BATCH = 500


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
    """

    labels: dict[tuple[str, int], list[WindowLabels]] = field(default_factory=lambda: defaultdict(list))
    solutions: dict[str, Solution] = field(default_factory=dict)
    annotations: int = 0
    skipped: Counter[int] = field(default_factory=Counter)
    refused: list[dict[str, Any]] = field(default_factory=list)
    foreign: int = 0

    def users(self) -> set[int]:
        """Everybody who did something in it, by number: labelled, skipped, was refused, or edited another's labels."""
        refused = {entry["annotator"] for entry in self.refused}
        editors = {labels.edited_by for found in self.labels.values() for labels in found}
        users = {user for _, user in self.labels} | set(self.skipped) | refused | editors
        return {user for user in users if user is not None}


@dataclass
class Pulled:
    """What a pull did.

    Attributes:
        annotations: Annotations in the export, each of one window by one person.
        solutions: Joined annotations, each of one solution by one person.
        stored: Of these, how many are new in the ledger.
        known: How many were there already.
        incomplete: Missing windows: solution, annotator, reason.
        refused: As in `Read`, and joined annotations that break the policy.
        edited: Annotations that somebody else changed in place: solution, annotator, by whom.
        superseded: Labels of a window that the same person labelled again later.
        skipped: Skips, by annotator.
        by_annotator: Joined annotations by annotator.
        foreign_tasks: Labelled tasks that prm-kit did not push.
    """

    annotations: int = 0
    solutions: int = 0
    stored: int = 0
    known: int = 0
    incomplete: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    edited: list[dict[str, Any]] = field(default_factory=list)
    superseded: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    by_annotator: dict[str, int] = field(default_factory=dict)
    foreign_tasks: int = 0


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


def pull(
    studio: Studio,
    project: Project,
    page: Page,
    ledger: Ledger,
    export: Path,
    name_of: Callable[[str], str],
    partial: bool = False,
    patience: float = 180.0,
) -> tuple[Pulled, list[Annotation]]:
    """Bring every annotation of a project into the ledger; what is there already is not stored again.

    Args:
        studio: The server.
        project: The project.
        page: Its settings.
        ledger: It holds the solutions, because `push` stored them there.
        export: Where the server's answer is kept, verbatim (.json.gz).
        name_of: The rater's name for an e-mail address.
        partial: Also store what an annotator labelled of a solution of which windows are missing, flagged.
        patience: Seconds to wait for a server that is being restarted.

    Returns:
        What was done, and the joined annotations, known ones included.

    Raises:
        StudioDownError: The server does not come back, or keeps breaking off.
    """
    download(studio, project.id, export, patience)
    read = read_export(export, ledger.solution, page.policy)
    names = names_of(studio.emails(), name_of, read.users())
    pulled = Pulled(
        annotations=read.annotations,
        refused=[{**entry, "annotator": _name(entry["annotator"], names)} for entry in read.refused],
        skipped={_name(user, names): count for user, count in sorted(read.skipped.items())},
        foreign_tasks=read.foreign,
    )
    joined = sorted(
        _joined(read, page, project.id, names, partial, pulled), key=lambda annotation: (annotation.time, annotation.id)
    )
    for start in range(0, len(joined), BATCH):
        stored = ledger.append(joined[start : start + BATCH])
        pulled.stored += stored.annotations
        pulled.known += stored.known
    pulled.solutions = len(joined)
    pulled.by_annotator = dict(sorted(Counter(annotation.rater.name for annotation in joined).items()))
    return pulled, joined


def _joined(
    read: Read, page: Page, project: int, names: dict[int, str], partial: bool, pulled: Pulled
) -> Iterator[Annotation]:
    version = f"page-{page.version}-{page.policy}"
    for (solution_id, user), found in read.labels.items():
        labels = newest(found)
        pulled.superseded += len(found) - len(labels)
        who = {"solution": solution_id, "annotator": _name(user, names)}
        rater = Rater("human", who["annotator"], version)
        try:
            annotation = join(read.solutions[solution_id], labels, rater, page.policy, project, names, partial)
        except IncompleteError as error:
            pulled.incomplete.append(who | {"reason": str(error)})
            continue
        except InputError as error:
            numbers = {"task": labels[0].task, "annotation": labels[0].annotation}
            pulled.refused.append(numbers | who | {"reason": str(error)})
            continue
        if EDITED in annotation.flags:
            pulled.edited.append(who | {"by": annotation.meta["label_studio"]["edited_by"]})
        yield annotation


def names_of(emails: Mapping[int, str], name_of: Callable[[str], str], users: Set[int]) -> dict[int, str]:
    """What users are called, by user number; of the server's accounts only those asked for need a name.

    Raises:
        InputError: Two of them would have one name: their labels could not be told apart.
    """
    names = {user: name_of(email) for user, email in emails.items() if user in users}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise InputError(f"several annotators would be called {twice[0]!r}")
    return names


def pseudonym(email: str) -> str:
    """A name that is the same for an address everywhere and does not show it.

    Whoever has the address can find the name: a pseudonym, no anonymity.
    """
    return f"annotator-{sha256(f'prm-kit {email.strip().lower()}'.encode()).hexdigest()[:10]}"


def _name(user: int | None, names: Mapping[int, str]) -> str:
    return names.get(user, f"user-{user}") if user is not None else "nobody"


def _number(user: Any) -> int | None:
    number = user.get("id") if isinstance(user, dict) else user
    return number if isinstance(number, int) else None
