"""Structured output: the forms of answer that servers can be asked for, and the JSON objects in what comes back.

The forms are a ladder; the first that a server honours is used (see `labeling.judge.probe`):

json_schema_bounded  a strict schema that also bounds the length of every text (vLLM, llama.cpp; not OpenAI)
json_schema          a strict schema with exactly as many entries as there are steps
json_object          "some JSON object"
text                 nothing is asked for; the object is looked for in the text

A critic, who names one index, answers in text unless a schema is asked for: an analysis, then an index that a step has.
Models that think well do so best in text; weak ones never come to the index without a schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args

from prm_kit.errors import unknown_name

Form = Literal["json_schema_bounded", "json_schema", "json_object", "text"]

LADDER: tuple[Form, ...] = get_args(Form)

INDEX = "boxed_index"
"""Key of the index in a critic's structured answer, in the words of the prompt that asks for it in a box."""

_LONGEST_TEXT = 1_000_000
_MOST_READ = 20_000_000
_OPENING = re.compile(r'\{\s*"')
_LONE_BACKSLASH = re.compile(r'(\\["\\/]|\\u[0-9a-fA-F]{4})|\\(?![bfnrt](?![a-zA-Z]))')
_TEXT_LIMITS = {"id": 12, "quote": 160, "reason": 300}
_ANALYSIS_LIMIT = 800


def forms_for(asks: Literal["facets", "first_error"], wanted: str = "auto") -> tuple[Form, ...]:
    """The forms to try, in order: the one that is wanted, or for "auto" the ladder; for a critic, text.

    Raises:
        UsageError: There is no such form, or not for such a prompt.
    """
    known: tuple[Form, ...] = LADDER if asks == "facets" else ("text", "json_schema_bounded", "json_schema")
    if wanted == "auto":
        return known if asks == "facets" else known[:1]
    if wanted not in known:
        raise unknown_name(f"form of answers to a prompt for {asks}", wanted, ["auto", *known])
    return tuple(form for form in known if form == wanted)


def response_format(form: Form, asks: Literal["facets", "first_error"], steps: int) -> dict[str, Any] | None:
    """The `response_format` of a request about a solution of so many steps; None where nothing is asked for."""
    if form == "text":
        return None
    if form == "json_object":
        return {"type": "json_object"}
    schema_of = facets_schema if asks == "facets" else index_schema
    schema = schema_of(steps, bounded=form == "json_schema_bounded")
    name = "step_facets" if asks == "facets" else "first_error"
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


def facets_schema(steps: int, bounded: bool) -> dict[str, Any]:
    """JSON schema of an answer with exactly `steps` entries. It depends on nothing else, so servers can keep it."""
    fields: dict[str, Any] = {
        name: {"type": "string", **({"maxLength": most} if bounded else {})} for name, most in _TEXT_LIMITS.items()
    }
    fields["correct"] = {"type": "string", "enum": ["yes", "no", "unsure"]}
    fields["verifiable"] = {"type": "string", "enum": ["yes", "no"]}
    fields["progress"] = {"type": "string", "enum": ["yes", "no"]}
    entry = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    entries = {"type": "array", "items": entry, "minItems": steps, "maxItems": steps}
    return {"type": "object", "properties": {"steps": entries}, "required": ["steps"], "additionalProperties": False}


def index_schema(steps: int, bounded: bool) -> dict[str, Any]:
    """JSON schema of a critic's answer: the analysis first, then the index of a step, or -1."""
    fields: dict[str, Any] = {
        "analysis": {"type": "string", **({"maxLength": _ANALYSIS_LIMIT} if bounded else {})},
        INDEX: {"type": "integer", "enum": list(range(-1, steps))},
    }
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def objects_in(text: str) -> Iterator[dict[str, Any]]:
    """The outermost whole JSON objects in a text, in order; NaN and infinity make an object none.

    Of an object that is cut off or broken the whole ones inside it are given. Where there is none at all, the text is
    read again with lone backslashes doubled: LaTeX that the model did not escape. A hostile text costs a bounded
    number of characters read.
    """
    found = False
    for _, _, value in _scan(text):
        found = True
        yield value
    if not found:
        yield from (value for _, _, value in _scan(_with_backslashes_escaped(text)))


def spans_of_objects(text: str) -> list[tuple[int, int]]:
    """Where the outermost whole JSON objects in a text start and end, in order."""
    return [(start, end) for start, end, _ in _scan(text)]


def _scan(text: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    text = text[:_LONGEST_TEXT]
    position = read = 0
    while read < _MOST_READ and (opening := _OPENING.search(text, position)):
        try:
            value, position = _DECODER.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            position = opening.end()
            read += len(text) - position
            continue
        yield opening.start(), position, value


def _with_backslashes_escaped(text: str) -> str:
    return _LONE_BACKSLASH.sub(lambda found: found[1] or r"\\", text)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
