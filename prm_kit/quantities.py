"""A quantity read exactly from an answer's text: integer, decimal, fraction, mixed number, percent, money, with a unit.

Nothing here evaluates an expression: a text that is not one literal quantity is None.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

MAX_EXPONENT = 300
"""Powers of ten beyond this are not expanded."""

UNITS: dict[str, tuple[str, Fraction]] = {
    word: (dimension, Fraction(scale))
    for dimension, words in {
        "length": "m meter meters metre metres=1; cm centimeter centimeters centimetre centimetres=1/100;"
        "mm millimeter millimeters=1/1000; km kilometer kilometers kilometre kilometres=1000;"
        "in inch inches=127/5000; ft foot feet=381/1250; yd yard yards=1143/1250; mi mile miles=201168/125",
        "time": "s sec secs second seconds=1; min mins minute minutes=60; h hr hrs hour hours=3600; day days=86400;"
        "week weeks=604800",
        "years": "year years yr yrs=1; month months=1/12",
        "mass": "g gram grams=1; kg kilogram kilograms=1000; mg milligram milligrams=1/1000; ton tons tonne=1000000",
        "weight": "lb lbs pound pounds=1; oz ounce ounces=1/16",
        "volume": "ml milliliter milliliters=1; l liter liters litre litres=1000; gallon gallons=1; quart quarts=1",
        "money": "dollar dollars usd=1; cent cents=1/100; 元 块=1; 角=1/10",
        "angle": "° degree degrees=1",
    }.items()
    for group in words.split(";")
    for names, scale in [group.strip().split("=")]
    for word in names.split()
}
"""Unit word -> (dimension, how many base units it is). Gallons and quarts are never converted: no base is given."""

_NOT_UNITS = frozenset(("pi", "inf", "infinity", "sqrt", "sin", "cos", "tan", "log", "exp", "and", "or", "mod", "base"))
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SYMBOLS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "÷": "/", "，": ",", "⁄": "/", "∶": ":", "。": "."})
_LATEX = (
    (
        re.compile(r"\\(?:left|right|displaystyle|[bB]igg?[lr]?)(?![A-Za-z])|(?<!\\)\\[!,;: ]|\\q?quad(?![A-Za-z])|~"),
        " ",
    ),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:text|mathrm|textrm|mbox|operatorname|textbf|mathbf|rm)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\([%$#&])"), r"\1"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])"), "°"),
    (re.compile(r"\\(?:cdot|times|ast)(?![A-Za-z])"), "*"),
    (re.compile(r"\{,\}"), ","),
)
_NUMBER = r"(?:[0-9]{1,3}(?:,\s?[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_FRACTION = (
    rf"(?:\\frac\s*\{{\s*(-?{_NUMBER})\s*\}}\s*\{{\s*({_NUMBER})\s*\}}"
    rf"|\\frac\s*([0-9])\s*([0-9])|({_NUMBER})\s*/\s*({_NUMBER}))"
)
_QUANTITY = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<money>[$£€¥]?)\s*(?P<sign2>-?)\s*"
    rf"(?:(?P<fraction>(?:(?P<whole>[0-9]+)\s+|(?P<whole2>[0-9]+)\s*(?=\\frac))?{_FRACTION})"
    rf"|(?P<number>{_NUMBER})(?:\s*(?:[eE]\s*(?P<e>[-+]?[0-9]+)|\*\s*10\s*\^\s*\{{?\s*(?P<ten>[-+]?[0-9]+)\s*\}}?))?)"
    r"(?:\s*(?P<percent>%|percent\b))?(?P<gap>\s*)"
    r"(?P<unit>°\s?[CF]?|[^\W\d_]+(?:[ /][^\W\d_]+){0,3}\.?(?:\s?\^\s?\{?[23]\}?)?)?"
)


@dataclass(frozen=True)
class Quantity:
    """An exact value with the unit it was written with.

    Attributes:
        value: The number, without percent or unit scaling.
        unit: The unit words in lower case, "" without one; money signs are "dollars" and the like.
        percent: Whether it was written as a percentage.
        decimals: Decimal places written, 0 for integers and fractions.
        digits: Significant digits written.
    """

    value: Fraction
    unit: str = ""
    percent: bool = False
    decimals: int = 0
    digits: int = 0


def plain_text(text: str) -> str:
    """Bring an answer to one spelling: full-width and superscript characters, LaTeX spacing, spaces.

    Invisible formatting characters (zero-width, bidirectional) are removed. The value is never changed.
    """
    if not text.isascii():
        text = "".join(_plain_character(character) for character in text)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    text = strip_delimiters(text.strip().rstrip(".。;,"))
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"(?<=[^\w\s}.]) | (?=[^\w\s{.$\\-])", "", text).rstrip(".。;,").strip()


def strip_delimiters(text: str) -> str:
    r"""Remove whole-text math delimiters and emphasis: $..$, $$..$$, \(..\), \[..\], **..**."""
    text = text.strip()
    while True:
        for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`")):
            inner = text[len(opening) : -len(closing)]
            if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
                if opening in inner or (opening == "$" and inner.endswith("\\")):
                    continue
                text = inner.strip()
                break
        else:
            return text


def parse_quantity(text: str) -> Quantity | None:
    """Read one literal quantity from `plain_text`; None if the text is anything else."""
    match = _QUANTITY.fullmatch(text)
    if not match:
        return None
    unit = _unit(match)
    if unit is None:
        return None
    negative = (match["sign"] == "-") != (match["sign2"] == "-")
    value, decimals, digits = _value(match)
    if value is None:
        return None
    return Quantity(-value if negative else value, unit, bool(match["percent"]), decimals, digits)


def same_quantity(a: Quantity, b: Quantity) -> bool | None:
    """Whether two quantities are the same; None where their units cannot be compared.

    A missing unit fits any unit. A percentage fits both the bare number and its hundredth ("50%" is "50" and "0.5"):
    sources differ in which they ask for. A decimal of at least six significant digits fits what it is a rounding of.
    """
    if a.unit and b.unit and a.unit != b.unit:
        known_a, known_b = UNITS.get(a.unit), UNITS.get(b.unit)
        if known_a is None or known_b is None or known_a[0] == "volume":
            return None if a.value == b.value else False
        if known_a[0] != known_b[0]:
            return False
        return _close(a, b, known_a[1], known_b[1])
    if a.percent != b.percent:
        return _close(a, b) or (_close(a, b, Fraction(1, 100)) if a.percent else _close(a, b, b_scale=Fraction(1, 100)))
    return _close(a, b)


def _close(a: Quantity, b: Quantity, a_scale: Fraction = Fraction(1), b_scale: Fraction = Fraction(1)) -> bool:
    difference = abs(a.value * a_scale - b.value * b_scale)
    if difference == 0:
        return True
    return any(
        written.decimals > 0 and written.digits >= 6 and difference <= scale / (2 * Fraction(10) ** written.decimals)
        for written, scale in ((a, a_scale), (b, b_scale))
    )


def _unit(match: re.Match[str]) -> str | None:
    """Unit words in lower case; None if the letters after the number are no unit (a variable, a function)."""
    word = (match["unit"] or "").rstrip(".").lower()
    money = {"$": "dollars", "£": "gbp", "€": "eur", "¥": "元"}.get(match["money"], "")
    if not word:
        return money
    known = word in UNITS
    if len(word) == 1 and word.isascii() and not (known and match["gap"]):
        return None  # "5m" may be five times m, "5 m" is metres
    if not known and (any(part in _NOT_UNITS for part in word.split()) or (len(word) < 3 and word.isascii())):
        return None
    return money or word


def _value(match: re.Match[str]) -> tuple[Fraction | None, int, int]:
    """The value with decimals and significant digits written; None where it is not to be expanded."""
    if match["fraction"]:
        parts = [group for group in _fraction_groups(match) if group is not None]
        top, bottom = (_decimal(part) for part in parts)
        whole = Fraction(match["whole"] or match["whole2"] or 0)
        if bottom == 0:
            return None, 0, 0
        return (whole + top / bottom if top >= 0 else None if whole else top / bottom), 0, 0
    number = match["number"].replace(",", "").replace(" ", "")
    exponent = match["e"] or match["ten"] or "0"
    if len(exponent) > 4 or abs(int(exponent)) > MAX_EXPONENT:
        return None, 0, 0
    _, _, places = number.partition(".")
    digits = len(number.replace(".", "").lstrip("0"))
    return _decimal(number) * Fraction(10) ** int(exponent), max(0, len(places) - int(exponent)), digits


def _fraction_groups(match: re.Match[str]) -> tuple[str | None, ...]:
    first = match.re.groupindex["whole2"]
    return match.groups()[first : first + 6]


def _decimal(text: str) -> Fraction:
    whole, _, places = text.replace(",", "").replace(" ", "").partition(".")
    sign = -1 if whole.startswith("-") else 1
    return sign * Fraction(int((whole.lstrip("-") or "0") + places), 10 ** len(places))


def _plain_character(character: str) -> str:
    if character in "⁰¹²³⁴⁵⁶⁷⁸⁹⁻":
        return "^" + character.translate(_SUPERSCRIPTS)
    if unicodedata.category(character) == "Cf":
        return ""
    if unicodedata.decomposition(character).startswith("<fraction>"):
        return " " + unicodedata.normalize("NFKC", character).replace("⁄", "/")
    return unicodedata.normalize("NFKC", character).translate(_SYMBOLS)
