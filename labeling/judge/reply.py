"""What an endpoint returned, checked field by field: the response is text from outside too."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, TypeGuard

BYTES_PER_TOKEN = 3.0
"""Estimate where nobody counted: English and LaTeX come to 3 to 4 bytes a token, Chinese to 3 to 4.5."""


@dataclass(frozen=True)
class Usage:
    """What was used.

    Attributes:
        calls: Requests that the model answered, or may have answered.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
        estimated: Whether the tokens are our estimate, because the server did not say.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.estimated or other.estimated,
        )

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Reply:
    """One answer of a model.

    Attributes:
        text: What it wrote; "" if nothing.
        finish: Why it stopped, in the server's words ("stop", "length", "content_filter", ...); "" if not said.
        refusal: The server's own mark that the model refused; None if there is none.
        model: The model that answered, in the server's words.
        usage: What it used.
    """

    text: str
    finish: str
    refusal: str | None
    model: str
    usage: Usage

    @property
    def cut_off(self) -> bool:
        """Whether the limit of tokens ended the answer."""
        return self.finish == "length"

    @property
    def refused(self) -> bool:
        """Whether the model, or a filter in front of it, declined to answer."""
        return self.refusal is not None or self.finish == "content_filter"


class MalformedReplyError(ValueError):
    """The response is no chat completion; the message says what it is."""


def reply_of(body: bytes, sent_bytes: int) -> Reply:
    """Read a response body.

    Args:
        body: The response.
        sent_bytes: Size of the request, for an estimate where the server counts no tokens.

    Raises:
        MalformedReplyError: Not UTF-8, not JSON, nested too deeply, or without an answer in it.
    """
    try:
        value = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        kind = "HTML" if body.lstrip()[:1] == b"<" else "no JSON"
        raise MalformedReplyError(f"the response is {kind}: {type(error).__name__}") from None
    choices = value.get("choices") if isinstance(value, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise MalformedReplyError("the response is JSON without choices[0].message")
    text = _text(message.get("content"))
    return Reply(
        text=text,
        finish=_word(choice.get("finish_reason")),
        refusal=message["refusal"] if isinstance(message.get("refusal"), str) and message["refusal"] else None,
        model=_word(value.get("model")),
        usage=_usage(value.get("usage"), sent_bytes, text),
    )


def estimated_tokens(size: int) -> int:
    """Tokens in so many bytes of text, by estimate."""
    return math.ceil(size / BYTES_PER_TOKEN)


def _text(content: Any) -> str:
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _word(value: Any) -> str:
    return value.encode("utf-8", "replace").decode("utf-8").replace("\x00", "")[:200] if isinstance(value, str) else ""


def _usage(given: Any, sent_bytes: int, text: str) -> Usage:
    given = given if isinstance(given, dict) else {}
    read, written = given.get("prompt_tokens"), given.get("completion_tokens")
    if _is_count(read) and _is_count(written):
        return Usage(1, read, written)
    return Usage(
        1, estimated_tokens(sent_bytes), estimated_tokens(len(text.encode("utf-8", "replace"))), estimated=True
    )


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
