"""Annotations of a project to the ledger, and what is gone from the project taken back in the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from labeling.label_studio.export import download
from labeling.label_studio.interface import Page
from labeling.label_studio.joining import EDITED, IncompleteError, join, newest
from labeling.label_studio.missing import missing_pages
from labeling.label_studio.reading import Read, read_export
from labeling.label_studio.studio import Project, Studio
from labeling.label_studio.withdrawal import standing_again, standing_of, withdrawn
from prm_kit.errors import InputError
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater

BATCH = 500


@dataclass
class Pulled:
    """What a pull did.

    Attributes:
        annotations: Annotations in the export, each of one window by one person.
        solutions: Joined annotations, each of one solution by one person.
        stored: Of these, how many are new in the ledger.
        known: How many were there already.
        incomplete: What is missing from whom, from `missing_pages`; left empty where parts are stored.
        refused: As in `Read`, and joined annotations that break the policy.
        withdrawn: What was taken back, because it was deleted or skipped on the server: solution, annotator.
        tasks_removed: Annotations that stay in the ledger though their task was removed from the server.
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
    withdrawn: list[dict[str, Any]] = field(default_factory=list)
    tasks_removed: int = 0
    edited: list[dict[str, Any]] = field(default_factory=list)
    superseded: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    by_annotator: dict[str, int] = field(default_factory=dict)
    foreign_tasks: int = 0


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
        incomplete=[] if partial else missing_pages(studio, project, read, page.policy, names),
        skipped={_name(user, names): count for user, count in sorted(read.skipped.items())},
        foreign_tasks=read.foreign,
    )
    joined = sorted(
        _joined(read, page, project, names, partial, pulled), key=lambda annotation: (annotation.time, annotation.id)
    )
    _store(ledger, studio, project, joined, read.present, pulled)
    pulled.solutions = len(joined)
    pulled.by_annotator = dict(sorted(Counter(annotation.rater.name for annotation in joined).items()))
    return pulled, joined


def _store(
    ledger: Ledger, studio: Studio, project: Project, joined: list[Annotation], present: Set[str], pulled: Pulled
) -> None:
    """Append what is new, and take back what is gone."""
    standing, now = standing_of(ledger), datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    todo = standing_again(joined, standing, ledger, project, now)
    for start in range(0, len(todo), BATCH):
        stored = ledger.append(todo[start : start + BATCH])
        pulled.stored += stored.annotations
        pulled.known += stored.known

    def known_tasks() -> Set[int]:
        return {task.id for task in studio.tasks(project.id)}

    gone, pulled.tasks_removed = withdrawn(joined, standing, present, known_tasks, project, now)
    ledger.append(gone)
    pulled.withdrawn = [{"solution": taken.solution_id, "annotator": taken.rater.name} for taken in gone]


def _joined(
    read: Read, page: Page, project: Project, names: dict[int, str], partial: bool, pulled: Pulled
) -> Iterator[Annotation]:
    version = f"page-{page.version}-{page.policy}"
    for (solution_id, user), found in read.labels.items():
        labels = newest(found)
        pulled.superseded += len(found) - len(labels)
        who = {"solution": solution_id, "annotator": _name(user, names)}
        rater = Rater("human", who["annotator"], version)
        try:
            annotation = join(read.solutions[solution_id], labels, rater, page.policy, project, names, partial)
        except IncompleteError:
            continue  # told by `missing_pages`
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
