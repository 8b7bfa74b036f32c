"""`<think>` sections: where a completion thinks and where it speaks.

A tag is structure and never text of a step: it always ends the step before it and starts a new one after it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TAG = re.compile(r"<(?P<angle>/?)think(?:ing)?>|<\|(?P<word>begin|end)_of_thought\|>|◁(?P<triangle>/?)think▷")


class Section(NamedTuple):
    """A stretch of a completion between two tags (or its ends), tags excluded; may be empty."""

    start: int
    end: int
    think: bool


def sections(text: str) -> list[Section]:
    """Cut a completion at its think tags.

    A closing tag without an opening one before it closes a section that the prompt had opened, so everything before it
    is thought. An opening tag that is never closed (a truncated completion) thinks to the end. A tag that changes
    nothing (a second opener, a second closer) only separates.

    Args:
        text: A completion. Known tags: `<think>`, `<thinking>`, `<|begin_of_thought|>`, `◁think▷` and their closers.

    Returns:
        Sections in order; together with the tags they give back the text.
    """
    # Plain substring searches come first here and elsewhere: most texts have none of this and are spared the pattern.
    found = list(_TAG.finditer(text)) if "think" in text or "_of_thought|>" in text else []
    if not found:
        return [Section(0, len(text), False)]
    think = _closes(found[0])
    result: list[Section] = []
    position = 0
    for tag in found:
        result.append(Section(position, tag.start(), think))
        think = not _closes(tag)
        position = tag.end()
    result.append(Section(position, len(text), think))
    return result


def think_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Spans of the contents of the think sections (tags excluded); an empty one is reported too.

    What comes before a first closing tag counts, as does an unclosed section at the end.
    """
    return tuple((start, end) for start, end, think in sections(text) if think)


def _closes(tag: re.Match[str]) -> bool:
    return "/" in (tag["angle"], tag["triangle"]) or tag["word"] == "end"
