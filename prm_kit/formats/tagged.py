r"""Text with a mark after every step, as Math-Shepherd introduced it and several formats copy it.

    <problem> Step 1: ... ки\nStep 2: ... ки

The steps end where the marks stand. Where the problem ends and the first step begins is not marked: it is the last
place before the first mark at which `first_step` ("Step 1:") follows white space, because a problem may say "Step 1:"
too. Where `first_step` is empty it is the last `problem_separator`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from prm_kit.errors import InputError, UsageError
from prm_kit.formats.format import Layout


class TaggedLayout(Layout):
    """Options of the formats that mark step ends inside a text.

    Attributes:
        step_mark: What stands after every step.
        problem_separator: What stands between the problem and the first step.
        first_step: How the first step begins; "" where nothing says so, then `problem_separator` must.
        step_numbers: "in_text": "Step 1: " is part of the step's text. "outside": it is taken off on reading and put
            on in writing.
        separator: What stands between two steps.
    """

    step_mark: str = "ки"
    problem_separator: str = " "
    first_step: str = "Step 1:"
    step_numbers: Literal["in_text", "outside"] = "in_text"
    separator: str = "\n"


def cut_problem(text: str, layout: TaggedLayout) -> tuple[str, str]:
    """Cut "problem separator first-step" in two.

    Raises:
        InputError: There is no such place, or nothing before it.
        UsageError: The options name no rule.
    """
    separator = layout.problem_separator
    if layout.first_step:
        starts = [found.start() for found in re.finditer(re.escape(layout.first_step), text, re.IGNORECASE)]
        starts = [at for at in starts if at > 0 and text[at - 1].isspace()]
        if not starts:
            raise InputError(f"no {layout.first_step!r} before the first step's end")
        at = starts[-1]
        problem, step = text[:at].removesuffix(separator), text[at:]
    elif separator.strip(" "):
        problem, found, step = text.rpartition(separator)
        if not found:
            raise InputError(f"no {separator!r} between problem and first step")
    else:
        raise UsageError("give first_step or a problem_separator that is not a space: nothing else ends the problem")
    if not problem.strip():
        raise InputError("no problem before the first step")
    return problem, step


def steps_of(pieces: Sequence[str], layout: TaggedLayout) -> tuple[str, list[str]]:
    """Problem and steps from the texts between the marks: the separator before and one space after each step go.

    Raises:
        InputError: A step is empty, or has no number where one is expected.
    """
    texts = [piece.removesuffix(" ") for piece in pieces]
    problem, first = cut_problem(texts[0], layout)
    steps = [first] + [text.removeprefix(layout.separator) for text in texts[1:]]
    if layout.step_numbers == "outside":
        steps = [_without_number(step, index) for index, step in enumerate(steps)]
    for index, step in enumerate(steps):
        if not step.strip():
            raise InputError(f"step {index} is empty")
    return problem, steps


def tagged_text(problem: str, steps: Sequence[str], marks: Sequence[str], layout: TaggedLayout) -> str:
    """Write problem and steps with one mark after each step.

    Raises:
        InputError: A text holds the step mark itself, or the first step does not begin as the layout says.
    """
    for name, text in (("the problem", problem), *((f"step {i}", step) for i, step in enumerate(steps))):
        if layout.step_mark in text:
            raise InputError(f"{name} contains the step mark {layout.step_mark!r}")
    if layout.step_numbers == "outside":
        steps = [f"Step {index + 1}: {step}" for index, step in enumerate(steps)]
    if layout.first_step and not steps[0].lower().startswith(layout.first_step.lower()):
        raise InputError(
            f"the first step does not begin with {layout.first_step!r}, so nobody could tell it from the problem; "
            "set step_numbers to outside to have numbers put on"
        )
    body = layout.separator.join(f"{step} {mark}" for step, mark in zip(steps, marks, strict=True))
    return f"{problem}{layout.problem_separator}{body}"


def pieces_at(text: str, mark: str) -> list[str]:
    """The texts before each mark.

    Raises:
        InputError: No mark, or text after the last one.
    """
    *pieces, rest = text.split(mark)
    if not pieces:
        raise InputError(f"no step mark {mark!r}")
    if rest.strip():
        raise InputError("text after the last step mark")
    return pieces


def _without_number(step: str, index: int) -> str:
    number = f"Step {index + 1}: "
    if not step.lower().startswith(number.lower()):
        raise InputError(f"step {index} does not begin with its number")
    return step[len(number) :]
