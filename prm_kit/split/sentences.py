"""Where sentences end, in English and Chinese. The last resort: text that has no structure of its own."""

from __future__ import annotations

import re

# A stop with the quotes and brackets that close behind it, and the white space after; always matches from a stop on.
_STOP = re.compile(r"""([.!?。！？]++)((?:["'”’」』）)\]*_$}]|\\[)\]])*+)(\s*+)""")
_NEXT_WORD = re.compile(r"[A-Za-z]+")
_LIST_NUMBER = re.compile(r"(?:\n|[.!?:]\s)[^\S\n]*[*#(]*[^\S\n]*(?:[Ss]tep[^\S\n]*)?\d{1,3}\Z")

_ALWAYS = "e.g i.e cf vs viz resp approx w.r.t s.t a.k.a dr mr mrs ms prof st al incl ca"
_BEFORE_NUMBERS = "fig figs eq eqs eqn no nos sec ch vol p pp ref refs thm lem prop def cor ex"
_ABBREVIATIONS = frozenset(_ALWAYS.split())
_NUMBERED = frozenset(_BEFORE_NUMBERS.split())
_DOTTED = re.compile(r"(?:[A-Za-z]{1,2}\.)+[A-Za-z]{1,2}")
_OPENING_WORDS = (
    "A An And As At But By Finally First For From Hence He Here How However I If In It Let Next Notice Note Now On One"
    " Or Our She Similarly Since So Solving Substituting Suppose That The Their Then There Therefore These They This"
    " Thus To Using We What When Where Which While With You Your"
)
_STARTERS = frozenset(_OPENING_WORDS.split())
_WINDOW = 48
_LONGER = 7  # letters: more than any abbreviation has


def sentence_cuts(text: str, start: int = 0, end: int | None = None) -> list[int]:
    """Offsets at which a new sentence starts.

    An English stop counts before white space, unless it belongs to an abbreviation, an initial or a list number, or
    the text goes on in lower case or with an operator on the same line. A Chinese stop needs no space. Decimals have
    no space behind the dot and never match.

    Args:
        text: Any text.
        start: Where to begin; what lies before counts as context.
        end: Where to stop, the end of the text if None.
    """
    end = len(text) if end is None else end
    cuts = []
    for match in _STOP.finditer(text, start, end):
        after = match.end()
        if after >= end:
            break
        stop, space = match[1], match[3]
        if stop[-1] in "。！？":
            if text[after] not in "。！？，、；：,;:":
                cuts.append(after)
        elif (
            space
            and _opens_sentence(text, after, "\n" in space)
            and (stop != "." or match[2] or not _is_part(text, match.start(), after))
        ):
            cuts.append(after)
    return cuts


def _opens_sentence(text: str, position: int, on_new_line: bool) -> bool:
    character = text[position]
    if on_new_line or character.isdigit():
        return True
    if character.isalpha():
        return not character.islower()
    return character in "$\\\"'“‘「『（([#" or text.startswith("**", position)


def _is_part(text: str, dot: int, after: int) -> bool:
    """Whether the dot is part of a word or number rather than the end of a sentence."""
    if text[max(0, dot - _LONGER) : dot].isalpha() and dot >= _LONGER:
        return False
    before = text[max(0, dot - _WINDOW) : dot]
    if before[-1:].isdigit():
        return _LIST_NUMBER.search(before if dot > _WINDOW else "\n" + before) is not None
    words = before.rsplit(None, 2)
    if not words or before[-1].isspace():
        return False
    word = words[-1].lstrip("(\"'“‘*[")
    if word.lower() in _ABBREVIATIONS:
        return True
    if word.lower() in _NUMBERED:
        return text[after] in "0123456789($\\[#"
    if word.isalpha() and (len(word) > 1 or word.islower()):
        return False
    follower = _NEXT_WORD.match(text, after, after + 20)
    starts_anew = follower is None or follower[0] in _STARTERS
    if _DOTTED.fullmatch(word):
        return not starts_anew
    if len(word) == 1 and word.isupper():
        # "John F. Kennedy" and "J. Smith", but not "option B. Then" or "the value of X. We".
        initials = follower is not None and len(follower[0]) == 1 and text[follower.end() : follower.end() + 1] == "."
        return initials or (not starts_anew and (len(words) == 1 or words[-2][:1].isupper()))
    return False
