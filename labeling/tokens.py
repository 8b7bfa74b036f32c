r"""Cut a step, plain or LaTeX, English or Chinese, into the few tokens that arithmetic needs.

Kinds: `n` number, `v` variable, `w` word, `+ - * / ^` operators, `(` `)` brackets, `f` \frac \sqrt \binom, `p` pi,
`!` `%` `d` (degrees) postfix signs, `=` equality (value "=" or "~" for approximate), `<` any other relation, `$` a soft
delimiter (math or money), `N` end of line, `.` punctuation, `e` ellipsis, `?` an operand that is not understood.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

MAX_DIGITS = 60


class Token(NamedTuple):
    """One token; `start` and `end` are offsets into `readable(text)`."""

    kind: str
    value: str
    start: int
    end: int


_PLAIN = str.maketrans(
    {
        **dict(zip("０１２３４５６７８９", "0123456789", strict=True)),
        **{"−": "-", "–": "-", "－": "-", "＋": "+", "×": "*", "✕": "*", "∗": "*", "·": "*", "⋅": "*", "÷": "/"},
        **{"（": "(", "）": ")", "＝": "=", "％": "%", "，": ", ", "。": ". ", "：": ":", "；": ";", "？": "?"},
        **{"₀": "_0", "₁": "_1", "₂": "_2", "₃": "_3", "₄": "_4", "₅": "_5", "₆": "_6", "₇": "_7", "₈": "_8"},
        **{"²": "^2", "³": "^3", "⁴": "^4", "⁵": "^5", "⁶": "^6", "°": "^\\circ ", "’": "'", "≅": "≈", "\u00a0": " "},
    }
)
_TEXT_COMMAND = re.compile(r"\\(?:text(?:rm|bf|it)?|math(?:rm|bf|it|sf)|mbox|operatorname)\s*\{([^{}\\]*)\}")
_GROUPED = re.compile(r"(?<=\d)(?:,\s?\\!\s?|\{,\}|\\,)(?=\d{3}(?!\d))")
_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|boxed|fbox|(?:b|B)igg?[lrm]?|limits)(?![A-Za-z])|(?<!\\)\\[!;: ]|&|~"
    r"|\\tag\s*\{[^{}]*\}|(?<![\d)}])\*\*|\*\*(?![\d(])"
)

_TOKEN = re.compile(
    r"""(?P<plain>(?!sqrt\b)[A-Za-z]{2,}(?![\w'-]))|(?P<whole>(?<![\w.,:])\d{1,15}(?![\w.,:{\\]))
    |(?P<times>(?<=[\d)\s%}$a-z])[xX](?=\s*(?:\d|\.\d|\$\d|\\\$)))
    |(?P<unknown>\d+:\d+(?::\d+)?|\d+(?:,\d+)*,\d+(?!\d)(?<!,\d\d\d)|\d+_\{?\w+\}?|[A-Za-z]+\d\w*|[A-Za-z]\w*_\w{2,}|\#+)
    |(?P<ellipsis>\.\.+|…|\\[lcd]?dots[a-z]?(?![A-Za-z]))
    |(?P<n>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)
    |(?P<var>(?:\\(?:alpha|beta|gamma|delta|theta|lambda|mu|phi|omega)(?![A-Za-z])|(?<![A-Za-z'])[A-Za-z](?![A-Za-z'\u2019]))
        (?:_(?:\w|\{[^{}]*\}))?)
    |(?P<equal>\\approx(?![A-Za-z])|≈|\\doteq(?![A-Za-z])|(?<![<>!=:+\-*/])=(?![=>]))
    |(?P<other>\\(?:neq?|le|ge|leq|geq|lt|gt|equiv|sim|cong|in|not|leqslant|geqslant|ll|gg)(?![A-Za-z])|[<>≠≤≥≡∈∝]|!=|==|:=)
    |(?P<implies>=>|->|<-|\\(?:implies|[Rr]ightarrow|to|iff|Longrightarrow|longrightarrow|Leftrightarrow|therefore)(?![A-Za-z])|[→⇒⟹∴⇔])
    |(?P<power>\*\*|\^)
    |(?P<op>[-+*/]|\\(?:cdot|times|ast|div)(?![A-Za-z]))
    |(?P<percent>\\?%)
    |(?P<frac>\\[dtc]?frac(?![A-Za-z])|\\[dt]?binom(?![A-Za-z])|\\?sqrt(?![A-Za-z])|√)
    |(?P<pi>\\pi(?![A-Za-z])|π)
    |(?P<row>\\\\(?:\[[^\]]*\])?|\n)
    |(?P<soft>\\?\$|\\[()\[\]]|\\q?quad(?![A-Za-z])|\\(?:begin|end)\s*\{(?:align|equation|gather|split|eqnarray|multline|center|itemize|enumerate)[a-z]*\*?\}|["“”`£€¥]|\*\*)
    |(?P<bracket>[()\[\]{}]|\\[{}])
    |(?P<degree>\\circ(?![A-Za-z])|\\degree(?![A-Za-z]))
    |(?P<word>[A-Za-z]+(?:['-][A-Za-z]{2,})*(?:'[a-z])?|[\u4e00-\u9fff]+)
    |(?P<bang>!)
    |(?P<stop>[.,;:?、])
    |(?P<rest>\\[A-Za-z]+|\\[^\s,]|[^\s\\])""",
    re.VERBOSE | re.DOTALL,
)  # fmt: skip
_WORD_KINDS = {"times": "*", "plus": "+", "minus": "-", "乘以": "*", "乘": "*", "加": "+", "加上": "+",
               "减": "-", "减去": "-", "除以": "/", "equals": "=", "equal": "=", "等于": "=", "得": "=",
               "得到": "="}  # fmt: skip
_OPENING = frozenset(("(", "[", "{", "\\{"))
_OPERATORS = {"\\cdot": "*", "\\times": "*", "\\ast": "*", "\\div": "/"}
_KINDS: dict[str | None, str] = {
    "whole": "n", "unknown": "?", "ellipsis": "e", "times": "*", "var": "v", "other": "<", "implies": ".",
    "power": "^", "percent": "%", "frac": "f", "pi": "p", "row": "N", "soft": "$", "degree": "d", "bang": "!",
    "stop": ".", "rest": "?",
}  # fmt: skip
_PROSE = re.compile(r"(?:[A-Za-z]{2,}[ ]+)+(?=[A-Za-z]{2,}[ ])")
_RELATIONS = ("=", "≈", "＝", "approx", "equal", "等于", "得")


def words(text: str) -> frozenset[str]:
    """A set of words written as one text."""
    return frozenset(text.split())


def may_claim(text: str) -> bool:
    """Whether the text holds any sign of an equality: a cheap test before all else."""
    return "=" in text or any(sign in text for sign in _RELATIONS)


def readable(text: str) -> str:
    """One spelling of full-width, superscript and LaTeX layout characters; what tokens' offsets refer to."""
    if not text.isascii():
        text = text.translate(_PLAIN)
    if "\\" in text or "{,}" in text:
        text = _GROUPED.sub(",", text)
        text = _TEXT_COMMAND.sub(r" \1 ", text)
    if "\\" in text or "*" in text or "&" in text or "~" in text:
        text = _DROPPED.sub(" ", text)
    return text


def tokenize(text: str) -> list[Token]:
    """Tokens of a `readable` text, spaces left out: all but the first words and what follows the last equality."""
    tokens: list[Token] = []
    append = tokens.append
    prose = _PROSE.match(text)
    last = max([text.rfind(sign) for sign in _RELATIONS])
    for match in _TOKEN.finditer(text, prose.end() if prose else 0):
        group = match.lastgroup
        value = match.group()
        kind = _KINDS.get(group)
        if kind is None:
            if group == "plain" or group == "word":
                kind = _WORD_KINDS.get(value, "w")
                if kind == "=":
                    value = "="
            elif group == "op":
                kind = _OPERATORS.get(value, value)
            elif group == "n":
                kind = "n" if len(value) <= MAX_DIGITS else "?"
            elif group == "equal":
                kind, value = "=", "=" if value == "=" else "~"
            else:
                kind = "(" if value in _OPENING else ")"
        start, end = match.span()
        append(Token(kind, value, start, end))
        if kind == "." and start > last:
            break
    return tokens


def number(text: str) -> tuple[int | Fraction, int]:
    """Value and decimal places of a number token."""
    if text.isdigit():
        return int(text), 0
    whole, point, places = text.partition(".")
    digits = "".join(character for character in whole if character.isdigit())
    if not point:
        return int(digits), 0
    if not places.strip("0"):
        return int(digits or "0"), len(places)
    return Fraction(int(digits + places), 10 ** len(places)), len(places)
