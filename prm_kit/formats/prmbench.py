"""PRMBench: PRM800K solutions with errors that GPT-4o put in; `error_steps` is 1-based (arXiv 2501.03124).

What is judged is `modified_question` with `modified_process`. `idx` repeats within and across the files, so a row is
known by its file and number. In the class "redundency" (so spelt there) the marked steps are right but redundant: they
are labelled 0. In every other class they are labelled -1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from prm_kit.errors import InputError
from prm_kit.formats.folding import Holds
from prm_kit.formats.format import Format, Item, Judged, Layout, Reading, Row, hard_labels, single
from prm_kit.records import Annotation, LabelValue, Solution

REDUNDANT_CLASS = "redundency"
_PREFIX = re.compile(r"(?:step\s*)?\d+\s*[.:]\s+", re.IGNORECASE)
_KEPT = ("idx", "classification", "modified_steps", "original_question", "original_process", "question",
         "ground_truth", "original_response")  # fmt: skip


class PrmBenchLayout(Layout):
    """Options.

    Attributes:
        separator: What stands between two steps of the completion.
        step_prefix: "strip" takes "1. " or "Step 1. " off each step and keeps it in `meta.step_prefixes`; "keep".
        originals: Also read the unmodified solution of each row, every step +1, as `meta.variant` "original".
        redundant: Label of a marked step of the class "redundency".
    """

    separator: str = "\n\n"
    step_prefix: Literal["strip", "keep"] = "strip"
    originals: bool = False
    redundant: Literal[0, -1] = 0


def read_row(row: Row, layout: PrmBenchLayout) -> Reading:
    """One row: the modified solution, and the original one if asked for."""
    reading = Reading()
    steps = row.texts("modified_process")
    errors = row.array("error_steps")
    if any(isinstance(error, bool) or not isinstance(error, int) for error in errors):
        raise InputError("error_steps: not a list of whole numbers")
    marked = {error for error in errors if 1 <= error <= len(steps)}
    beyond = sorted(set(errors) - marked)
    if beyond:
        reading.notes["an entry of error_steps is not a step, ignored"] += len(beyond)
    value = layout.redundant if row.value.get("classification") == REDUNDANT_CLASS else -1
    labels: list[LabelValue | None] = [value if step + 1 in marked else 1 for step in range(len(steps))]
    meta = {key: row.value[key] for key in _KEPT if row.value.get(key) is not None}
    solution = _solution(row, layout, row.text("modified_question"), steps, variant="modified", **meta)
    annotation = Annotation(
        solution.id,
        layout.rater("construction", "prmbench"),
        hard_labels(solution, labels),
        comment=row.optional_text("reason"),
        meta={"ignored_error_steps": beyond} if beyond else {},
    )
    reading.items.append(Item(solution, (annotation,)))
    reading.seen.update({"error step": len(marked), "other step": len(steps) - len(marked)})
    if layout.originals and row.value.get("original_process"):
        reading.items.append(_original(row, layout))
    return reading


def _original(row: Row, layout: PrmBenchLayout) -> Item:
    steps = row.texts("original_process")
    meta = {"idx": row.value.get("idx"), "variant": "original"}
    solution = _solution(row, layout, row.text("original_question"), steps, **meta)
    annotation = Annotation(
        solution.id, layout.rater("construction", "prmbench"), hard_labels(solution, [1] * len(steps))
    )
    return Item(solution, (annotation,))


def _solution(row: Row, layout: PrmBenchLayout, problem: str, steps: Sequence[str], **meta: Any) -> Solution:
    if layout.step_prefix == "strip":
        prefixes = [found.group() if (found := _PREFIX.match(step)) else "" for step in steps]
        steps = [step[len(prefix) :] for step, prefix in zip(steps, prefixes, strict=True)]
        meta["step_prefixes"] = prefixes
    return Solution.from_steps(problem, steps, layout.separator, **layout.fields("prmbench", row, **meta))


def write_rows(group: Sequence[Judged], layout: PrmBenchLayout) -> dict[str, Any]:
    """One solution, one row; steps that are not +1 are its error steps."""
    solution, annotation, folded = single(group)
    meta = solution.meta
    redundant = meta.get("classification") == REDUNDANT_CLASS
    wrong = layout.redundant if redundant else -1
    other = next((target for target in folded.targets if target not in (1, wrong)), None)
    if other is not None:
        raise InputError(f"label {other} in class {meta.get('classification')!r} does not fit into error_steps")
    steps = list(solution.steps)
    if layout.step_prefix == "strip":
        prefixes = meta.get("step_prefixes") or [f"{index + 1}. " for index in range(len(steps))]
        steps = [prefix + step for prefix, step in zip(prefixes, steps, strict=True)]
    errors = [index + 1 for index, target in enumerate(folded.targets) if target == wrong]
    ignored = annotation.meta.get("ignored_error_steps", []) if annotation else []
    return {
        **{key: meta[key] for key in _KEPT if key in meta},
        "modified_question": solution.problem,
        "modified_process": steps,
        "error_steps": sorted([*errors, *ignored]),
        "reason": annotation.comment if annotation else None,
    }


PRMBENCH = Format(
    name="prmbench",
    about="PRMBench: modified solutions and their 1-based error steps",
    layout=PrmBenchLayout,
    read=read_row,
    write=write_rows,
    holds=lambda layout: Holds(neutral=layout.redundant == 0),
)
