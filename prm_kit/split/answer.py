r"""Where a completion states its final answer: `\boxed{...}`, "#### 42", "The answer is ...", "答案是 ..."."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prm_kit.record_checks import Span
from prm_kit.split.sections import Section, sections

MAX_ANSWER = 1000
"""A final answer is never longer than this (characters); it bounds the search for a closing brace."""

_LAST_BOXES = 8
_BOXED = re.compile(r"\\f?boxed\s{0,8}\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
# Every alternative begins with a literal, which lets the search skip plain text quickly.
_STATED = re.compile(
    r"""
    (?: (?: nswer | NSWER ) (?: \ (?:to|of|for)\ [^\n.:：]{1,120}? )?
          (?: [*_]{0,2} (?: \ is\b | \ are\b | [:：] | \ = ) | (?<=inal\ .nswer) [*_]{2} \s*? \n )
      | 答案 (?: 是 | 为 | [*_]{0,2}[:：] )
      | 答 [:：]
      | (?P<line> A: )
      | (?P<hashes> \#{4} (?!\#) )
    )
    [\s*:：_]{0,20} (?: (?: \\\[ | \$\$ ) \s{0,8} )? (?= (?P<said> [^\n]{1,300} ) )
    """,
    re.VERBOSE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|\*|$)|[。！？]")
_NUMBER = re.compile(r"[-+(]?[$£€¥]?[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?\s?[%)°]?")


def find_answer(text: str, token: str | None = None, parts: Sequence[Section] | None = None) -> Span | None:
    r"""Find the final answer that a completion states, outside its think sections.

    The last non-empty `\boxed{...}` counts (its content); without one, what follows the last "#### ", "answer is",
    "Answer:", a line's "A: ", "答案是", "最终答案：" or "答：", up to the end of the sentence or line. "####" needs a
    number or the last line behind it, as it is also a Markdown heading.

    Args:
        text: A completion.
        token: The caller's step token, which is never part of an answer.
        parts: The text's `sections`, where they are known already.

    Returns:
        The span of the answer's own text, or None.
    """
    for start, end, think in reversed(sections(text) if parts is None else parts):
        if not think:
            body = text[start:end]
            found = _boxed(body) or _stated(body, token)
            if found is not None:
                return start + found[0], start + found[1]
    return None


def _boxed(text: str) -> Span | None:
    end = len(text)
    for _ in range(_LAST_BOXES):
        end = text.rfind("boxed", 0, end)
        if end < 0:
            return None
        opened = _BOXED.match(text, max(0, end - 1)) or _BOXED.match(text, max(0, end - 2))
        if opened is None:
            continue
        depth = 1
        for brace in _BRACE.finditer(text, opened.end(), opened.end() + MAX_ANSWER):
            depth += (brace[0] == "{") - (brace[0] == "}")
            if depth == 0:
                found = _trimmed(text, opened.end(), brace.start(), "")
                if found is not None:
                    return found
                break
    return None


def _stated(text: str, token: str | None) -> Span | None:
    last = None
    for match in _STATED.finditer(text):
        if match["line"] and match.start() and text[match.start() - 1] not in "\n*":
            continue
        found = _said(text, match, token)
        last = found or last
    return last


def _said(text: str, match: re.Match[str], token: str | None) -> Span | None:
    start, end = match.span("said")
    if token and (cut := text.find(token, start, end)) >= 0:
        end = cut
    if match["hashes"]:
        is_last = not text[end:].strip()
        return _trimmed(text, start, end, "*.") if is_last or _NUMBER.fullmatch(text[start:end].strip()) else None
    stop = _SENTENCE_END.search(text, start, end)
    return _trimmed(text, start, stop.start() if stop else end, "*_.,。")


def _trimmed(text: str, start: int, end: int, edges: str) -> Span | None:
    piece = text[start:end].rstrip()
    piece = piece.rstrip(edges + " \t\r") if edges else piece
    for closer in ("\\]", "$$"):
        if edges and piece.endswith(closer) and piece.count(closer) % 2:
            piece = piece.removesuffix(closer).rstrip()
    if not piece.strip():
        return None
    return start + len(piece) - len(piece.lstrip()), start + len(piece)
