"""What people write right behind a number: the fraction of a mixed number, unit words, a remark in brackets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from labeling.tokens import Token, words

AFTER_OPERAND = frozenset("+-*/=)")
MAX_UNIT_WORDS = 5

_NEVER_UNITS = words(
    "and or so then is are was were be been has have had gives give get gets got to from than if when because since "
    "which that this but plus minus times less more fewer twice thrice double triple half squared cubed number value "
    "total sum product difference remaining equals equal means mod sin cos tan log ln exp gcd lcm max min let where "
    "while thus hence therefore as we he she it they you i not over into divided multiplied by remainder factorial "
    "choose digits base 其中 所以 因此 那么 如果 和 或 是 有 的 比 与"
)
_UNIT_LETTERS = frozenset("mgshlLKCFNJWVA")
_SHORT_WORDS = words("km cm mm kg mg ml lb lbs oz ft in hr mi of at on an per mph dl pm am")


def mixed_part(tokens: Sequence[Token], position: int) -> tuple[Fraction, int] | None:
    """The proper fraction of a mixed number such as 2 1/2, in plain or LaTeX form.

    Args:
        tokens: Of the step.
        position: Index of the token after the whole number.

    Returns:
        The fraction and the index of the token after it; None if there is none.
    """
    parts: tuple[Token, Token] | None = None
    following = [token.kind for token in tokens[position : position + 7]]
    if following[:3] == ["n", "/", "n"] and tokens[position + 2].start == tokens[position + 1].end:
        parts, end = (tokens[position], tokens[position + 2]), position + 3
    elif following == ["f", "(", "n", ")", "(", "n", ")"] and tokens[position].value.endswith("frac"):
        parts, end = (tokens[position + 2], tokens[position + 5]), position + 7
    elif following[:2] == ["f", "n"] and re.fullmatch(
        r"\\[dt]?frac\d\d", tokens[position].value + tokens[position + 1].value
    ):
        token = tokens[position + 1]
        parts, end = (token._replace(value=token.value[0]), token._replace(value=token.value[1])), position + 2
    if parts is None or not all(part.value.isdigit() for part in parts):
        return None
    top, bottom = (int(part.value) for part in parts)
    return (Fraction(top, bottom), end) if 0 < top < bottom else None


def unit_words(tokens: Sequence[Token], position: int) -> tuple[list[str], int] | None:
    """The unit words behind an operand, if the expression goes on behind them.

    Args:
        tokens: Of the step.
        position: Index of the token after the operand.

    Returns:
        The words and the index of the token after them; None if there are none, or the expression ends there.
    """
    units: list[str] = []
    while position < len(tokens) and len(units) <= MAX_UNIT_WORDS:
        token = tokens[position]
        if token.kind == "w" and token.value.lower() not in _NEVER_UNITS and not _too_short(token.value):
            units.append(token.value.lower())
            position += 1
        elif token.kind == "/" and position + 1 < len(tokens) and tokens[position + 1].kind == "w":
            units.append("/")
            position += 1
        elif token.kind == "v" and (
            token.value in "aI" if units else token.value in _UNIT_LETTERS and token.start > tokens[position - 1].end
        ):
            units.append(token.value)
            position += 1
        elif token.kind == "(" and (end := _remark_end(tokens, position)):
            position = end
            units.append("()")
        elif token.kind == "^" and units and position + 1 < len(tokens) and tokens[position + 1].kind == "n":
            position += 2
            units.append("^")
        else:
            break
    if not units or position >= len(tokens):
        return None
    kind = tokens[position].kind
    if kind == "$" and position + 1 < len(tokens):
        kind = tokens[position + 1].kind
    return ([unit for unit in units if unit not in ("()", "^")], position) if kind in AFTER_OPERAND else None


def _too_short(word: str) -> bool:
    """Two letters that are no known unit are a product of two variables more often than a word."""
    return len(word) < 3 and word.isascii() and word.lower() not in _SHORT_WORDS


def _remark_end(tokens: Sequence[Token], position: int) -> int | None:
    """Index after a bracket that holds nothing but words, such as "(cost)"; None for any other bracket."""
    for end in range(position + 1, min(position + 8, len(tokens))):
        if tokens[end].kind == ")":
            return end + 1 if end > position + 1 else None
        if tokens[end].kind != "w":
            return None
    return None
