"""Whether a judge's quote is from the step that it speaks of: a check against labels that slip to another step."""

from __future__ import annotations

import re
import unicodedata
from difflib import SequenceMatcher

SIMILAR = 0.9
"""Ratio of matching characters from which a quote counts as copied."""

WORDS = 8
"""Words that the judge is asked to quote, from the start of the step."""

MIN_QUOTE = 12
"""Characters that a quote needs, of those that count; fewer are enough where the first eight words have fewer."""

_LONGEST = 600
_UNCOUNTED = re.compile(r"[^\w+*/=<>^%-]|_")


def is_quoted(quote: str, step: str) -> bool:
    """Whether `quote` stands in `step`: anywhere, character by character, or at its start with small mistakes.

    Only letters, digits and a few signs of arithmetic count: white space, case, dollar signs, backslashes and
    punctuation get lost too easily on the way through a model and JSON.
    """
    asked, there = _bare(quote[: 2 * _LONGEST])[:_LONGEST], _bare(step)
    if len(asked) < min(MIN_QUOTE, len(_bare(" ".join(step.split(None, WORDS)[:WORDS])))):
        return False
    if not asked:
        return bool(quote.strip()) and " ".join(quote.split()) in " ".join(step.split())
    if asked in there:
        return True
    start = there[: len(asked)]
    matcher = SequenceMatcher(None, start, asked, autojunk=False)
    return matcher.real_quick_ratio() >= SIMILAR and matcher.quick_ratio() >= SIMILAR and matcher.ratio() >= SIMILAR


def _bare(text: str) -> str:
    return _UNCOUNTED.sub("", unicodedata.normalize("NFKC", text).casefold())
