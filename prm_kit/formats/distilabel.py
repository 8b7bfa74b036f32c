"""distilabel's FormatPRM: what it is given (instruction, solutions) and what it makes of it (Math-Shepherd's)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from prm_kit.errors import InputError
from prm_kit.formats.folding import Holds
from prm_kit.formats.format import Format, Item, Judged, Reading, Row, hard_labels, single
from prm_kit.formats.math_shepherd import LABEL_ORIGIN, MathShepherdLayout, read_tagged, tagged_pair
from prm_kit.records import Annotation, LabelValue, Solution


class DistilabelLayout(MathShepherdLayout):
    """Options. Labels may be longer than one character.

    Attributes:
        shape: What is written: "solutions" (one labelled text per step) or "math-shepherd". Both are read.
    """

    shape: Literal["solutions", "math-shepherd"] = "solutions"


def read_row(row: Row, layout: DistilabelLayout) -> Reading:
    """One row of either shape, one solution."""
    if "solutions" not in row.value:
        return read_tagged(row, layout, "distilabel")
    steps, labels = [], []
    for index, text in enumerate(row.texts("solutions")):
        step, label = _split_label(text.rstrip("\n"), index, layout)
        steps.append(step)
        labels.append(label)
    solution = Solution.from_steps(row.text("instruction"), steps, layout.separator, **layout.fields("distilabel", row))
    values: list[LabelValue] = [1 if label == layout.positive else -1 for label in labels]
    annotation = Annotation(
        solution.id,
        layout.rater("rollout", "distilabel"),
        hard_labels(solution, values),
        meta={"label_origin": LABEL_ORIGIN},
    )
    reading = Reading([Item(solution, (annotation,))])
    reading.seen.update(labels)
    return reading


def _split_label(text: str, index: int, layout: DistilabelLayout) -> tuple[str, str]:
    # The longer label first: one may end with the other.
    for label in sorted((layout.positive, layout.negative), key=len, reverse=True):
        if text.endswith(label):
            return text.removesuffix(label).removesuffix(" "), label
    raise InputError(f"solutions[{index}]: ends with neither {layout.positive!r} nor {layout.negative!r}")


def write_rows(group: Sequence[Judged], layout: DistilabelLayout) -> dict[str, Any]:
    """One solution, one row."""
    solution, _, folded = single(group)
    if layout.shape == "math-shepherd":
        return dict(tagged_pair(solution.problem, solution.steps, folded.targets, layout))
    labels = [layout.positive if target == 1 else layout.negative for target in folded.targets]
    return {
        "instruction": solution.problem,
        "solutions": [f"{step} {label}" for step, label in zip(solution.steps, labels, strict=True)],
    }


DISTILABEL = Format(
    name="distilabel",
    about="distilabel FormatPRM: instruction with labelled solutions, or Math-Shepherd's layout",
    layout=DistilabelLayout,
    read=read_row,
    write=write_rows,
    holds=lambda layout: Holds(),
)
