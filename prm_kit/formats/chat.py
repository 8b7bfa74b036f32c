"""Plain chat JSONL: {"messages": [{role, content}, ...]} is a problem and a completion, without steps or labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from prm_kit.errors import InputError
from prm_kit.formats.folding import Holds
from prm_kit.formats.format import Format, Item, Judged, Layout, Reading, Row, as_text, single
from prm_kit.records import Solution


class ChatLayout(Layout):
    """Options.

    Attributes:
        messages_key: Key of the messages.
        turns: "single": a chat with more than one user message is refused, for the problem would not stand alone.
            "last": the last user message is the problem; earlier messages stay in `meta.history`.
        reference_key: Key of the reference answer, if the rows have one.
    """

    messages_key: str = "messages"
    turns: Literal["single", "last"] = "single"
    reference_key: str | None = None


def read_row(row: Row, layout: ChatLayout) -> Reading:
    """One chat, one solution without steps: the splitter finds them."""
    messages = row.array(layout.messages_key)
    if len(messages) < 2 or not all(isinstance(message, Mapping) for message in messages):
        raise InputError(f"{layout.messages_key}: not a list of two or more messages")
    roles = [message.get("role") for message in messages]
    if roles[-2:] != ["user", "assistant"]:
        raise InputError(f"{layout.messages_key}: does not end with a user's and an assistant's message")
    if roles.count("user") > 1 and layout.turns == "single":
        raise InputError(f"{layout.messages_key}: more than one user message; set turns to last to take the last one")
    before = [dict(message) for message in messages[:-2]]
    reference = row.value.get(layout.reference_key) if layout.reference_key else None
    fields = layout.fields("chat", row, _row_id(row), history=before or None)
    solution = Solution(
        _content(messages[-2], f"{layout.messages_key}[{len(messages) - 2}]"),
        _completion(messages[-1], f"{layout.messages_key}[{len(messages) - 1}]"),
        (),
        reference_answer=None if reference is None else str(reference),
        **fields,
    )
    if not solution.completion.strip():
        raise InputError(f"{layout.messages_key}[{len(messages) - 1}]: the answer is empty")
    return Reading([Item(solution, ())])


def _row_id(row: Row) -> str | None:
    value = row.value.get("id")
    return None if value is None else str(value)


def _completion(message: Mapping[str, Any], where: str) -> str:
    """The content; thoughts that a server gave apart stand before it in the tags that models use for them."""
    content = _content(message, where)
    thoughts = message.get("reasoning_content")
    return f"<think>\n{thoughts}\n</think>\n\n{content}" if isinstance(thoughts, str) and thoughts else content


def _content(message: Mapping[str, Any], where: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        return "".join(as_text(part, "text") for part in content)
    raise InputError(f"{where}.content: neither text nor a list of text parts")


def write_rows(group: Sequence[Judged], layout: ChatLayout) -> dict[str, Any]:
    """One solution, one chat."""
    solution, _, _ = single(group)
    row: dict[str, Any] = {
        layout.messages_key: [
            *solution.meta.get("history", ()),
            {"role": "user", "content": solution.problem},
            {"role": "assistant", "content": solution.completion},
        ]
    }
    if layout.reference_key:
        row[layout.reference_key] = solution.reference_answer
    return row


CHAT = Format(
    name="chat",
    about="plain chat: problem and completion, no steps and no labels",
    layout=ChatLayout,
    read=read_row,
    write=write_rows,
    holds=lambda layout: Holds(neutral=True, soft=True, missing=True),
    labels="none",
    warning="steps and labels are not written: a chat has none",
)
