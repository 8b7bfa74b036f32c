"""Ways to spoil a right solution, each with the label of the spoilt step where the way of making it leaves no doubt.

A change is refused (None) where the solution gives no occasion for it. What is altered in a step counts only where the
rules (`labeling.claims`) found the step right before and find it wrong afterwards, so that "wrong" is a false equality
and no matter of opinion. Whether a gap or a wrong order can be forgiven is one, so these two carry no label of their
own: only a program that knows the problem can label them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from labeling.claims import Claim, find_claims
from labeling.draft import Draft
from prm_kit.quantities import parse_quantity, plain_text, same_quantity
from prm_kit.records import LabelValue, Solution
from prm_kit.split.answer import find_answer

FILLERS = (
    "Let us go on.",
    "Let me think about the next step.",
    "Now we continue with the next part.",
    "Okay, let us see.",
)
"""What a filler step says by default: nothing."""

_TRIES = 24
_NUMBER = re.compile(r"(?<![\w.,\\])\d+(?:,\d{3})*(?:\.\d+)?(?![\w]|[.,]\d)")
_RESULT = re.compile(r"(?:=|≈|\\approx)[\s$£€\\(]*(-?\d+(?:,\d{3})*(?:\.\d+)?)(?![\w/^*+]|[.,]\d| *[-+*/^=×÷\\])")
_OPERATION = re.compile(r"(?P<left>\d[\d,.]*\s*)(?P<sign>[-+*/×÷]|\\times|\\cdot|\\div)(?P<right>\s*\d)(?![^<>]*>>)")
_OTHER_SIGNS = {
    "+": "-", "-": "+", "*": "+", "/": "*", "×": "+", "÷": "×", "\\times": "+", "\\cdot": "+", "\\div": "\\times"
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A solution to spoil.

    Attributes:
        solution: Right, as far as is known.
        draft: Its parts.
        values: Per step the label that is relied on, None where there is none. Never -1.
        fillers: What a filler step may say; "{result}" in it is the last number of the step before.
    """

    solution: Solution
    draft: Draft
    values: tuple[LabelValue | None, ...]
    fillers: Sequence[str] = FILLERS

    def claims(self, step: str) -> list[Claim]:
        """What the rules say of a step in this solution."""
        return find_claims(step, self.solution.problem, self.solution.completion)

    def is_right(self, index: int) -> bool:
        """Whether somebody who is relied on says that a step is right."""
        return self.values[index] in (0, 1)

    def places(self, random: Random, start: int, stop: int) -> Iterator[int]:
        """The numbers from `start` to before `stop`, in random order."""
        yield from random.sample(range(start, max(start, stop)), max(0, stop - start))


class Change(NamedTuple):
    """A spoilt solution.

    Attributes:
        draft: Its parts.
        at: The first step that is another than in the source.
        value: Its label; None where only somebody who knows the problem can tell.
        why: What was done, for the label's comment.
        inserted: Whether a step was put in that changes nothing, so that the labels of those after it still hold.
    """

    draft: Draft
    at: int
    value: LabelValue | None
    why: str
    inserted: bool = False


Corruption = Callable[[Source, Random], Change | None]
"""Spoils a solution, or refuses to."""


def early_answer(source: Source, random: Random) -> Change | None:
    """Stop in the middle and state what has been computed so far as the final answer: -1, for it is not the answer."""
    solution, steps = source.solution, source.draft.steps
    answer = find_answer(solution.completion)
    right = right_answer(solution)
    if answer is None or right is None or len(steps) < 3 or answer[0] < solution.spans[-1][0]:
        return None
    stated = solution.completion[slice(*answer)]
    for last in source.places(random, 0, len(steps) - 2):
        results = _RESULT.findall(steps[last])
        if not results or not _differ(results[-1], right):
            continue
        said = _replaced(steps[-1], stated, results[-1])
        if said is not None:
            draft = source.draft.kept([*range(last + 1), len(steps) - 1]).with_step(last + 1, said)
            return Change(draft, last + 1, -1, f"states the result of step {last} as the final answer")
    return None


def dropped_step(source: Source, random: Random) -> Change | None:
    """Leave out a step that computes something."""
    count = len(source.draft.steps)
    for index in source.places(random, 0, count - 1):
        if _RESULT.search(source.draft.steps[index]):
            kept = [step for step in range(count) if step != index]
            return Change(
                source.draft.kept(kept), index, None, f"step {index} of the source is missing before this one"
            )
    return None


def repeated_step(source: Source, random: Random) -> Change | None:
    """Say a right step twice: the second time it adds nothing, 0.

    Its equalities alone do not make a step right, so somebody has to have called it so; and as "subtract 3 from both
    sides" can well be done twice, it has to state an equality.
    """
    for index in source.places(random, 0, len(source.draft.steps)):
        if source.is_right(index) and source.claims(source.draft.steps[index]):
            draft = source.draft.inserted(index + 1, source.draft.steps[index])
            return Change(draft, index + 1, 0, f"step {index} once more", inserted=True)
    return None


def swapped_steps(source: Source, random: Random) -> Change | None:
    """Change the order of two steps, of which the second uses a number that the first computes."""
    steps = source.draft.steps
    for index in source.places(random, 0, len(steps) - 1):
        results = _RESULT.findall(steps[index])
        if results and results[-1] in _NUMBER.findall(steps[index + 1]) and steps[index] != steps[index + 1]:
            order = [*range(index), index + 1, index, *range(index + 2, len(steps))]
            return Change(source.draft.kept(order), index, None, f"steps {index} and {index + 1} changed places")
    return None


