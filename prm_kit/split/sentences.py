"""Where sentences end, in English and Chinese. The last resort: text that has no structure of its own."""

from __future__ import annotations

import re

# A stop with the quotes and brackets that close behind it, and the white space after; always matches from a stop on.
_STOP = re.compile(r"""(?P<stop>[.!?。！？]++)(?P<closers>(?:["'”’」』）)\]*_$}]|\\[)\]])*+)(?P<space>\s*+)""")
_LAST_WORD = re.compile(r"(?P<before>\S*)\s?(?<!\S)(?P<word>\S+)\Z")
_NEXT_WORD = re.compile(r"[A-Za-z]+")
_LIST_NUMBER = re.compile(r"(?:^|\n)[^\S\n]*[*#(]*[^\S\n]*(?:[Ss]tep[^\S\n]*)?\d{1,3}\Z")

_ABBREVIATIONS = frozenset(
    "e.g i.e cf vs viz resp approx w.r.t s.t a.k.a fig figs eq eqs eqn no nos sec ch vol pp ref refs thm lem prop def"
    " cor dr mr mrs ms prof st jr sr al incl ca dept est".split()
)
_DOTTED = re.compile(r"(?:[A-Za-z]{1,2}\.)+[A-Za-z]{1,2}")
_STARTERS = frozenset(
    "A An And As At But By Finally First For From Hence He Here How However I If In It Let Let's Next Notice Note Now"
    " On One Or Our She Similarly Since So Solving Substituting Suppose That The Their Then There Therefore These They"
    " This Thus To Using We What When Where Which While With You Your".split()
)
_WINDOW = 48


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
        if match["stop"][-1] in "。！？":
            if text[after] not in "。！？，、；：,;:":
                cuts.append(after)
        elif match["space"] and _opens_sentence(text, after, "\n" in match["space"]) and not _goes_on(text, match):
            cuts.append(after)
    return cuts


def _opens_sentence(text: str, position: int, on_new_line: bool) -> bool:
    character = text[position]
    if on_new_line or character.isupper() or character.isdigit():
        return True
    return character in "$\\\"'“‘「『（([#" or (character.isalpha() and not character.islower()) or text.startswith("**", position)


def _goes_on(text: str, match: re.Match[str]) -> bool:
    """Whether the dot is part of a word or number rather than the end of a sentence."""
    if match["stop"] != "." or match["closers"]:
        return False
    dot = match.start()
    before = text[max(0, dot - _WINDOW) : dot]
    if before[-1:].isdigit():
        return _LIST_NUMBER.search(before if dot > _WINDOW else "\n" + before) is not None
    last = _LAST_WORD.search(before)
    if last is None:
        return False
    word = last["word"].lstrip("(\"'“‘*[")
    if word.lower() in _ABBREVIATIONS:
        return True
    follower = _NEXT_WORD.match(text, match.end(), match.end() + 20)
    starts_anew = follower is None or follower[0] in _STARTERS
    if _DOTTED.fullmatch(word):
        return not starts_anew
    if len(word) == 1 and word.isupper():
        # "John F. Kennedy" and "J. Smith", but not "option B. Then" or "the value of X. We".
        return not starts_anew and (not last["before"] or last["before"][0].isupper())
    return False
