"""What the judge is asked about a step, and the label that follows from it.

Asking for facets and deriving the label keeps disagreement reviewable, and lets a team move the boundary between the
labels without asking again: the facets are stored with every annotation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from prm_kit.records import LabelValue

DERIVATION = "1"
"""Version of `derived`; raised whenever some facets would give another label."""

_LETTER = {"yes": "y", "no": "n", "unsure": "u"}
_WORD = {letter: word for word, letter in _LETTER.items()}


class Facets(NamedTuple):
    """What a judge said of one step.

    Attributes:
        correct: Whether all that the step states is true or follows.
        verifiable: Whether a careful reader can check it from what is written.
        progress: Whether it brings something new.
    """

    correct: Literal["yes", "no", "unsure"]
    verifiable: Literal["yes", "no"]
    progress: Literal["yes", "no"]

    @property
    def code(self) -> str:
        """Three letters: "yyn" is correct, verifiable and without progress."""
        return _LETTER[self.correct] + _LETTER[self.verifiable] + _LETTER[self.progress]


def facets_of(code: str) -> Facets:
    """Read what `Facets.code` wrote."""
    correct, verifiable, progress = (_WORD[letter] for letter in code)
    return Facets(correct, verifiable, progress)  # type: ignore[arg-type]


def derived(facets: Facets) -> LabelValue | None:
    """The label that follows from the facets.

    Unsure whether it is correct: None. Else wrong or not verifiable: -1. Else without progress: 0. Else +1.
    """
    if facets.correct == "unsure":
        return None
    if facets.correct == "no" or facets.verifiable == "no":
        return -1
    return 0 if facets.progress == "no" else 1


def read_facets(entry: Mapping[str, Any]) -> Facets | str:
    """The facets in one entry of a judge's answer, or what is wrong with it.

    Words count whatever their case; true and false are yes and no. Nothing else is read into anything.
    """
    words: dict[str, Any] = {}
    for name, known in _KNOWN.items():
        given = entry.get(name)
        if isinstance(given, bool):
            given = "yes" if given else "no"
        word = given.strip().lower() if isinstance(given, str) else given
        if word not in known:
            return f"{name} is not one of {', '.join(known)}"
        words[name] = word
    return Facets(**words)


_KNOWN: dict[str, tuple[str, ...]] = {
    "correct": ("yes", "no", "unsure"),
    "verifiable": ("yes", "no"),
    "progress": ("yes", "no"),
}
