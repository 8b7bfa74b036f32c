"""Find the equalities that a step claims, and judge those whose two sides can be computed.

Precision comes first: a claim that is right under any usual reading (percent as a unit, "a / b * c" as a / (b c),
rounding, running-on chains such as 5 * 3 = 15 + 2 = 17) is not called wrong, and neither is one whose surroundings say
that it is a condition, a guess, a denial, or arithmetic of another kind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

from labeling.arithmetic import Number, Polynomial, UnreadableError, Value
from labeling.expressions import STANDARD, STYLES, Reader
from labeling.tokens import Token, may_claim, readable, tokenize, words
from prm_kit.quantities import UNITS

Verdict = Literal["right", "wrong", "unsure"]


class Claim(NamedTuple):
    """One equality that was judged.

    Attributes:
        rule: "arithmetic" (numbers on both sides) or "identity" (equal for every value of its variables).
        verdict: "right", "wrong", or "unsure": the sides differ, but a usual reading makes it no error.
        text: The equality as written.
        detail: What the computed side is, for a wrong one.
    """

    rule: str
    verdict: Verdict
    text: str
    detail: str = ""


class _Side(NamedTuple):
    start: int
    end: int
    value: Value
    operations: int
    units: tuple[str, ...]
    decimals: int
    first: Value | None
    single: bool
    ambiguous: bool


MAX_CHARACTERS = 20_000
"""A longer step is not read."""

_CALCULATOR = re.compile(r"<<([^<>=]{1,200}=[^<>]{1,80})>>\s?[\d.,]*\d?")
_ANNOTATED = re.compile(
    r"(?P<before>^|[A-Za-z$:(.,]\s*)(?P<left>[\d.*/+\-() ]{1,80}?)\s*=\s*(?P<money>\$?)"
    r"<<(?P<inner>[^<>=]{1,80})=(?P<result>[^<>=]{1,40})>>\s?(?P=result)(?![\d.]*\d)"
)
_STARTS = frozenset("n(fpv-+")
_SAFE_BEFORE = frozenset(".N=<w(!")
_LOOSE_WORDS = words(
    "of than times by over half twice double triple squared per mod sum difference product between to negative minus "
    "plus less least more about around approximately roughly only another other"
)
_LOOSE_ENDINGS = ("的", "加", "减", "乘", "除", "以", "比", "倍", "和", "与", "负")
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
_OTHER_ARITHMETIC = re.compile(
    r"\bmod(?:ulo|ulus|ular)?\b|\\[pb]?mod|\bcongruen|≡|\\equiv|\bbase\b|_\{?\d|\bclock\b|\b(?:binary|octal|hexadecimal)\b"
    r"|\boperat(?:ion|or)s?\b|\bdefine[ds]?\b|\\(?:star|otimes|oplus|diamond|ast|triangle|heartsuit|clubsuit|spadesuit)\b"
    r"|[★◇⊕⊗@#]|\bmatri(?:x|ces)\b|\bvectors?\b|\bdigits?\b|进制|取模|余数|定义",
    re.IGNORECASE,
)
_OTHER_NUMBERS = re.compile(
    r"\bmod(?:ulo|ular)?\b|\\[pb]?mod|\bcongruen|≡|\\equiv|\bbase[- ]\$?\d|\d_\{?\d|进制|取模", re.I
)
_CONVERSIONS = frozenset(
    Fraction(x)
    for x in (2, 3, 4, 5, 7, 8, 10, 12, 16, 20, 24, 25, 30, 36, 52, 60, 100, 144, 360, 365, 1000, 1440, 3600)
)


def find_claims(step: str, problem: str = "", solution: str = "") -> list[Claim]:
    """Judge the equalities of one step.

    Args:
        step: The step's text.
        problem: The problem's text; it tells whether ordinary arithmetic is meant at all.
        solution: The whole solution's text; it tells whether numbers are counted in another base or modulus.
    """
    if not may_claim(step) or len(step) > MAX_CHARACTERS:
        return []
    claims: list[Claim] = []
    if "<<" in step:
        for match in _CALCULATOR.finditer(step):
            claims += calculator_claims(match[1])
        step = _CALCULATOR.sub(_shown_result, _ANNOTATED.sub(_without_repetition, step))
        if not may_claim(step):
            return claims
    text = readable(step)
    claims += _claims_of_text(text)
    if any(claim.verdict == "wrong" for claim in claims) and (
        _OTHER_ARITHMETIC.search(f"{problem}\n{step}") or _OTHER_NUMBERS.search(solution)
    ):
        claims = [claim._replace(verdict="unsure") if claim.verdict == "wrong" else claim for claim in claims]
    return claims


@lru_cache(maxsize=65_536)
def calculator_claims(text: str) -> tuple[Claim, ...]:
    """Judge the inside of a calculator annotation such as 3+5=8."""
    return tuple(_claims_of_text(readable(text)))


def _without_repetition(match: re.Match[str]) -> str:
    """Leave out "5*3=<<5*3=15>>15" where it says twice the same; the annotation alone has been judged."""
    if match["left"].replace(" ", "") != match["inner"].replace(" ", ""):
        return match.group()
    return f"{match['before']}{match['money']}{match['result']}"


def _shown_result(match: re.Match[str]) -> str:
    """What a reader sees of `<<3+5=8>>8`."""
    return match.group().partition(">>")[2]


def _claims_of_text(text: str) -> list[Claim]:
    tokens = tokenize(text)
    claims: list[Claim] = []
    reader = Reader(tokens)
    position = 0
    last = max((index for index, token in enumerate(tokens) if token.kind == "="), default=-1)
    while position < last:
        if tokens[position].kind not in _STARTS or not _may_start(tokens, position):
            position += 1
            continue
        side = _read_side(reader, position)
        if side is None:
            position += 1
            continue
        chain, position = _read_chain(reader, side)
        claims += _judge_chain(text, tokens, chain)
    return claims


def _may_start(tokens: Sequence[Token], position: int) -> bool:
    """Whether an expression may begin here, so that nothing to the left belongs to it."""
    token = tokens[position]
    if token.kind in "-+" and (position == 0 or tokens[position - 1].kind == "N"):
        return token.end == tokens[position + 1].start  # else it is the dash of an item
    if position == 0:
        return True
    before = tokens[position - 1]
    kind = before.kind
    if kind == "$":
        return position < 2 or tokens[position - 2].kind not in "+-*/^"
    if kind == ")":
        return _ends_item_number(tokens, position - 1) and before.end < token.start
    if kind in "-*+":  # the dash of an item
        return (position < 2 or tokens[position - 2].kind == "N") and before.end < token.start
    if kind == "w" and token.kind in "-+":
        return False
    if kind == "w" and not before.value.isascii():
        return not before.value.endswith(_LOOSE_ENDINGS)
    return kind in _SAFE_BEFORE


def _ends_item_number(tokens: Sequence[Token], position: int) -> bool:
    """Whether the bracket at `position` closes the number of an item at the start of a line: "1)", "(a)"."""
    if tokens[position].value != ")" or position < 1 or tokens[position - 1].kind not in "nv":
        return False
    start = position - 1
    if start and tokens[start - 1].value == "(":
        start -= 1
    return start == 0 or tokens[start - 1].kind in "N."


def _read_side(reader: Reader, position: int) -> _Side | None:
    try:
        value = reader.read(position)
    except (UnreadableError, OverflowError):
        return None
    if isinstance(value, Fraction) and value.denominator == 1:
        value = value.numerator
    return _Side(
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


def _read_chain(reader: Reader, side: _Side) -> tuple[list[tuple[str, _Side]], int]:
    """Sides of a chain of equalities, each with the sign before it, and the index of the token to go on from."""
    tokens = reader.tokens
    chain = [("", side)]
    while True:
        position = _step_over(tokens, side.end)
        if position >= len(tokens) or tokens[position].kind != "=":
            return chain, max(side.end, side.start + 1)
        sign = tokens[position].value
        start = _step_over(tokens, position + 1)
        following = _read_side(reader, start)
        if following is None or not _is_whole(tokens, following.end):
            return chain, start
        chain.append((sign, following))
        side = following


def _step_over(tokens: Sequence[Token], position: int) -> int:
    while position < len(tokens) and tokens[position].kind in "$N":
        position += 1
    return position


def _is_whole(tokens: Sequence[Token], end: int) -> bool:
    """Whether the expression that ends here is not a part of one that was not understood."""
    if end >= len(tokens):
        return True
    token, last = tokens[end], tokens[end - 1]
    if token.kind in "+-*/^nf?p%d":
        return False
    return not (token.kind in "v(w" and token.start == last.end and token.value.isascii())


def _judge_chain(text: str, tokens: Sequence[Token], chain: list[tuple[str, _Side]]) -> list[Claim]:
    claims = []
    for index in range(1, len(chain)):
        left, (sign, right) = chain[index - 1][1], chain[index]
        if left.operations + right.operations == 0:
            continue
        verdict = _compare(left, right, sign, _digits_go_on(tokens, right.end))
        rule = "identity" if isinstance(left.value, Polynomial) or isinstance(right.value, Polynomial) else "arithmetic"
        if rule == "identity" and verdict != "right":
            continue  # most likely an equation that says something of its variables
        if verdict == "wrong" and _excused(text, tokens, chain, index):
            verdict = "unsure"
        start, end = tokens[left.start].start, tokens[right.end - 1].end
        detail = f"{_shown(left.value)} is not {_shown(right.value)}" if verdict == "wrong" else ""
        claims.append(Claim(rule, verdict, " ".join(text[start:end].split()), detail))
    return claims


def _digits_go_on(tokens: Sequence[Token], end: int) -> bool:
    return end < len(tokens) and tokens[end].kind == "e"


def _compare(left: _Side, right: _Side, sign: str, open_digits: bool) -> Verdict:
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
    if (left.single or right.single) and difference < 1:
        return "unsure"  # perhaps rounded to a whole
    if (left.decimals or right.decimals or not exact) and difference < size / 100:
        return "unsure"  # perhaps the factors were rounded
    return "wrong"


def _excused(text: str, tokens: Sequence[Token], chain: list[tuple[str, _Side]], index: int) -> bool:
    left, right = chain[index - 1][1], chain[index][1]
    if left.ambiguous or right.ambiguous:
        return True
    if right.operations and right.first == left.value and index + 1 < len(chain):
        return True  # a running-on chain
    if _right_in_another_style(tokens, chain[index][0], left, right):
        return True
    if _between_units(text, tokens, left, right):
        return True
    if _loose_before(tokens, left) or _loose_after(tokens, right):
        return True
    return _DENIED.search(_sentence(text, tokens[left.start].start, tokens[right.end - 1].end)) is not None


def _right_in_another_style(tokens: Sequence[Token], sign: str, left: _Side, right: _Side) -> bool:
    for left_style in (STANDARD, *STYLES):
        for right_style in (STANDARD, *STYLES):
            a = _read_side(Reader(tokens, left_style), left.start)
            b = _read_side(Reader(tokens, right_style), right.start)
            if a and b and _compare(a, b, sign, False) != "wrong":
                return True
    before = tokens[left.start - 1] if left.start else None
    if before and before.kind == "-":  # an item's dash, or a minus after all
        a = _read_side(Reader(tokens), left.start - 1)
        return a is not None and _compare(a, right, sign, False) != "wrong"
    return False


def _between_units(text: str, tokens: Sequence[Token], left: _Side, right: _Side) -> bool:
    """Whether units of two sizes meet, so that the difference may be a conversion that goes without saying."""
    units = set(left.units) | set(right.units)
    end = right.end
    if end < len(tokens) and tokens[end].kind == "w":
        units.add(tokens[end].value.lower())
    known = {UNITS[unit] for unit in units if unit in UNITS}
    if len({dimension for dimension, _ in known}) < len(known):
        return True
    if "%" in units and len(units) > 1 and left.operations > 1:
        return True
    a, b = Fraction(_number(left.value)), Fraction(_number(right.value))
    if not units or a == 0 or b == 0:
        return False
    return (a / b in _CONVERSIONS or b / a in _CONVERSIONS) and bool(known or "%" in units)


def _loose_before(tokens: Sequence[Token], left: _Side) -> bool:
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


def _loose_after(tokens: Sequence[Token], right: _Side) -> bool:
    if right.end >= len(tokens):
        return False
    after = tokens[right.end]
    return after.kind == "(" or (after.kind == "w" and after.value.lower() in _FOLLOWING_LOOSE)


def _sentence(text: str, start: int, end: int) -> str:
    """The sentence around a claim, and the first words after it."""
    begin = max(text.rfind(stop, 0, start) for stop in (". ", ".\n", "\n\n", "; ", "。")) + 1
    stop = re.compile(r"[.;。](?:\s|$)|\n\n").search(text, end)
    return text[begin : (stop.end() if stop else len(text)) + 30]


def _number(value: Value) -> Number:
    assert not isinstance(value, Polynomial)
    return value


def _shown(value: Value) -> str:
    if isinstance(value, Fraction):
        scale = value.denominator
        for prime in (2, 5):
            while scale % prime == 0:
                scale //= prime
        return str(float(value)) if scale == 1 and value.denominator < 10**6 else str(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
