"""OpenRLHF's PRM rows: one text with a mark after each step, and one value a step (hard tokens or floats)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from prm_kit.errors import InputError
from prm_kit.formats.folding import Holds
from prm_kit.formats.format import Format, Item, Judged, Reading, Row, as_share, single, soft_label
from prm_kit.formats.tagged import TaggedLayout, pieces_at, steps_of, tagged_text
from prm_kit.records import Annotation, Solution, StepLabel, step_hash


class OpenRlhfLayout(TaggedLayout):
    """Options: what were the flags of its training script.

    Attributes:
        input_key: Key of the text.
        label_key: Key of the values.
        reward_tokens: The first one is positive, the second negative.
        labels: What is written: "hard" tokens or "soft" floats. Both are read.
    """

    input_key: str = "input"
    label_key: str = "value"
    reward_tokens: tuple[str, str] = ("+", "-")
    labels: Literal["hard", "soft"] = "hard"


def read_row(row: Row, layout: OpenRlhfLayout) -> Reading:
    """One row, one solution."""
    for key in (layout.input_key, layout.label_key):
        if key not in row.value:
            raise InputError(f"{key} is missing (the row has {', '.join(row.value)}); set input_key and label_key")
    pieces = pieces_at(row.text(layout.input_key), layout.step_mark)
    values = row.array(layout.label_key)
    if len(pieces) != len(values):
        raise InputError(f"{layout.label_key}: {len(values)} values for {len(pieces)} step marks")
    problem, steps = steps_of(pieces, layout)
    solution = Solution.from_steps(problem, steps, layout.separator, **layout.fields("openrlhf", row))
    labels = tuple(
        _label(step, text, value, layout) for step, (text, value) in enumerate(zip(steps, values, strict=True))
    )
    annotation = Annotation(solution.id, layout.rater("import", "openrlhf"), labels)
    reading = Reading([Item(solution, (annotation,))])
    reading.seen.update(value if isinstance(value, str) else "soft" for value in values)
    return reading


def _label(step: int, text: str, value: Any, layout: OpenRlhfLayout) -> StepLabel:
    where = f"{layout.label_key}[{step}]"
    if not isinstance(value, str):
        return soft_label(step, text, as_share(value, where))
    if value not in layout.reward_tokens:
        raise InputError(f"{where}: not one of the reward tokens {', '.join(layout.reward_tokens)}")
    return StepLabel(step, 1 if value == layout.reward_tokens[0] else -1, step_hash(text))


def write_rows(group: Sequence[Judged], layout: OpenRlhfLayout) -> dict[str, Any]:
    """One solution, one row."""
    solution, _, folded = single(group)
    positive, negative = layout.reward_tokens
    values: list[Any] = [positive if target == 1 else negative for target in folded.targets]
    if layout.labels == "soft":
        values = [as_float(target) for target in folded.targets]
    marks = [layout.step_mark] * len(solution.spans)
    return {
        layout.input_key: tagged_text(solution.problem, solution.steps, marks, layout),
        layout.label_key: values,
    }


def as_float(target: Any) -> float:
    """A folded target as a float in [0, 1]: +1 is 1.0, -1 is 0.0."""
    return target if isinstance(target, float) else float(target == 1)


OPENRLHF = Format(
    name="openrlhf",
    about="OpenRLHF PRM: a placeholder after every step, one value a step",
    layout=OpenRlhfLayout,
    read=read_row,
    write=write_rows,
    holds=lambda layout: Holds(soft=layout.labels == "soft"),
    warning="OpenRLHF's last version with a PRM trainer fails on float values (it writes them into an integer tensor)",
)
