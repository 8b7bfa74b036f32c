"""openr's converted rows: `process` with a tag after each step and one label per step ("+"/"-" or 1/0)."""

from __future__ import annotations

from prm_kit.errors import InputError
from prm_kit.formats.format import Item, Layout, Reading, Row, hard_labels
from prm_kit.formats.tagged import pieces_at
from prm_kit.records import Annotation, LabelValue, Solution

STEP_TAGS = ("ки", "\n\n\n\n\n")
"""The two tags that openr uses: the first for Mistral's tokenizer, the second for Qwen's."""

_VALUES: dict[object, LabelValue] = {"+": 1, "-": -1, 1: 1, 0: -1}


def read_converted(row: Row, layout: Layout, step_tag: str | None) -> Reading:
    """One row, one solution.

    Raises:
        InputError: No tag, another number of labels than of tags, or a label that is none.
    """
    process = row.text("process")
    tag = step_tag or next((tag for tag in STEP_TAGS if tag in process), None)
    if tag is None:
        raise InputError("process: no step tag; set step_tag")
    steps = [piece.strip() for piece in pieces_at(process, tag)]
    given = row.array("label" if "label" in row.value else "labels")
    if len(given) != len(steps):
        raise InputError(f"label: {len(given)} labels for {len(steps)} step tags")
    wrong = next((i for i, label in enumerate(given) if not isinstance(label, str | int) or label not in _VALUES), None)
    if wrong is not None:
        raise InputError(f"label[{wrong}]: neither + nor -, nor 1 nor 0")
    solution = Solution.from_steps(row.text("question"), steps, "\n", **layout.fields("math-aps", row))
    annotation = Annotation(
        solution.id,
        layout.rater("rollout", "openr"),
        hard_labels(solution, [_VALUES[label] for label in given]),
        meta={"label_origin": "Monte-Carlo value, thresholded before this file was written"},
    )
    reading = Reading([Item(solution, (annotation,))])
    reading.seen.update(str(label) for label in given)
    return reading
