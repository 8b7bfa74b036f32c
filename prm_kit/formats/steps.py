"""Step lists: one solution a line with its steps and labels side by side.

{"id", "source", "license", "problem", "steps": [text], "labels": [-1 | 0 | 1 | null], "first_error": index | null,
"final_answer", "reference_answer", "is_correct", "meta": {}}

Only `problem` and `steps` must be there. What the reader knows of `meta`: `generator`; `human`, whether people wrote
the labels; `branch_step`, the step at which a branch leaves a trunk whose labels it repeats up to there.
`prm_kit.formats.step_blocks` reads the same rows block by block and many times as fast; what it says is tested to be
what `read_row` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prm_kit.errors import InputError
from prm_kit.formats.folding import Holds
from prm_kit.formats.format import Format, Item, Judged, Layout, Reading, Row, as_mapping, single
from prm_kit.records import Annotation, LabelValue, Rater, RaterKind, Solution

NAME = "steps"

KEYS = (
    "id",
    "source",
    "license",
    "problem",
    "steps",
    "labels",
    "first_error",
    "final_answer",
    "reference_answer",
    "is_correct",
    "meta",
)


class StepsLayout(Layout):
    """Options of the step-list format.

    Attributes:
        separator: What joins the steps to the completion.
        keep_repeated: Keep the labels that a branch repeats from its trunk. By default they become null and are
            counted, so that the trunk's steps do not weigh once more for every branch.
    """

    separator: str = "\n\n"
    keep_repeated: bool = False


class Provenance(NamedTuple):
    """What `meta` says that has a place of its own."""

    generator: str | None
    rater_kind: RaterKind
    branch_step: int


def read_row(row: Row, layout: StepsLayout) -> Reading:
    """One line, one solution, and one annotation if a label is left.

    Raises:
        InputError: What is wrong with the row.
    """
    texts = row.texts("steps")
    if not texts:
        raise InputError("steps: empty")
    labels = _labels(row.value.get("labels"), len(texts))
    if "first_error" in row.value:
        _check_first_error(row.value["first_error"], labels)
    is_correct = row.value.get("is_correct")
    if is_correct is not None and not isinstance(is_correct, bool):
        raise InputError(f"is_correct: {is_correct!r} is not true, false or null")
    given = {} if row.value.get("meta") is None else as_mapping(row.value, "meta")
    about = provenance(given, layout)
    if about.branch_step >= len(texts):
        raise InputError(f"meta.branch_step: {about.branch_step}, but there are {len(texts)} steps")
    reading = Reading()
    source = row.optional_text("source") or layout.source or NAME
    solution = Solution.from_steps(
        row.text("problem"),
        texts,
        layout.separator,
        final_answer=row.optional_text("final_answer"),
        reference_answer=row.optional_text("reference_answer"),
        is_correct=is_correct,
        generator=about.generator,
        source=source,
        licence=layout.licence if row.value.get("license") is None else row.text("license"),
        meta=_meta(row, given, layout, reading),
    )
    reading.seen.update("null" if label is None else str(label) for label in labels)
    if not layout.keep_repeated:
        labels, repeated = without_repeated(labels, about.branch_step)
        if repeated:
            reading.notes[REPEATED] += repeated
    annotations: tuple[Annotation, ...] = ()
    if any(label is not None for label in labels):
        rater = Rater(about.rater_kind, layout.rater_name or source)
        annotations = (Annotation.of(solution, rater, labels),)
    reading.items.append(Item(solution, annotations))
    return reading


REPEATED = "labels repeated from the parent, left out"
"""The note under which labels of a trunk that its branches repeat are counted."""


def provenance(meta: Mapping[str, Any], layout: StepsLayout) -> Provenance:
    """Read the keys of `meta` that this format knows.

    Raises:
        InputError: One of them has a wrong type.
    """
    generator, human, branch_step = meta.get("generator"), meta.get("human"), meta.get("branch_step")
    if generator is not None and not isinstance(generator, str):
        raise InputError(f"meta.generator: {generator!r} is not text")
    if human is not None and not isinstance(human, bool):
        raise InputError(f"meta.human: {human!r} is not true or false")
    if branch_step is not None and (isinstance(branch_step, bool) or not isinstance(branch_step, int)):
        raise InputError(f"meta.branch_step: {branch_step!r} is not a step index")
    if branch_step is not None and branch_step < 0:
        raise InputError(f"meta.branch_step: {branch_step} is not a step index")
    kind: RaterKind = "human" if human else "import"
    return Provenance(generator or layout.generator, layout.rater_kind or kind, branch_step or 0)


def without_repeated(
    labels: Sequence[LabelValue | None], branch_step: int
) -> tuple[tuple[LabelValue | None, ...], int]:
    """Make the labels before `branch_step` null; return the labels and how many were not null.

    A -1 stays: where the first error is must not change.
    """
    repeated = [i for i, label in enumerate(labels[:branch_step]) if label is not None and label != -1]
    return tuple(None if i in repeated else label for i, label in enumerate(labels)), len(repeated)


def write_row(group: Sequence[Judged], layout: StepsLayout) -> dict[str, Any]:
    """One annotated solution as a step list.

    The text between steps is not kept: read back, the steps are joined by the layout's separator, and a completion
    that had other gaps gets another id.
    """
    solution, annotation, folded = single(group)
    meta = {key: value for key, value in solution.meta.items() if key != "row_id"}
    if solution.generator is not None:
        meta["generator"] = solution.generator
    if annotation is not None:
        meta["human"] = annotation.rater.kind == "human"
    return {
        "id": solution.meta.get("row_id", solution.id),
        "source": solution.source,
        "license": solution.licence,
        "problem": solution.problem,
        "steps": list(solution.steps),
        "labels": list(folded.targets),
        "first_error": folded.targets.index(-1) if -1 in folded.targets else None,
        "final_answer": solution.final_answer,
        "reference_answer": solution.reference_answer,
        "is_correct": solution.is_correct,
        "meta": meta,
    }


def _labels(given: Any, n_steps: int) -> tuple[LabelValue | None, ...]:
    if given is None:
        return (None,) * n_steps
    if not isinstance(given, list):
        raise InputError(f"labels: {type(given).__name__} is not a list")
    if len(given) != n_steps:
        raise InputError(f"labels: {len(given)} labels for {n_steps} steps")
    for step, label in enumerate(given):
        if label is not None and (type(label) is not int or label not in (-1, 0, 1)):
            raise InputError(f"labels[{step}]: {label!r} is not -1, 0, 1 or null")
    return tuple(given)


def _check_first_error(given: Any, labels: Sequence[LabelValue | None]) -> None:
    if given is not None and (type(given) is not int or given < 0):
        raise InputError(f"first_error: {given!r} is not a step index or null")
    found = labels.index(-1) if -1 in labels else None
    if given != found:
        raise InputError(f"first_error: {given}, but the first label -1 is at {found}")


def _meta(row: Row, given: Mapping[str, Any], layout: StepsLayout, reading: Reading) -> dict[str, Any]:
    row_id = row.value.get("id")
    if row_id is not None and (isinstance(row_id, bool) or not isinstance(row_id, str | int)):
        raise InputError(f"id: {row_id!r} is not text")
    meta: dict[str, Any] = {"row_id": row.place if row_id is None else str(row_id)}
    if layout.split is not None:
        meta["split"] = layout.split
    unknown = {key: value for key, value in row.value.items() if key not in KEYS}
    for key in unknown:
        reading.notes[f"unknown key {key!r}, kept in meta"] += 1
    both = sorted(unknown.keys() & given.keys())
    if both or given.get("row_id", meta["row_id"]) != meta["row_id"]:
        raise InputError(f"{(both or ['row_id'])[0]}: stands beside meta and in it")
    return meta | unknown | dict(given)


STEPS = Format(
    name=NAME,
    about="step lists: problem, steps and labels of a solution on one line",
    layout=StepsLayout,
    read=read_row,
    write=write_row,
    holds=lambda layout: Holds(neutral=True, missing=True),
)
