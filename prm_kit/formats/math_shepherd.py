"""Math-Shepherd: one text with a mark after each step, once with the marks and once with the labels (arXiv 2312.08935).

Labels are Monte-Carlo hard estimates: + if some rollout from there reached the answer. They are kept as +1 and -1 and
the annotation says so in its meta. `input` and `label` are aligned; no "+" or "-" is ever searched for in a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prm_kit.errors import InputError
from prm_kit.formats.folding import Holds
from prm_kit.formats.format import Format, Item, Judged, Reading, Row, hard_labels, single
from prm_kit.formats.tagged import TaggedLayout, steps_of, tagged_text
from prm_kit.records import Annotation, LabelValue, Solution

LABEL_ORIGIN = "Monte-Carlo hard estimation"


class MathShepherdLayout(TaggedLayout):
    """Options.

    Attributes:
        positive: The label of a right step.
        negative: The label of a wrong one.
    """

    positive: str = "+"
    negative: str = "-"


def read_row(row: Row, layout: MathShepherdLayout) -> Reading:
    """One row, one solution."""
    return read_tagged(row, layout, "math-shepherd")


def read_tagged(row: Row, layout: MathShepherdLayout, format_name: str) -> Reading:
    """One `input`/`label` row of any format with this layout.

    Raises:
        InputError: The two texts do not agree, or the first step cannot be told from the problem.
    """
    pieces, labels = align(row.text("input"), row.text("label"), layout)
    problem, steps = steps_of(pieces, layout)
    meta = {"subset": row.optional_text("task")}
    if layout.step_numbers == "outside":
        meta["step_numbers"] = "outside"
    solution = Solution.from_steps(problem, steps, layout.separator, **layout.fields(format_name, row, **meta))
    values: list[LabelValue] = [1 if label == layout.positive else -1 for label in labels]
    annotation = Annotation(
        solution.id,
        layout.rater("rollout", format_name),
        hard_labels(solution, values),
        meta={"label_origin": LABEL_ORIGIN},
    )
    reading = Reading([Item(solution, (annotation,))])
    reading.seen.update(labels)
    return reading


def align(marked: str, labelled: str, layout: MathShepherdLayout) -> tuple[list[str], list[str]]:
    """Walk both texts at once; return the texts before the marks and the label at each mark.

    Where `labelled` has the mark too it is text (a Russian problem may say it).

    Raises:
        InputError: They differ elsewhere than at the marks, or text follows the last mark.
    """
    pieces, labels = [], []
    begin, at, other = 0, 0, 0
    while (found := marked.find(layout.step_mark, at)) >= 0:
        width = found - at
        if labelled[other : other + width] != marked[at:found]:
            raise InputError("label: differs from input elsewhere than at the step marks")
        other, at = other + width, found + len(layout.step_mark)
        if labelled.startswith(layout.step_mark, other):
            other += len(layout.step_mark)
            continue
        label = next((tag for tag in (layout.positive, layout.negative) if labelled.startswith(tag, other)), None)
        if label is None:
            raise InputError("label: neither the positive nor the negative label where input has a step mark")
        other += len(label)
        pieces.append(marked[begin:found])
        labels.append(label)
        begin = at
    if not pieces:
        raise InputError(f"input: no step mark {layout.step_mark!r}")
    if marked[begin:].strip() or labelled[other:].strip():
        raise InputError("input: text after the last step mark")
    return pieces, labels


def write_rows(group: Sequence[Judged], layout: MathShepherdLayout) -> dict[str, Any]:
    """One solution, one row."""
    solution, _, folded = single(group)
    texts = tagged_pair(solution.problem, solution.steps, folded.targets, layout)
    return {**texts, "task": solution.meta.get("subset")}


def tagged_pair(
    problem: str, steps: Sequence[str], targets: Sequence[Any], layout: MathShepherdLayout
) -> dict[str, str]:
    """`input` and `label` of one solution."""
    tags = [layout.positive if target == 1 else layout.negative for target in targets]
    return {
        "input": tagged_text(problem, steps, [layout.step_mark] * len(steps), layout),
        "label": tagged_text(problem, steps, tags, layout),
    }


MATH_SHEPHERD = Format(
    name="math-shepherd",
    about="Math-Shepherd: a mark after every step in input, + or - in label",
    layout=MathShepherdLayout,
    read=read_row,
    write=write_rows,
    holds=lambda layout: Holds(),
)