def contradictory_step(source: Source, random: Random) -> Change | None:
    """Say a right step once more with another result: -1."""
    for index in source.places(random, 0, len(source.draft.steps)):
        altered = _refuted(source, index, _other_results(source.draft.steps[index], random))
        if altered is not None:
            draft = source.draft.inserted(index + 1, altered)
            return Change(draft, index + 1, -1, f"contradicts step {index}: {_wrong(source, altered)}")
    return None


def filler_step(source: Source, random: Random) -> Change | None:
    """Put in a step that says nothing: 0."""
    steps = source.draft.steps
    for index in source.places(random, 1, len(steps)):
        said = random.choice(list(source.fillers))
        results = _RESULT.findall(steps[index - 1])
        if "{result}" in said and not (results and source.is_right(index - 1)):
            continue
        text = said.replace("{result}", results[-1]) if results else said
        return Change(source.draft.inserted(index, text), index, 0, "filler", inserted=True)
    return None


def altered_number(source: Source, random: Random) -> Change | None:
    """Change a digit so that an equality is false: -1."""
    return _altered(source, random, _other_numbers)


def altered_operator(source: Source, random: Random) -> Change | None:
    """Change a sign so that an equality is false: -1."""
    return _altered(source, random, _other_operators)


def _altered(source: Source, random: Random, others: Callable[[str, Random], Iterator[str]]) -> Change | None:
    """The first of a step's other forms that makes an equality false, at a random step that has one."""
    for index in source.places(random, 0, len(source.draft.steps)):
        altered = _refuted(source, index, others(source.draft.steps[index], random))
        if altered is not None:
            return Change(source.draft.with_step(index, altered), index, -1, _wrong(source, altered))
    return None


def right_answer(solution: Solution) -> str | None:
    """The right final answer of a solution's problem, as far as is known."""
    if solution.reference_answer is not None:
        return solution.reference_answer
    return solution.final_answer if solution.is_correct else None


def _refuted(source: Source, index: int, candidates: Iterator[str]) -> str | None:
    """The first candidate in which an equality of a right step has become false."""
    before = source.claims(source.draft.steps[index])
    if not before or any(claim.verdict != "right" for claim in before) or source.values[index] == 0:
        return None
    for _, candidate in zip(range(_TRIES), candidates, strict=False):
        after = source.claims(candidate)
        if len(after) == len(before) and any(claim.verdict == "wrong" for claim in after):
            return candidate
    return None


def _other_numbers(step: str, random: Random) -> Iterator[str]:
    found = list(_NUMBER.finditer(step))
    for match in random.sample(found, len(found)):
        yield from _with_other(step, match.start(), match.group(), random)


def _other_results(step: str, random: Random) -> Iterator[str]:
    found = list(_RESULT.finditer(step))
    for match in random.sample(found, len(found)):
        yield from _with_other(step, match.start(1), match[1], random)


def _with_other(step: str, start: int, number: str, random: Random) -> Iterator[str]:
    """The step with one digit of a number changed; with a calculator's note, wherever the number stands."""
    for _ in range(3):
        other = _other_number(number, random)
        if "<<" in step:
            said = _replaced(step, number, other)
            if said is not None:
                yield said
        else:
            yield step[:start] + other + step[start + len(number) :]


def _other_number(number: str, random: Random) -> str:
    places = [place for place, character in enumerate(number) if character.isdigit()]
    place = random.choice(places)
    lowest = 1 if place == places[0] and len(places) > 1 else 0
    digit = random.choice([str(d) for d in range(lowest, 10) if str(d) != number[place]])
    return number[:place] + digit + number[place + 1 :]


def _other_operators(step: str, random: Random) -> Iterator[str]:
    found = list(_OPERATION.finditer(step))
    for match in random.sample(found, len(found)):
        old, new = match.group(), f"{match['left']}{_OTHER_SIGNS[match['sign']]}{match['right']}"
        said = step[: match.start()] + new + step[match.end() :]
        yield said.replace(f"<<{''.join(old.split())}", f"<<{''.join(new.split())}")


def _replaced(text: str, number: str, other: str) -> str | None:
    """The text with a whole number replaced wherever it stands; None where it stands nowhere."""
    pattern = re.compile(rf"(?<![\w.,\\]){re.escape(number)}(?!\w|[.,]\d)")
    return pattern.sub(lambda _: other, text) if pattern.search(text) else None


def _differ(number: str, answer: str) -> bool:
    """Whether a number is certainly another one than an answer."""
    a, b = parse_quantity(plain_text(number)), parse_quantity(plain_text(answer))
    return a is not None and b is not None and same_quantity(a, b) is False


def _wrong(source: Source, step: str) -> str:
    return next(f"{claim.text}, but {claim.detail}" for claim in source.claims(step) if claim.verdict == "wrong")


CORRUPTIONS: dict[str, Corruption] = {
    "early_answer": early_answer,
    "dropped_step": dropped_step,
    "repeated_step": repeated_step,
    "swapped_steps": swapped_steps,
    "contradictory_step": contradictory_step,
    "filler_step": filler_step,
    "altered_number": altered_number,
    "altered_operator": altered_operator,
}
