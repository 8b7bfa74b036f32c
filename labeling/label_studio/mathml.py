r"""Text of problems and steps as HTML for a labelling page: everything escaped, formulas as MathML.

The text comes from models and data sets. What reaches the page is its characters, escaped here, inside elements and
attributes of the short lists below; latex2mathml only proposes a tree, which is rebuilt from those lists. (Its own
output is no HTML to trust: it passes on script elements inside a \text, links and styles.) A formula that is not
understood completely, or that would hide something, is shown as its source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from html import escape, unescape
from typing import TYPE_CHECKING
from unicodedata import category

from prm_kit.errors import UsageError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_FORMULA = 2000
MAX_TEXT = 20_000
"""Longer formulas are shown as source, and formulas in longer texts are not looked for."""

_MAX_DEPTH = 60
_FORMULA = re.compile(
    rf"\$\$(?P<double>.{{1,{MAX_FORMULA}}}?)\$\$"
    rf"|\\\[(?P<bracket>.{{1,{MAX_FORMULA}}}?)\\\]"
    rf"|\\\((?P<parenthesis>.{{1,{MAX_FORMULA}}}?)\\\)"
    r"|(?P<environment>\\begin\{(?P<name>(?:align|equation|gather|array|[pbvBV]?matrix|cases)\*?)\}"
    rf".{{1,{MAX_FORMULA}}}?\\end\{{(?P=name)\}})"
    # A dollar opens before and closes after something that is no space, and closes before no digit: "$40 and $50"
    # are sums of money.
    rf"|(?<!\\)\$(?![\s$])(?P<dollar>(?:[^$\\\n]|\\.|\n(?!\s*\n)){{1,{MAX_FORMULA}}}?)(?<!\s)\$(?!\d)",
    re.DOTALL,
)
_PROSE = re.compile(r"[^\\]*\s[A-Za-z]{2,}\s[^\\]*")
"""Between two sums of money stand words."""

_ALIGNED = re.compile(r"\\(begin|end)\{aligned\}")
"""latex2mathml knows the one but not always the other."""

_DISPLAY = ("double", "bracket", "environment")
_CHILDREN = {
    "mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "msubsup": 3, "munder": 2, "mover": 2, "munderover": 3,
}  # fmt: skip
_ELEMENTS = {
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "msqrt", "mtable", "mtr", "mtd", "mstyle", *_CHILDREN,
}  # fmt: skip
_BARS = {("mo", "\u2015"), ("mo", "\u00af"), ("mo", "\u203e")}
_ATTRIBUTES = {
    "accent", "accentunder", "columnalign", "columnlines", "columnspacing", "displaystyle", "fence", "form", "largeop",
    "linethickness", "mathvariant", "maxsize", "minsize", "movablelimits", "rowlines", "rowspacing", "scriptlevel",
    "separator", "stretchy", "symmetric", "lspace", "rspace", "width",
}  # fmt: skip
"""Colours, sizes, links, classes and styles are left out: with them a text could hide from whoever labels it."""

_VALUE = re.compile(r"[+-]?[a-zA-Z0-9.][a-zA-Z0-9. -]{0,39}")
_LONG = re.compile(r"\d{2,}(?:\.\d*)?\s*(?:em|ex|cm|in|mm|pt|px|%)")


class _ShownAsSourceError(Exception):
    """The formula is better shown as it was written."""


def to_html(text: str) -> str:
    """Show a text: escaped, lines broken where it breaks them, formulas between TeX delimiters as MathML.

    Args:
        text: Anything.

    Returns:
        HTML without any markup from `text`. Formulas keep their source as a tooltip.

    Raises:
        UsageError: latex2mathml is not installed and there is a formula.
    """
    return "".join(_pieces(text))


def _pieces(text: str) -> Iterator[str]:
    position = 0
    for found in _FORMULA.finditer(text) if len(text) <= MAX_TEXT else ():
        yield escaped(text[position : found.start()])
        kind = found.lastgroup if found.lastgroup != "name" else "environment"
        assert kind is not None
        latex = found[kind]
        if kind == "dollar" and _PROSE.fullmatch(latex):
            yield escaped(found[0])
        else:
            yield _formula(latex, kind in _DISPLAY) or f'<code class="prm-source">{escaped(found[0])}</code>'
        position = found.end()
    yield escaped(text[position:])


def escaped(text: str) -> str:
    """Text as HTML: markup escaped, new lines as <br>, characters that are invisible or turn the text around named."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "<br>".join(escape("".join(_visible(line))) for line in lines)


def _visible(line: str) -> Iterator[str]:
    if line.isprintable():
        yield line
        return
    for character in line:
        hidden = category(character) in ("Cc", "Cf", "Co", "Cn") and character not in "\t\u200c\u200d\ufeff"
        yield f"⟨U+{ord(character):04X}⟩" if hidden else character


@lru_cache(maxsize=50_000)
def _formula(latex: str, display: bool) -> str | None:
    """The formula as MathML in a span, or None where it is better shown as source."""
    try:
        from latex2mathml.converter import convert_to_element
    except ImportError:
        raise UsageError(
            "showing mathematics needs latex2mathml; install it with: pip install 'prm-kit[label-studio]'"
        ) from None
    if _nesting(latex) > _MAX_DEPTH:
        return None
    try:
        tree = convert_to_element(_ALIGNED.sub(r"\\\1{align*}", latex))
        inside = "".join(_element(child, 0) for child in tree)
    except Exception:  # whatever it stumbles over: malformed TeX raises IndexError, KeyError, its own errors ...
        return None
    block = ' display="block"' if display else ""
    source = escape(" ".join(latex.split()))
    return f'<span class="prm-math" title="{source}"><math{block}>{inside}</math></span>'


def _nesting(latex: str) -> int:
    depth = deepest = 0
    for character in latex:
        depth += (character == "{") - (character == "}")
        deepest = max(deepest, depth)
    return deepest


def _element(element: Element, depth: int) -> str:
    """Rebuild one element from the lists above.

    Raises:
        _ShownAsSourceError: Something unknown, incomplete or hiding.
    """
    tag = element.tag.rpartition("}")[2]
    text = unescape(element.text or "")
    if depth > _MAX_DEPTH or text.startswith("\\") or (tag == "mi" and text == "&"):
        raise _ShownAsSourceError  # a command that latex2mathml does not know comes back as an identifier
    inside = "".join(_element(child, depth + 1) for child in element)
    if tag == "menclose":
        boxed = element.get("notation") in ("box", "roundedbox", "circle")
        return f'<mrow class="{"prm-boxed" if boxed else "prm-struck"}">{inside}</mrow>'
    if tag not in _ELEMENTS or len(element) != _CHILDREN.get(tag, len(element)) or (element.tail or "").strip():
        raise _ShownAsSourceError
    if tag in ("mover", "munder") and (element[1].tag, unescape(element[1].text or "")) in _BARS:
        # Drawn by the page: as stretched characters bars come out as long as the font happens to have them.
        return f'<mrow class="prm-{tag[1:]}">{_element(element[0], depth + 1)}</mrow>'
    attributes = element.attrib | ({"lspace": "0", "rspace": "0"} if tag == "mo" and text in ("|", "‖") else {})
    kept = "".join(
        f' {name}="{escape(value)}"'
        for name, value in attributes.items()
        if name in _ATTRIBUTES and _VALUE.fullmatch(value) and not _LONG.search(value)
    )
    shown = escape("".join(_visible(text)))
    return f"<{tag}{kept}>{shown}{inside}</{tag}>"
