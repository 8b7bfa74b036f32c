"""Steps that add nothing whoever scores them: what they are valued at must not pay, so they are not valued.

A scorer that reads a step by itself may like a line the second time as well as the first. Left out of the process
reward and of every credit rule, such a step moves nothing: neither a sum, nor a mean, nor a minimum.
"""

from __future__ import annotations

from collections.abc import Sequence

from prm_kit.answer_text import extract_final_answer
from prm_kit.records import Solution


def idle_steps(solution: Solution) -> tuple[bool, ...]:
    """Which steps repeat an earlier one (whitespace and case levelled), hold no letter or digit, or follow the answer.

    To follow the answer is to stand after the last step that states one.
    """
    texts = [" ".join(step.split()).casefold() for step in solution.steps]
    stated = [place for place, step in enumerate(solution.steps) if extract_final_answer(step) is not None]
    end = stated[-1] if stated else len(texts)
    first = {text: place for place, text in reversed(list(enumerate(texts)))}
    return tuple(
        place > end or first[text] < place or not any(map(str.isalnum, text)) for place, text in enumerate(texts)
    )


def valued(solution: Solution, values: Sequence[float | None]) -> tuple[float | None, ...]:
    """A scorer's values without those of idle steps; (-1,) where no step is left: there is nothing to verify.

    Args:
        solution: The completion; it may have no steps.
        values: One for each step, None where the scorer abstained.
    """
    idle = idle_steps(solution)
    if all(idle):
        return (-1.0, *[None] * (len(idle) - 1))
    return tuple(None if is_idle else value for is_idle, value in zip(idle, values, strict=True))
