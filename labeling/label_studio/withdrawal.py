"""What the ledger holds of a project and the server does not any more: labels taken back, and labels that stand again.

The ledger is append-only: whoever deletes an annotation on the server, or turns it into a skip, is recorded with an
annotation that has no labels and the flag `WITHDRAWN`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from labeling.label_studio.studio import Project
from labeling.labeler import WITHDRAWN
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation

RESTORED = "restored"
"""Key in an annotation's provenance: when it was found to stand again. The ledger stores the same content once, so
without it labels that were replaced or taken back could not come back."""

Standing = Mapping[tuple[str, str], Annotation]
"""The current annotations of people, by solution id and rater."""


def standing_of(ledger: Ledger) -> Standing:
    """What people say, by the ledger."""
    return {(a.solution_id, a.rater.name): a for a in ledger.current() if a.rater.kind == "human"}


def standing_again(
    joined: Iterable[Annotation], standing: Standing, ledger: Ledger, project: Project, time: str
) -> list[Annotation]:
    """The annotations of a pull as they have to be appended to be the current ones.

    One that the ledger knows and that something else of this project has superseded since (a second annotation that
    was deleted again, or a withdrawal) gets the time at which it was found to stand. What another project says later
    about the same solution is left alone.

    Args:
        joined: What the server holds now.
        standing: What the ledger says.
        ledger: Asked for what was said before.
        project: The project.
        time: Now, ISO 8601 in UTC.
    """
    found = []
    for annotation in joined:
        there = standing.get((annotation.solution_id, annotation.rater.name))
        if there is not None and annotation.id not in (there.id, _with(there, RESTORED, None).id):
            before = {said.id for said in ledger.history(annotation.solution_id, annotation.rater)}
            if annotation.id in before and (_is_of(there, project) or WITHDRAWN in there.flags):
                annotation = _with(annotation, RESTORED, time)
        found.append(annotation)
    return found


def withdrawn(
    joined: Collection[Annotation],
    standing: Standing,
    present: Collection[str],
    known_tasks: Callable[[], Collection[int]],
    project: Project,
    time: str,
) -> tuple[list[Annotation], int]:
    """Annotations that take back what the server does not hold any more.

    Taken back is what was deleted or skipped since it was pulled, and what the same annotation now says under another
    name (people were called otherwise before). Where the whole task was removed nothing is taken back: that is tidying
    up, and says nothing about the labels.

    Args:
        joined: What the server holds now.
        standing: What the ledger says.
        present: Lasting ids of the annotations that the server holds, skips left out.
        known_tasks: The numbers of the tasks that the server holds; called only if something is missing.
        project: The project.
        time: Now, ISO 8601 in UTC.

    Returns:
        The annotations, and how many stay because their task was removed.
    """
    said = {(annotation.solution_id, annotation.rater.name) for annotation in joined}
    renamed = {unique for annotation in joined for unique in _place(annotation)["unique_ids"]}
    gone = []
    for key, there in standing.items():
        if key not in said and _is_of(there, project) and WITHDRAWN not in there.flags:
            ids = _place(there)["unique_ids"]
            if not all(unique in present for unique in ids) or any(unique in renamed for unique in ids):
                gone.append(there)
    tasks = set(known_tasks()) if gone else set()
    taken = [there for there in gone if tasks.issuperset(_place(there)["tasks"])]
    return [_taken_back(there, time) for there in taken], len(gone) - len(taken)


def _taken_back(there: Annotation, time: str) -> Annotation:
    meta = {"steps": there.meta["steps"], "label_studio": _place(there), WITHDRAWN: there.id}
    return Annotation(there.solution_id, there.rater, (), time, (WITHDRAWN,), meta=meta)


def _place(annotation: Annotation) -> Mapping[str, Any]:
    place = annotation.meta.get("label_studio")
    return place if isinstance(place, Mapping) else {}


def _is_of(annotation: Annotation, project: Project) -> bool:
    """Whether it came from this project; of one whose time is unknown nobody can tell."""
    place = _place(annotation)
    return bool(project.made) and (place.get("project"), place.get("made")) == (project.id, project.made)


def _with(annotation: Annotation, key: str, value: str | None) -> Annotation:
    """The annotation with an entry in its provenance set, or left out."""
    meta = {name: said for name, said in annotation.meta.items() if name != key}
    return replace(annotation, meta=meta if value is None else meta | {key: value})
