"""Reasons not to call an equality wrong although its two sides differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from labeling.arithmetic import Number, Polynomial, Value
from labeling.expressions import STANDARD, STYLES, Reader
from labeling.sides import Side, compare, read_side
from labeling.tokens import Token, words
from prm_kit.quantities import UNITS

_LOOSE_WORDS = words(
    "of than times by over half twice double triple squared per mod sum difference product between to negative minus "
    "plus less least more about around approximately roughly only another other"
)
_FOLLOWING_LOOSE = words(
    "of times or to remainder r mod modulo base and with rounded more less percent hundred thousand million 余"
)
_DENIED = re.compile(
    r"\b(?:not|isn't|doesn't|don't|cannot|can't|wouldn't|won't|no|never|wrong|incorrect|false|error|mistake\w*|impossible"
    r"|contradict\w*|instead|however|but|unless|neither|nor|fails?|too (?:big|small|large|low|high|many|few)"
    r"|if|suppose|assum\w+|whether|try|tries|trying|guess\w*|test\w*|let|should|would|could|want|needs?|must|check\w*|verify"
    r"|set(?:ting)?|solve|solving|such that|equation|satisf\w+|see if)\b|\?|≠|\\neq?\b|不|如果|假设|设|错|方程|试",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.;。](?:\s|$)|\n\n")
MAX_SENTENCE = 500
_CONVERSIONS = frozenset(
    Fraction(x)
    for x in (2, 3, 4, 5, 7, 8, 10, 12, 16, 20, 24, 25, 30, 36, 52, 60, 100, 144, 360, 365, 1000, 1440, 3600)
)


def is_excused(text: str, tokens: Sequence[Token], chain: list[tuple[str, Side]], index: int) -> bool:
    """Whether the equality between sides `index - 1` and `index` of a chain is to be given the benefit of the doubt."""
    left, right = chain[index - 1][1], chain[index][1]
    if left.ambiguous or right.ambiguous:
        return True
    if right.operations and right.first == left.value and index + 1 < len(chain):
        return True  # a running-on chain
    if _right_in_another_style(tokens, chain[index][0], left, right):
        return True
    if _between_units(text, tokens, left, right):
        return True
    if _loose_before(tokens, left) or _loose_after(tokens, right) or _in_a_list(tokens, left, right):
        return True
    return _DENIED.search(_sentence(text, tokens[left.start].start, tokens[right.end - 1].end)) is not None


def _right_in_another_style(tokens: Sequence[Token], sign: str, left: Side, right: Side) -> bool:
    for left_style in (STANDARD, *STYLES):
        for right_style in (STANDARD, *STYLES):
            a = read_side(Reader(tokens, left_style), left.start)
            b = read_side(Reader(tokens, right_style), right.start)
            if a and b and compare(a, b, sign, False) != "wrong":
                return True
    before = tokens[left.start - 1] if left.start else None
    if before and before.kind == "-":  # an item's dash, or a minus after all
        a = read_side(Reader(tokens), left.start - 1)
        return a is not None and compare(a, right, sign, False) != "wrong"
    return False


def _between_units(text: str, tokens: Sequence[Token], left: Side, right: Side) -> bool:
    """Whether units of two sizes meet, so that the difference may be a conversion that goes without saying."""
    units = set(left.units) | set(right.units)
    end = right.end
    if end < len(tokens) and tokens[end].kind == "w":
        units.add(tokens[end].value.lower())
    known = {UNITS[unit] for unit in units if unit in UNITS}
    if len({dimension for dimension, _ in known}) < len(known):
        return True
    if "degrees" in units and (isinstance(left.value, float) or isinstance(right.value, float)):
        return True  # 180 degrees are pi
    if "%" in units and len(units) > 1 and left.operations > 1:
        return True
    a, b = Fraction(_number(left.value)), Fraction(_number(right.value))
    if not units or a == 0 or b == 0:
        return False
    return (a / b in _CONVERSIONS or b / a in _CONVERSIONS) and bool(known or "%" in units)


def _loose_before(tokens: Sequence[Token], left: Side) -> bool:
    """Whether the words before the left side may belong to it."""
    position = left.start - 1
    while position >= 0 and tokens[position].kind == "$":
        position -= 1
    if position < 0:
        return False
    before = tokens[position]
    if before.kind != "w":
        return left.operations == 0 and before.kind not in ".=N"
    return left.operations == 0 or before.value.lower() in _LOOSE_WORDS


def _in_a_list(tokens: Sequence[Token], left: Side, right: Side) -> bool:
    """Whether commas on both sides tell that whole lists are called equal."""
    before, after = left.start - 1, right.end
    return before >= 0 and after < len(tokens) and tokens[before].value == tokens[after].value == ","


def _loose_after(tokens: Sequence[Token], right: Side) -> bool:
    if right.end >= len(tokens):
        return False
    after = tokens[right.end]
    return after.kind == "(" or (after.kind == "w" and after.value.lower() in _FOLLOWING_LOOSE)


def _sentence(text: str, start: int, end: int) -> str:
    """The sentence around a claim, and the first words after it."""
    first = max(0, start - MAX_SENTENCE)
    begin = max(first, *(text.rfind(stop, first, start) + 1 for stop in (". ", ".\n", "\n\n", "; ", "。")))
    stop = _SENTENCE_END.search(text, end, end + MAX_SENTENCE)
    return text[begin : (stop.end() if stop else end + MAX_SENTENCE) + 30]


def _number(value: Value) -> Number:
    assert not isinstance(value, Polynomial)
    return value
