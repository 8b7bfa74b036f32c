"""What the texts, spans and provenance of a record may be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from prm_kit.errors import InputError

Span = tuple[int, int]


def join_steps(steps: Sequence[str], separator: str) -> tuple[str, tuple[Span, ...]]:
    """Join steps with a separator; return the text and the span of each step.

    Raises:
        InputError: A step is empty or whitespace only.
    """
    spans: list[Span] = []
    position = 0
    for index, step in enumerate(steps):
        if not step.strip():
            raise InputError(f"step {index} is empty")
        spans.append((position, position + len(step)))
        position += len(step) + len(separator)
    return separator.join(steps), tuple(spans)


def check_text(name: str, text: str) -> None:
    """Refuse text that cannot be stored as it is.

    Raises:
        InputError: Not a string, or it holds a NUL or a lone surrogate.
    """
    if not isinstance(text, str):
        raise InputError(f"{name} is {type(text).__name__}, not text")
    if "\x00" in text:
        raise InputError(f"{name} holds a NUL character at offset {text.index(chr(0))}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{name} holds a lone surrogate at offset {error.start}") from None


def check_meta(meta: Mapping[str, Any]) -> None:
    """Refuse provenance that is no plain JSON.

    Raises:
        InputError: It holds other things than JSON values, NaN or infinity, or a lone surrogate.
    """
    if not meta:
        return
    try:
        json.dumps(dict(meta), ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise InputError(f"meta cannot be stored as JSON: {error}") from None


def check_spans(spans: Sequence[Span], completion: str) -> None:
    """Refuse spans that are out of order, out of the text, overlapping, or blank.

    Raises:
        InputError: Naming the step and its span.
    """
    previous = 0
    for index, (start, end) in enumerate(spans):
        if not previous <= start < end <= len(completion):
            raise InputError(
                f"span {index} ({start}, {end}) is empty, out of order or beyond the {len(completion)} characters"
            )
        if not completion[start:end].strip():
            raise InputError(f"step {index} is whitespace only")
        previous = end
