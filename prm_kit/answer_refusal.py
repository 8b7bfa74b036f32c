"""Texts that no symbolic checker gets to see: code, bombs, and what is longer or deeper than any answer."""

from __future__ import annotations

import re

_REFUSED = tuple(
    (re.compile(pattern), why)
    for pattern, why in (
        (r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", "control character or surrogate"),
        (r"__|\"|'\s*[\w.]+[^']*'|\b(?:lambda|import)\b|\b(?:exec|eval|open|getattr|compile|globals)\s*\(", "code"),
        (r"[)\]A-Za-z_]\s*\.\s*[A-Za-z_]{2,}\s*[(\[.]", "attribute access"),
        (r"[0-9]{101,}", "more than 100 digits"),
        (r"[eE][-+]?[0-9]{4,}", "exponent"),
        (r"(?:\^|\*\*)\s*[{(]*\s*[-+]?\s*[0-9]{4,}", "exponent"),
        (r"(?:(?:\^|\*\*)[^+\-=,]{1,12}){2}(?:\^|\*\*)|[0-9]\s*[)}]*\s*(?:\^|\*\*)\s*[{(]*[0-9.]+\s*[)}]*\s*(?:\^|\*\*)",
         "tower of powers"),
        (r"[0-9]{4,}\s*[)}]*\s*!|[0-9)}]\s*[)}]*!\s*[)}]*!|factorial|[Gg]amma\s*[({]|!\s*\)\s*!", "factorial"),
        (r"\\[dt]?binom(?=.*(?:\^|[0-9]{4}))", "binomial"),
        (r"\\(?:sum|prod|o?i*int|lim|def|newcommand|input|include)(?![a-z])", "unevaluated operator"),
        (r"(?:[-+*/^][^-+*/^]*){200}", "more than 200 operators"),
    )
)  # fmt: skip
_MAX_DEPTH = 25


def refusal(text: str) -> str | None:
    """Why a text is not let near a symbolic checker, or None if it may pass."""
    for pattern, why in _REFUSED:
        if pattern.search(text):
            return why
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return "nested too deeply" if deepest > _MAX_DEPTH else None
