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
from typing import NamedTuple

from labeling.arithmetic import Polynomial, Value
from labeling.excuses import is_excused
from labeling.expressions import PERCENT_IS_A_UNIT, Reader
from labeling.sides import Side, Verdict, compare, read_side
from labeling.tokens import Token, may_claim, readable, tokenize, words


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


MAX_CHARACTERS = 20_000
"""A longer step is not read."""

_CALCULATOR = re.compile(r"<<([^<>=]{1,200}=[^<>]{1,80})>>\s?[\d.,]*\d?")
_ANNOTATED = re.compile(
    r"(?P<before>^|[A-Za-z$:(.,]\s*)(?P<left>[\d.*/+\-() ]{1,80}?)\s*=\s*(?P<money>\$?)"
    r"<<(?P<inner>[^<>=]{1,80})=(?P<result>[^<>=]{1,40})>>\s?(?P=result)(?![\d.]*\d)"
)
_STARTS = frozenset("n(fpv-+")
_SAFE_BEFORE = frozenset(".N=<w(")
_FUNCTIONS = words("sin cos tan cot sec csc log ln lg exp arcsin arccos arctan gcd lcm max min mod det floor ceil abs")
_LOOSE_ENDINGS = ("的", "加", "减", "乘", "除", "以", "比", "倍", "和", "与", "负")
_OTHER_ARITHMETIC = re.compile(
    r"\bmod(?:ulo|ulus|ular)?\b|\\[pb]?mod|\bcongruen|≡|\\equiv|\bbase\b|_\{?\d|\bclock\b|\b(?:binary|octal|hexadecimal)\b"
    r"|\boperat(?:ion|or)s?\b|\bdefine[ds]?\b|\\(?:star|otimes|oplus|diamond|ast|triangle|heartsuit|clubsuit|spadesuit)\b"
    r"|[★◇⊕⊗@#]|\bmatri(?:x|ces)\b|\bvectors?\b|\bdigits?\b|进制|取模|余数|定义",
    re.IGNORECASE,
)
_OTHER_NUMBERS = re.compile(
    r"\bmod(?:ulo|ular)?\b|\\[pb]?mod|\bcongruen|≡|\\equiv|\bbase[- ]\$?\d|\d_\{?\d|进制|取模", re.I
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
        side = read_side(reader, position)
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
    if kind == "w" and (token.kind in "-+" or before.value in _FUNCTIONS):
        return False
    if kind == "w" and token.value == "(" and token.start == before.end and before.value.isascii():
        return False  # a function that is not known
    if kind == "!":
        return position > 1 and tokens[position - 2].kind == "w"
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


def _read_chain(reader: Reader, side: Side) -> tuple[list[tuple[str, Side]], int]:
    """Sides of a chain of equalities, each with the sign before it, and the index of the token to go on from."""
    tokens = reader.tokens
    chain = [("", side)]
    while True:
        position = _step_over(tokens, side.end)
        if position >= len(tokens) or tokens[position].kind != "=":
            return chain, max(side.end, side.start + 1)
        sign = tokens[position].value
        start = _step_over(tokens, position + 1)
        following = read_side(reader, start)
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
    if token.kind == "N":
        after = _step_over(tokens, end)
        return after >= len(tokens) or tokens[after].kind not in "+*/" or tokens[after].value == "*"
    if token.kind in "+-*/^nf?p%d":
        return False
    if token.kind == "(" and end + 1 < len(tokens) and tokens[end + 1].kind == "w":
        return True
    if token.kind == "v" and token.value not in "aAI":
        return False
    return not (token.kind in "v(w" and token.start == last.end and token.value.isascii())


def _judge_chain(text: str, tokens: Sequence[Token], chain: list[tuple[str, Side]]) -> list[Claim]:
    claims = []
    for index in range(1, len(chain)):
        left, (sign, right) = chain[index - 1][1], chain[index]
        if left.operations + right.operations == 0:
            continue
        verdict = compare(left, right, sign, _digits_go_on(tokens, right.end))
        rule = "identity" if isinstance(left.value, Polynomial) or isinstance(right.value, Polynomial) else "arithmetic"
        if rule == "identity" and verdict != "right":
            continue  # most likely an equation that says something of its variables
        if verdict == "wrong" and _right_as_percentage(tokens, sign, left, right):
            verdict = "right"
        if verdict == "wrong" and is_excused(text, tokens, chain, index):
            verdict = "unsure"
        start, end = tokens[left.start].start, tokens[right.end - 1].end
        detail = f"{_shown(left.value)} is not {_shown(right.value)}" if verdict == "wrong" else ""
        claims.append(Claim(rule, verdict, " ".join(text[start:end].split()), detail))
    return claims


def _right_as_percentage(tokens: Sequence[Token], sign: str, left: Side, right: Side) -> bool:
    """Whether the result is a percentage of which the left side computes the number, as in 1/4 * 100 = 25%."""
    if right.units != ("%",) or "%" in left.units:
        return False
    bare = read_side(Reader(tokens, PERCENT_IS_A_UNIT), right.start)
    return bare is not None and compare(left, bare, sign, False) == "right"


def _digits_go_on(tokens: Sequence[Token], end: int) -> bool:
    return end < len(tokens) and tokens[end].kind == "e"


def _shown(value: Value) -> str:
    if isinstance(value, Fraction):
        scale = value.denominator
        for prime in (2, 5):
            while scale % prime == 0:
                scale //= prime
        return str(float(value)) if scale == 1 and value.denominator < 10**6 else str(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
