"""Solutions of several pages of which an annotator has labelled some: which pages are missing, and where they are.

Label Studio hands every page to whoever asks next, so two people who work at once may each get a part of a long
solution. Parts by different people are never joined: whoever began a solution opens the missing pages by their
address, even where somebody else has labelled them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from labeling.label_studio.joining import missing_windows, newest, not_yet
from labeling.label_studio.reading import Read
from labeling.label_studio.studio import Project, Studio
from labeling.label_studio.tasks import Window, uid
from labeling.label_studio.wording import Policy


def missing_pages(
    studio: Studio, project: Project, read: Read, policy: Policy, names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """What is missing from whom; the server is asked for its tasks only if something is.

    Args:
        studio: The server.
        project: The project.
        read: What its export holds.
        policy: The project's.
        names: What users are called, by user number.

    Returns:
        One row an annotator and solution: solution, annotator, reason, and pages: page (from 1), of, task (its number,
        None if it is not on the server), labelled_by (others who labelled it), open (its address).
    """
    by_page: dict[tuple[str, int], list[str]] = defaultdict(list)
    left: list[tuple[str, int, list[Window]]] = []
    for (solution_id, user), found in read.labels.items():
        labelled = newest(found)
        for labels in labelled:
            by_page[solution_id, labels.window.index].append(names.get(user, f"user-{user}"))
        missing = missing_windows(len(read.solutions[solution_id].spans), labelled, policy)
        if missing:
            left.append((solution_id, user, missing))
    if not left:
        return []
    numbers = {task.uid: task.id for task in studio.tasks(project.id)}
    place = f"{studio.url}projects/{project.id}/data?task="

    def page_of(solution_id: str, window: Window) -> dict[str, Any]:
        task = numbers.get(uid(solution_id, window))
        page = {"page": window.index + 1, "of": window.count, "labelled_by": by_page[solution_id, window.index]}
        return page | {"task": task, "open": None if task is None else f"{place}{task}"}

    return [
        {
            "solution": solution_id,
            "annotator": names.get(user, f"user-{user}"),
            "reason": not_yet(missing),
            "pages": [page_of(solution_id, window) for window in missing],
        }
        for solution_id, user, missing in left
    ]
