"""The ways to cut a text into pieces. Each is a pure function from a layout to trimmed, non-blank spans."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from prm_kit.record_checks import Span
from prm_kit.split.attach import attach
from prm_kit.split.markers import is_consistent, is_stepwise, marker_cuts, numbered
from prm_kit.split.protect import Blocks
from prm_kit.split.sentences import sentence_cuts

_BLANK_LINE = re.compile(r"\n(?:[^\S\n]*+\n)++")
_LINE = re.compile(r"\n")
_AFTER_DISPLAY = re.compile(r"(?:\\\]|\$\$)\s+(?=[A-Z\u4e00-\u9fff])")

COARSE_BYTES = 768
"""`auto` looks for finer boundaries where pieces are longer than this on average (about 256 tokens)."""


class Layout(NamedTuple):
    """What a method sees: a text without think tags, its protected regions, and the caller's step token if any."""

    text: str
    blocks: Blocks
    token: str | None = None


def blank_line(layout: Layout) -> list[Span]:
    """Cut at lines that are empty or hold white space only."""
    return _pieces(layout.text, layout.blocks.outside([m.end() for m in _BLANK_LINE.finditer(layout.text)]))


def newline(layout: Layout) -> list[Span]:
    """Cut at every line end."""
    return _pieces(layout.text, layout.blocks.outside([m.end() for m in _LINE.finditer(layout.text)]))


def marker(layout: Layout) -> list[Span]:
    """Cut before every numbered marker, and before the conclusion that follows the last one.

    What comes before the first marker is a step of its own; a text without markers is one step.
    """
    text, blocks, _ = layout
    return _pieces(text, marker_cuts(text, blocks, numbered(text, blocks)))


def token(layout: Layout) -> list[Span]:
    """Cut at the caller's step token, which belongs to no step.

    The token is a mark and no text, so it cuts wherever it stands, in a formula too: every mark has its step.
    """
    if not layout.token:
        return _pieces(layout.text, [])
    spans: list[Span] = []
    position = 0
    for part in layout.text.split(layout.token):
        spans += ((start + position, end + position) for start, end in _pieces(part, []))
        position += len(part) + len(layout.token)
    return spans


def sentence(layout: Layout) -> list[Span]:
    """Cut at sentence ends, blank lines, and after a displayed formula that a capital letter follows."""
    text, blocks, _ = layout
    cuts = sentence_cuts(text)
    cuts += (m.end() for m in _BLANK_LINE.finditer(text))
    cuts += (m.end() for m in _AFTER_DISPLAY.finditer(text))
    return _pieces(text, blocks.outside(sorted(set(cuts))))


def automatic(layout: Layout, attached: bool = True) -> tuple[str, list[Span]]:
    """Choose the coarsest structure that the text really has.

    In this order, the first that gives two pieces or more, of no more than `COARSE_BYTES` bytes on average:

    1. markers, where they count up consistently and say "step", or are list numbers that (nearly) every paragraph
       starts with;
    2. blank lines, unless they give only two pieces and line ends give at least twice as many;
    3. line ends;
    4. sentences.

    Where none is fine enough, the one with the most pieces.

    Args:
        layout: The text.
        attached: Whether degenerate pieces are attached to their neighbours before counting.

    Returns:
        The name of the method, and its pieces.
    """
    text, blocks, _ = layout

    def finished(name: str, spans: list[Span]) -> tuple[str, list[Span]]:
        return name, attach(text, spans, blocks, lists=name == "blank_line") if attached else spans

    paragraphs = blank_line(layout)
    tried: list[tuple[str, list[Span]]] = []
    markers = numbered(text, blocks)
    if is_consistent(markers) and (is_stepwise(markers) or _open_paragraphs(markers, paragraphs, text)):
        tried.append(finished("marker", _pieces(text, marker_cuts(text, blocks, markers))))
        if _fine(text, tried[-1][1]):
            return tried[-1]
    tried.append(finished("blank_line", paragraphs))
    if len(tried[-1][1]) > 2 and _fine(text, tried[-1][1]):
        return tried[-1]
    tried.append(finished("newline", newline(layout)))
    if len(tried[-1][1]) < 2 * len(tried[-2][1]) and _fine(text, tried[-2][1]):
        return tried[-2]
    if _fine(text, tried[-1][1]):
        return tried[-1]
    tried.append(finished("sentence", sentence(layout)))
    return tried[-1] if _fine(text, tried[-1][1]) else max(tried, key=lambda candidate: len(candidate[1]))


def _fine(text: str, spans: Sequence[Span]) -> bool:
    # Three bytes a token is the estimate of `cap`; ASCII text is spared the encoding.
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return len(spans) > 1 and size <= COARSE_BYTES * len(spans)


def _open_paragraphs(markers: Sequence[tuple[int, int, int, str]], paragraphs: Sequence[Span], text: str) -> bool:
    """Whether all paragraphs but an introduction and a conclusion start with one of the markers."""
    starts = {position + indent for position, indent, _, _ in markers}
    return sum(start not in starts for start, _ in paragraphs) <= 2


def _pieces(text: str, cuts: Sequence[int]) -> list[Span]:
    """Trimmed spans between cuts; blank ones vanish into the gaps."""
    spans: list[Span] = []
    start = 0
    for end in (*cuts, len(text)):
        piece = text[start:end].strip()
        if piece:
            if text[start] != piece[0]:
                start = text.index(piece[0], start)
            spans.append((start, start + len(piece)))
        start = end
    return spans


METHODS: dict[str, Callable[[Layout], list[Span]]] = {
    "blank_line": blank_line,
    "newline": newline,
    "marker": marker,
    "token": token,
    "sentence": sentence,
    "auto": lambda layout: automatic(layout)[1],
}
"""Every way to cut, by name. They cut and trim; attaching, capping and think tags are `split`'s."""
