"""The embedded task: carry a number through a few operations, one step a line.

    Start with 37, subtract 7, times 3.

    Step 1: 37 - 7 = 30
    So far 30               (restates: correct and adds nothing, 0; so does a line written twice)
    Step 2: 30 * 3 = 90
    Answer: 90

Small enough that a model of 0.15M parameters learns it in a minute on one CPU core, and every step has an exact label
(`prm_kit.tasks.arithmetic_labels`). Demonstrations forget 40 % of the carries and borrows and sometimes restate, so
that a policy trained on them makes mistakes that are worth finding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from prm_kit.errors import InputError, UsageError
from prm_kit.records import LabelValue, Problem, Rater, Solution
from prm_kit.tasks.arithmetic_labels import Chain, label_chain
from prm_kit.tasks.task import Demonstration, Split, check_split, split_of

HIGHEST = 99
"""Values stay between 0 and this on the right way through a problem."""

_WORDS = {"+": "add", "-": "subtract", "*": "times"}
_SYMBOLS = {word: symbol for symbol, word in _WORDS.items()}
_PROBLEM = re.compile(r"Start with (\d{1,6})((?:, (?:add|subtract|times) \d{1,6})+)\.", re.ASCII)
_OPERATION = re.compile(r", (add|subtract|times) (\d+)", re.ASCII)
_ANSWER = re.compile(r"^Answer: (-?\d{1,20})\s*$", re.MULTILINE | re.ASCII)
_MOST_TRIES = 10_000  # draws without a new problem, after which there is none left


@dataclass(frozen=True)
class ArithmeticTask:
    """The embedded task.

    Attributes:
        fewest: Fewest operations of a problem.
        most: Most operations of a problem.
        slip_rate: Share of the carries and borrows that demonstrations forget.
        restate_rate: Share of the operations after which demonstrations write a step that only restates.
    """

    fewest: int = 3
    most: int = 4
    slip_rate: float = 0.4
    restate_rate: float = 0.2

    @property
    def name(self) -> str:
        """What reports and records call this task."""
        return "arithmetic"

    @property
    def rater(self) -> Rater:
        """The labelling program."""
        return Rater("rule", "arithmetic-task", "1")

    def problems(self, split: Split, n: int | None, seed: int) -> list[Problem]:
        """Draw `n` different problems of one split (see `Task.problems`).

        Raises:
            UsageError: Unknown split, no `n`, or `n` different problems are not to be found.
        """
        check_split(split)
        if n is None:
            raise UsageError("the arithmetic task makes problems without end: say how many")
        random = Random(f"{self.name} {split} {seed}")  # noqa: S311
        found: dict[str, Problem] = {}
        in_vain = 0
        while len(found) < n:
            chain = _draw_chain(random, random.randint(self.fewest, self.most))
            text = problem_text(chain)
            in_vain += 1
            if text not in found and split_of(text) == split:
                found[text] = Problem(text, str(chain.value), {"task": self.name, "split": split})
                in_vain = 0
            elif in_vain == _MOST_TRIES:
                raise UsageError(f"there are no {n} different {split} problems of {self.fewest}-{self.most} operations")
        return list(found.values())

    def demonstrations(self, split: Split, n: int | None, seed: int) -> list[Demonstration]:
        """Worked completions of `problems(split, n, seed)`: about half of them right."""
        random = Random(f"{self.name} demonstrations {split} {seed}")  # noqa: S311
        return [Demonstration(p.text, self.write(parse_problem(p.text), random)) for p in self.problems(split, n, seed)]

    def verify(self, problem: Problem, completion: str) -> bool:
        """Whether the last "Answer:" line states the value that the operations lead to."""
        stated = final_answer(completion)
        return stated is not None and int(stated) == parse_problem(problem.text).value

    def label_steps(self, solution: Solution) -> tuple[LabelValue, ...]:
        """Exact labels of every step (see `label_chain`)."""
        return label_chain(parse_problem(solution.problem), solution.steps)

    def write(self, chain: Chain, random: Random) -> str:
        """One demonstration: a step a line, carries forgotten and values restated at the task's rates, the answer."""
        lines: list[str] = []
        value = chain.start
        for done, (symbol, operand) in enumerate(chain.operations):
            result = Chain(value, ((symbol, operand),)).value
            slipped = _forget_carry(value, symbol, operand)
            if slipped != result and random.random() < self.slip_rate:
                # a slip that would leave 0-99 later is not made: no line of the task ever does
                after = Chain(slipped, chain.operations[done + 1 :])
                result = slipped if after.stays_within(HIGHEST) else result
            lines.append(f"Step {done + 1}: {value} {symbol} {operand} = {result}\n")
            value = result
            if random.random() < self.restate_rate:
                lines.append(lines[-1] if random.random() < 0.5 else f"So far {value}\n")
        return "".join(lines) + f"Answer: {value}\n"


def problem_text(chain: Chain) -> str:
    """Write a chain as a problem."""
    return f"Start with {chain.start}" + "".join(f", {_WORDS[symbol]} {b}" for symbol, b in chain.operations) + "."


def parse_problem(text: str) -> Chain:
    """Read a problem back.

    Raises:
        InputError: The text is not a problem of this task.
    """
    match = _PROBLEM.fullmatch(text.strip())
    if match is None:
        raise InputError(f"not a problem of the arithmetic task: {text[:80]!r}")
    operations = tuple((_SYMBOLS[word], int(number)) for word, number in _OPERATION.findall(match[2]))
    return Chain(int(match[1]), operations)


def final_answer(completion: str) -> str | None:
    """The number on the last "Answer:" line, or None."""
    stated = _ANSWER.findall(completion)
    return stated[-1] if stated else None


def _draw_chain(random: Random, length: int) -> Chain:
    value = start = random.randint(1, HIGHEST)
    operations: list[tuple[str, int]] = []
    while len(operations) < length:
        if random.random() < 0.15:
            operation = ("*", random.randint(2, 3))
        else:
            operation = (random.choice("+-"), random.randint(2, 9))
        result = Chain(value, (operation,)).value
        if 0 <= result <= HIGHEST:
            operations.append(operation)
            value = result
    return Chain(start, tuple(operations))


def _forget_carry(value: int, symbol: str, operand: int) -> int:
    """The result without the carry or borrow between ones and tens; the right one where there is none."""
    ones = value % 10
    if symbol == "+":
        return value + operand - (10 if ones + operand > 9 else 0)
    if symbol == "-":
        return value - operand + (10 if ones < operand else 0)
    return value * operand - 10 * (ones * operand // 10)
