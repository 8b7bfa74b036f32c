"""Exact step labels of the embedded task, by program.

A step is judged given the steps before it as written, whatever the problem's true value is by then:

+1  the problem's next operation, done right, on the value that the steps before reached as written; or the answer line
    that states that value when no operation is left.
0   a correct line that adds nothing: it states the value reached ("So far 30"), or repeats an earlier line that was
    right.
-1  everything else: wrong arithmetic, another number or operation than the next one, a wrong line once more, an early
    or a wrong answer, a line that says nothing checkable, anything new after the answer.

So right arithmetic on an earlier wrong value is +1. Whoever wants nothing judged after the first error masks it in
training; the labels do not.

After a wrong line the problem goes on from what the line says: its result is the value reached, and its operation is
done. A line with an operation that is further down the problem skips what lies between; one that shares its sign or
its number with the next operation took its place; any other was put in between.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prm_kit.records import LabelValue

Operation = tuple[str, int]
"""One of "+", "-", "*", and the operand."""

_NUMBER = re.compile(r"Step \d+: *", re.ASCII)
_EQUATION = re.compile(r"(-?\d+) ([-+*]) (\d+) = (-?\d+)", re.ASCII)
_RESTATING = re.compile(r"So far (-?\d+)", re.ASCII)
_ANSWER = re.compile(r"Answer: (-?\d+)", re.ASCII)
_LONGEST = 80


@dataclass(frozen=True)
class Chain:
    """A start value and the operations to carry it through."""

    start: int
    operations: tuple[Operation, ...]

    @property
    def values(self) -> list[int]:
        """The start value and the value after each operation."""
        values = [self.start]
        for symbol, operand in self.operations:
            values.append(_result(values[-1], symbol, operand))
        return values

    @property
    def value(self) -> int:
        """Where the operations lead."""
        return self.values[-1]

    def stays_within(self, highest: int) -> bool:
        """Whether no value on the way is negative or above `highest`."""
        return all(0 <= value <= highest for value in self.values)


def label_chain(chain: Chain, steps: Sequence[str]) -> tuple[LabelValue, ...]:
    """Label every step of a solution of `chain`.

    Args:
        chain: The problem.
        steps: The steps' texts, with or without "Step 2: " before them.

    Returns:
        One label a step; see the module's text for what each means.
    """
    judge = _Judge(chain)
    return tuple(judge.label(step) for step in steps)


class _Judge:
    """Reads the steps one by one: the value reached as written, the next operation, what was said before."""

    def __init__(self, chain: Chain) -> None:
        self.operations = chain.operations
        self.value = chain.start
        self.next = 0
        self.answered = False
        self.first_labels: dict[str, LabelValue] = {}

    def label(self, step: str) -> LabelValue:
        text = step.strip()
        if len(text) > _LONGEST:
            return -1
        number = _NUMBER.match(text)
        said = text[number.end() :] if number else text
        equation = _EQUATION.fullmatch(said)
        if equation:
            label = self._equation(int(equation[1]), (equation[2], int(equation[3])), int(equation[4]), said)
        elif restating := _RESTATING.fullmatch(said):
            return self._restating(int(restating[1]))
        elif answer := _ANSWER.fullmatch(said):
            label = self._answer(int(answer[1]), said)
        else:
            return -1
        self.first_labels.setdefault(said, label)
        return label

    def _equation(self, left: int, operation: Operation, result: int, said: str) -> LabelValue:
        is_next = self.next < len(self.operations) and operation == self.operations[self.next] and left == self.value
        if is_next and not self.answered and result == _result(left, *operation):
            self._go_on(operation, result)
            return 1
        if said in self.first_labels:
            return 0 if self.first_labels[said] == 1 else -1
        self._go_on(operation, result)
        return -1

    def _go_on(self, operation: Operation, result: int) -> None:
        left = self.operations[self.next :]
        self.value = result
        if operation in left:
            self.next += left.index(operation) + 1
        elif left and (operation[0] == left[0][0] or operation[1] == left[0][1]):
            self.next += 1

    def _restating(self, value: int) -> LabelValue:
        if value == self.value:
            return 0
        self.value = value
        return -1

    def _answer(self, value: int, said: str) -> LabelValue:
        if self.answered:
            return 0 if self.first_labels.get(said) == 1 else -1
        self.answered = True
        return 1 if value == self.value and self.next == len(self.operations) else -1


def _result(value: int, symbol: str, operand: int) -> int:
    if symbol == "+":
        return value + operand
    return value - operand if symbol == "-" else value * operand
