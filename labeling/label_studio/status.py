"""How far the annotators are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from labeling.label_studio.export import download
from labeling.label_studio.interface import Page
from labeling.label_studio.joining import newest
from labeling.label_studio.missing import missing_pages
from labeling.label_studio.pull import names_of
from labeling.label_studio.reading import Read, read_export
from labeling.label_studio.studio import Project, Studio
from prm_kit.records import Solution


def status(
    studio: Studio,
    project: Project,
    page: Page,
    solution_of: Callable[[str], Solution | None],
    export: Path,
    name_of: Callable[[str], str],
) -> dict[str, Any]:
    """Count what is labelled, by annotator; nothing is stored.

    Args:
        studio: The server.
        project: The project.
        page: Its settings.
        solution_of: The solution of an id, None where it is unknown.
        export: Where the server's answer is kept.
        name_of: The name for an e-mail address.

    Returns:
        Tasks (windows), how many have an annotation and how many as many as asked for, and per annotator: windows,
        labels by value, skips, refused annotations, seconds per step (median over windows), last activity. And in
        `incomplete` what is missing from whom, from `missing_pages`.
    """
    download(studio, project.id, export)
    read = read_export(export, solution_of, page.policy)
    names = names_of(studio.emails(), name_of, read.users())
    per_window: Counter[tuple[str, int]] = Counter()
    for (solution_id, _), found in read.labels.items():
        per_window.update((solution_id, labels.window.index) for labels in newest(found))
    return {
        "project": project.title,
        "number": project.id,
        "policy": page.policy,
        "overlap": project.overlap,
        "tasks": project.tasks,
        "tasks_labelled": len(per_window),
        "tasks_finished": sum(count >= project.overlap for count in per_window.values()),
        "annotators": _annotators(read, names),
        "incomplete": missing_pages(studio, project, read, page.policy, names),
    }


def _annotators(read: Read, names: Mapping[int, str]) -> list[dict[str, Any]]:
    done: dict[int, dict[str, Any]] = defaultdict(lambda: {"windows": 0, "values": Counter(), "pace": [], "last": ""})
    for (_, user), found in read.labels.items():
        entry = done[user]
        for labels in newest(found):
            entry["windows"] += 1
            entry["values"].update(labels.values.values())
            entry["last"] = max(entry["last"], labels.time)
            if labels.lead_time is not None and labels.values:
                entry["pace"].append(labels.lead_time / len(labels.values))
    for user in read.skipped:
        done[user]  # an annotator who only skipped is one too
    refused = Counter(entry["annotator"] for entry in read.refused if isinstance(entry["annotator"], int))
    return [
        {
            "annotator": names.get(user, f"user-{user}"),
            "windows": entry["windows"],
            "labels": {str(value): entry["values"][value] for value in (-1, 0, 1)},
            "skipped": read.skipped[user],
            "refused": refused[user],
            "seconds_per_step": round(median(entry["pace"]), 1) if entry["pace"] else None,
            "last": entry["last"] or None,
        }
        for user, entry in sorted(done.items())
    ]
