"""TRL's stepwise supervision (and axolotl's, and Soup's): a prompt, its steps, one label a step.

A bool is a hard label, a float a soft one; both are kept as they are and written back as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from prm_kit.errors import InputError
from prm_kit.formats.folding import Holds
from prm_kit.formats.format import Format, Item, Judged, Layout, Reading, Row, as_share, single, soft_label
from prm_kit.records import Annotation, Solution, StepLabel, step_hash


class TrlLayout(Layout):
    """Options.

    Attributes:
        separator: What stands between two steps of the completion (TRL's `step_separator`).
        labels: What is written: "bool", or "float" with soft labels as they are. Both are read.
    """

    separator: str = "\n"
    labels: Literal["bool", "float"] = "bool"


def read_row(row: Row, layout: TrlLayout) -> Reading:
    """One row, one solution."""
    if isinstance(row.value.get("prompt"), list):
        raise InputError("prompt: a list of chat messages; stepwise supervision has plain text here")
    steps, values = row.texts("completions"), row.array("labels")
    if len(steps) != len(values):
        raise InputError(f"labels: {len(values)} labels for {len(steps)} completions")
    solution = Solution.from_steps(row.text("prompt"), steps, layout.separator, **layout.fields("trl", row))
    labels = [_label(step, text, value) for step, (text, value) in enumerate(zip(steps, values, strict=True))]
    annotation = Annotation(
        solution.id, layout.rater("import", "trl"), tuple(label for label in labels if label is not None)
    )
    reading = Reading([Item(solution, (annotation,))])
    reading.seen.update("soft" if isinstance(value, float) else str(value) for value in values)
    return reading


def _label(step: int, text: str, value: Any) -> StepLabel | None:
    if value is None:
        return None
    if isinstance(value, float):
        return soft_label(step, text, as_share(value, f"labels[{step}]"))
    if value is True or value is False or value in (0, 1):
        return StepLabel(step, 1 if value else -1, step_hash(text))
    raise InputError(f"labels[{step}]: neither true, false nor a number in [0, 1]")


def write_rows(group: Sequence[Judged], layout: TrlLayout) -> dict[str, Any]:
    """One solution, one row."""
    solution, _, folded = single(group)
    hard = layout.labels == "bool"
    return {
        "prompt": solution.problem,
        "completions": list(solution.steps),
        "labels": [
            target == 1 if hard else target if isinstance(target, float) else float(target == 1)
            for target in folded.targets
        ],
    }


TRL = Format(
    name="trl",
    about="TRL stepwise supervision: prompt, completions, labels",
    layout=TrlLayout,
    read=read_row,
    write=write_rows,
    holds=lambda layout: Holds(soft=layout.labels == "float"),
    warning="TRL's PRMTrainer truncates float labels to integers (0.7 becomes 0): train on bool labels there",
)
