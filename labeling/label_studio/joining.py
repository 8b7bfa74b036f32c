"""The windows that one annotator labelled of one solution, as one annotation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from labeling.label_studio.interface import FLAGS
from labeling.label_studio.results import WindowLabels
from labeling.label_studio.studio import Project
from labeling.label_studio.tasks import Window, windows
from labeling.label_studio.wording import Policy
from prm_kit.errors import InputError
from prm_kit.records import Annotation, LabelValue, Rater, Solution, StepLabel, step_hash

EDITED = "edited_by_other"
"""Flag: somebody else than the annotator changed the annotation in place."""

DISAGREES = "first_error_differs"
"""Flag: the step that was named as the first wrong one is not the first that was labelled wrong."""

INCOMPLETE = "incomplete"
"""Flag: windows of the solution are missing."""


class IncompleteError(InputError):
    """Windows that are needed have not been labelled by this annotator yet."""


def newest(found: Sequence[WindowLabels]) -> list[WindowLabels]:
    """Of one annotator and one solution: the latest labels of each window, in the order of the windows."""
    ordered = sorted(found, key=lambda labels: (labels.window.index, labels.time, labels.annotation))
    return [list(same)[-1] for _, same in groupby(ordered, key=lambda labels: labels.window.index)]


def join(
    solution: Solution,
    found: Sequence[WindowLabels],
    rater: Rater,
    policy: Policy,
    project: Project,
    names: dict[int, str],
    partial: bool = False,
) -> Annotation:
    """One annotation from the windows that one annotator labelled.

    Args:
        solution: What was labelled.
        found: From `newest`.
        rater: The annotator.
        policy: "all": every step has a label. "first-error": exactly the steps up to the first -1 have one, or all;
            windows after it need not be there.
        project: The project.
        names: What users are called, by user number.
        partial: Accept missing windows; the annotation is flagged.

    Raises:
        IncompleteError: A window is missing.
        InputError: The labels break the policy.
    """
    values: dict[int, LabelValue] = {}
    for labels in found:
        values.update(labels.values)
    n_steps = len(solution.spans)
    first_error, end = _end(values, n_steps, policy)
    missing = missing_windows(n_steps, found, policy)
    if missing and not partial:
        raise IncompleteError(not_yet(missing))
    away = {step for window in missing for step in range(window.first, window.last)}
    _check_policy(values, policy, end, n_steps, away)
    comments = {step: text for labels in found for step, text in labels.comments.items()}
    return Annotation(
        solution_id=solution.id,
        rater=rater,
        labels=tuple(
            StepLabel(step, values.get(step), step_hash(text), comment=comments.get(step))
            for step, text in enumerate(solution.steps)
            if step in values or step in comments
        ),
        time=max(labels.time for labels in found),
        flags=_flags(found, first_error, bool(missing)),
        lead_time=_lead_time(found),
        comment="\n".join(labels.comment for labels in found if labels.comment) or None,
        meta={"steps": n_steps, "label_studio": _meta(found, project, names)},
    )


def missing_windows(n_steps: int, found: Sequence[WindowLabels], policy: Policy) -> list[Window]:
    """The windows of a solution that an annotator has still to label.

    Args:
        n_steps: How many steps the solution has.
        found: From `newest`.
        policy: "first-error": windows after the first -1 need not be labelled.
    """
    _, end = _end({step: value for labels in found for step, value in labels.values.items()}, n_steps, policy)
    there = {labels.window.index for labels in found}
    return [window for window in windows(n_steps) if window.index not in there and window.first < end]


def not_yet(missing: Sequence[Window]) -> str:
    """What is missing, in words."""
    return f"steps {', '.join(f'{window.first} to {window.last - 1}' for window in missing)} are not labelled yet"


def _end(values: Mapping[int, LabelValue], n_steps: int, policy: Policy) -> tuple[int | None, int]:
    """The first step labelled wrong, and one past the last step that needs a label."""
    first_error = min((step for step, value in values.items() if value == -1), default=None)
    return first_error, n_steps if first_error is None or policy == "all" else first_error + 1


def _check_policy(values: dict[int, LabelValue], policy: Policy, end: int, n_steps: int, away: set[int]) -> None:
    if not values:
        raise InputError("no step has a label")
    open_steps = [step for step in range(n_steps) if step not in values and step not in away]
    if not open_steps:
        return
    early = [step for step in open_steps if step < end]
    if early:
        first = "" if policy == "all" else ", and no step before it is labelled wrong"
        raise InputError(f"step {early[0]} has no label{first}")
    late = [step for step in values if step >= end]
    if policy == "first-error" and late:
        raise InputError(
            f"step {end - 1} is the first one labelled wrong; of the steps after it some have a label "
            f"({late[0]}) and some have none ({open_steps[0]})"
        )


def _flags(found: Sequence[WindowLabels], first_error: int | None, incomplete: bool) -> tuple[str, ...]:
    said = {flag for labels in found for flag in labels.flags}
    flags = [flag for flag in FLAGS if flag in said]
    named = [labels.first_error for labels in found if labels.first_error is not None]
    if named and min(named) != first_error:
        flags.append(DISAGREES)
    if any(labels.edited_by is not None for labels in found):
        flags.append(EDITED)
    return (*flags, *([INCOMPLETE] if incomplete else []))


def _lead_time(found: Sequence[WindowLabels]) -> float | None:
    times = [labels.lead_time for labels in found if labels.lead_time is not None]
    return round(sum(times), 3) if len(times) == len(found) else None


def _meta(found: Sequence[WindowLabels], project: Project, names: dict[int, str]) -> dict[str, object]:
    """Where it comes from. Steps whose label is not `manual` are listed: somebody may only have accepted a prediction.

    The server's address is left out: a local server comes back on another port, and its annotations are still the
    same ones. Which project it was is told by its number and the time at which it was made.
    """
    predicted = {str(step): origin for labels in found for step, origin in labels.origins.items() if origin != "manual"}
    meta: dict[str, object] = {
        "project": project.id,
        "made": project.made,
        "tasks": [labels.task for labels in found],
        "annotations": [labels.annotation for labels in found],
        "unique_ids": [labels.unique_id for labels in found],
        "origin": predicted or "manual",
    }
    named = [labels.first_error for labels in found if labels.first_error is not None]
    if named:
        meta["named_first_error"] = min(named)
    editors = sorted({names.get(user, f"user {user}") for user in (labels.edited_by for labels in found) if user})
    return meta | ({"edited_by": editors} if editors else {})
