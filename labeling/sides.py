"""The two sides of a claimed equality: reading them, and comparing their values."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, NamedTuple

from labeling.arithmetic import Polynomial, UnreadableError, Value
from labeling.expressions import Reader

Verdict = Literal["right", "wrong", "unsure"]


class Side(NamedTuple):
    """One side: the tokens from `start` to `end`, its value, and what `Reader` noticed while reading it.

    Attributes:
        single: Whether it is one literal and nothing else.
    """

    start: int
    end: int
    value: Value
    operations: int
    units: tuple[str, ...]
    decimals: int
    first: Value | None
    single: bool
    ambiguous: bool


def read_side(reader: Reader, position: int) -> Side | None:
    """Read the expression at `position`; None where there is none that can be computed."""
    try:
        value = reader.read(position)
    except (UnreadableError, OverflowError):
        return None
    if isinstance(value, Fraction) and value.denominator == 1:
        value = value.numerator
    return Side(
        position,
        reader.position,
        value,
        reader.operations,
        tuple(reader.units),
        reader.decimals,
        reader.first,
        reader.literals == 1 and reader.operations == 0,
        reader.ambiguous,
    )


def compare(left: Side, right: Side, sign: str, open_digits: bool) -> Verdict:
    """Compare two sides exactly, with the rounding that the digits written allow.

    Args:
        left: Left side.
        right: Right side.
        sign: "=" or "~" (approximately).
        open_digits: Whether the right side's digits go on ("0.333...").
    """
    a, b = left.value, right.value
    if isinstance(a, Polynomial) or isinstance(b, Polynomial):
        return "right" if a == b else "unsure"
    if a == b:
        return "right"
    exact = not isinstance(a, float) and not isinstance(b, float)
    difference = abs(Fraction(a) - Fraction(b)) if exact else Fraction(abs(float(a) - float(b)))
    size = max(abs(Fraction(a)), abs(Fraction(b)))
    if not exact and difference <= size / 10**9:
        return "right"
    for side in (left, right):
        if side.single and (side.decimals or open_digits) and difference < Fraction(1, 10**side.decimals):
            return "right"  # rounded or cut off at the last digit written
    if sign == "~" or open_digits:
        return "right" if difference <= size / 100 else "wrong" if difference > size / 5 else "unsure"
    if difference < 1 and any(side.single and not side.decimals for side in (left, right)):
        return "unsure"  # perhaps rounded to a whole
    if difference < size / (100 if exact else 50) and (left.decimals or right.decimals or not exact):
        return "unsure"  # perhaps the factors were rounded
    return "wrong"
