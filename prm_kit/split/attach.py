"""Pieces that are no step by themselves join a neighbour: headings, rules, formulas that a sentence announces."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prm_kit.record_checks import Span
from prm_kit.split.protect import Blocks

_WORD = re.compile(r"\w")
_HEADING_LENGTH = 120
_HEADING = re.compile(
    r"""
      \#{1,6} [^\S\n] (?!.*\\boxed) [^\n=]*                                             # Markdown heading
    | [^\S\n]* \*\*(?!.*\\boxed) [^*\n=]* [^*\n=.!?。！？] \*\* [:：]?                   # bold line, no statement
    | (?: [-*+•]\ )? (?:\*\*)? (?: Step\ ?\d+ | \(?\d{1,3}[.)、] | 第[^步\n]{1,4}步 | 步骤\s?\w{1,3}
        ) [:：.]? (?:\*\*)? [:：]?                                                       # marker alone
    | [^\s=:：\\$]{1,30} (?: \ [^\s=:：\\$]{1,30} ){0,3} (?:\*\*)? [:：] (?:\*\*)?       # label: "Solution:"
    """,
    re.VERBOSE,
)
_HEAD_ENDS = frozenset(":：*")
_HEAD_STARTS = frozenset("#*-+•(第步0123456789")
_CONTINUING = frozenset("\\$`~|w其")
_DISPLAY = ("\\[", "$$", "\\begin{", "```", "~~~")
_CLOSERS = "*\"'”’)）"
_DISPLAY_ENDS = frozenset("]$`~}.,;，。；")
_END_ENVIRONMENT = re.compile(r"\\end\{[^{}\n]*\}\Z")
_RELATIVE = ("where ", "which ", "其中")
_BULLET = ("- ", "* ", "• ", "+ ")
_LONG_POINT = 200
_LOOK_BACK = 80


def attach(text: str, spans: Sequence[Span], blocks: Blocks, lists: bool = False) -> list[Span]:
    r"""Join degenerate pieces to the piece they belong to.

    - A heading, a marker alone, a short label ("Solution:") or a piece without any letter or digit ("---") joins the
      next piece. At the end, a heading stands by itself and a piece without letters joins the one before.
    - A displayed formula, fence or table joins the sentence that announces it (one that has not ended and is no
      display itself); so does one sentence that begins with "where" or "which" after a display.
    - With `lists`, short bullet points join the line ending in a colon that announces them, so that a loose list is
      whole; one that takes more than a line or two is a step.

    Args:
        text: The text.
        spans: Pieces in order.
        blocks: Protected regions of the text.
        lists: Whether bullet lists are kept together.
    """
    joined: list[Span] = []
    waiting: int | None = None
    in_list = False
    for start, end in spans:
        if _is_head(text, start, end):
            waiting = start if waiting is None else waiting
            in_list = False
            continue
        if waiting is None and joined:
            listed = lists and _is_list(text, start) and (in_list or text[joined[-1][1] - 1] in ":：")
            if listed or _continues(text, joined[-1], (start, end), blocks):
                joined[-1] = (joined[-1][0], end)
                in_list = listed
                continue
        joined.append((start if waiting is None else waiting, end))
        waiting, in_list = None, False
    if waiting is not None:
        end = spans[-1][1]
        if joined and _WORD.search(text, waiting, end) is None:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((waiting, end))
    return joined


def _is_head(text: str, start: int, end: int) -> bool:
    may_head = text[end - 1] in _HEAD_ENDS or text[start] in _HEAD_STARTS or text.startswith("Step", start)
    if may_head and end - start <= _HEADING_LENGTH and _HEADING.fullmatch(text, start, end):
        return True
    return not text[start].isalnum() and _WORD.search(text, start, end) is None


def _is_list(text: str, start: int) -> bool:
    if not text.startswith(_BULLET, start):
        return False
    return len(text) - start < _LONG_POINT or text.find("\n", start, start + _LONG_POINT) >= 0


def _continues(text: str, before: Span, piece: Span, blocks: Blocks) -> bool:
    start, end = piece
    if text[start] not in _CONTINUING:
        return False
    if text.startswith(_RELATIVE, start):
        return text.find(". ", start, end) < 0 and _ends_in_display(text, before)
    if text.startswith(_DISPLAY, start) or (text[start] == "|" and blocks.start_at(start)):
        last = text[before[1] - 1]
        if last in _CLOSERS:
            last = text[max(before[0], before[1] - _LOOK_BACK) : before[1]].rstrip(_CLOSERS)[-1:]
        return last not in ".!?。！？" and not _ends_in_display(text, before)
    return False


def _ends_in_display(text: str, span: Span) -> bool:
    if text[span[1] - 1] not in _DISPLAY_ENDS:
        return False
    tail = text[max(span[0], span[1] - _LOOK_BACK) : span[1]].rstrip(".,;，。；")
    return tail.endswith(("\\]", "$$", "```", "~~~")) or _END_ENVIRONMENT.search(tail) is not None
