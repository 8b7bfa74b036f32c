"""Reads a judge's answer, strictly: whatever is not plainly said about a step is not said.

A judge's answer is text from outside. It may be no JSON, be cut off, name steps twice or not at all, quote another
step, or repeat what a step told it to say. Each step is read by itself, so one bad entry spoils no other.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from labeling.judge.facets import Facets, read_facets
from labeling.judge.quote import is_quoted
from labeling.judge.structured import INDEX, objects_in, spans_of_objects

READING = "3"
"""Version of this reading; raised whenever the same answer would be read otherwise."""

LONGEST_REASON = 500

Fault = Literal["no object", "unknown id", "two entries", "no entry", "wrong quote", "bad facet", "no index"]

FAULT_TEXT: dict[Fault, str] = {
    "no object": "it held no JSON object with the steps",
    "unknown id": "it named ids that no step has",
    "two entries": "it had several entries for one step",
    "no entry": "it left out steps",
    "wrong quote": "a quote was not the start of the step with that id",
    "bad facet": "correct, verifiable or progress was none of the words asked for",
    "no index": "it held no index of a paragraph in \\boxed{}",
}
"""What the judge is told when it is asked again: words of our own, nothing from the answer."""

_THOUGHT = re.compile(r"</think(?:ing)?>")
_OBJECT_FIRST = re.compile(r"\s*(?:```\w*\s*)?(?=\{)")
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\s*\{)?\s*(?:paragraph[_ ]?)?\s*(-?\d{1,6})\s*\}", re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """What was read from one answer.

    Attributes:
        facets: By step index; a step is missing where nothing could be read.
        reasons: The judge's reason by step index, as plain text of at most 500 characters.
        first_error: For a critic: the index of the first wrong step, None if it says that there is none.
        judged: Whether anything was read: at least one step, or the critic's index.
        faults: How often what was wrong.
    """

    facets: Mapping[int, Facets] = field(default_factory=dict)
    reasons: Mapping[int, str] = field(default_factory=dict)
    first_error: int | None = None
    judged: bool = False
    faults: Mapping[Fault, int] = field(default_factory=dict)


def read_answer(asks: Literal["facets", "first_error"], text: str, ids: Sequence[str], shown: Sequence[str]) -> Reading:
    """Read an answer to either kind of prompt; see `read_entries` and `read_index`."""
    return read_index(text, len(ids)) if asks == "first_error" else read_entries(text, ids, shown)


def read_entries(text: str, ids: Sequence[str], shown: Sequence[str]) -> Reading:
    """Read an answer to a prompt that asks for facets.

    Of several objects with steps the last one that names a known id counts: models think before they answer. Entries
    of unknown ids are left out; of several entries for one step none counts, unless they say the same.

    Args:
        text: The answer.
        ids: The opaque id of each step.
        shown: Each step as the judge saw it.
    """
    index = {step_id: step for step, step_id in enumerate(ids)}
    faults: Counter[Fault] = Counter()
    found: dict[int, dict[str, Any]] = {}
    doubled: set[int] = set()
    for entry in _entries(_after_thinking(text), index):
        step = index.get(str(entry.get("id", "")).strip())
        if step is None:
            faults["unknown id"] += 1
        elif step in found and found[step] != entry:
            doubled.add(step)
        else:
            found[step] = entry
    faults["two entries"] += len(doubled)
    facets: dict[int, Facets] = {}
    reasons: dict[int, str] = {}
    for step in sorted(found.keys() - doubled):
        quote, said = found[step].get("quote"), read_facets(found[step])
        if not isinstance(quote, str) or not is_quoted(quote, shown[step]):
            faults["wrong quote"] += 1
        elif isinstance(said, str):
            faults["bad facet"] += 1
        else:
            facets[step] = said
            reasons[step] = plain(found[step].get("reason"))
    faults["no object" if not found and not faults["unknown id"] else "no entry"] += len(ids) - len(found)
    return Reading(facets, reasons, judged=bool(facets), faults={k: v for k, v in faults.items() if v})


def read_index(text: str, steps: int) -> Reading:
    """Read an answer to a critic's prompt: the last boxed index, from -1 to the last step.

    An answer that begins as a JSON object says it in `boxed_index` or not at all: its analysis may repeat a step's box.

    Args:
        text: The answer.
        steps: How many steps there are.
    """
    after = _after_thinking(text).strip()
    found = _BOXED.findall(after)
    said = _structured_index(after) if after.startswith("{") else int(found[-1]) if found else None
    if said is None or not -1 <= said < steps:
        return Reading(faults={"no index": 1})
    return Reading(first_error=None if said == -1 else said, judged=True)


def _structured_index(text: str) -> int | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    said = value.get(INDEX) if isinstance(value, dict) else None
    return said if isinstance(said, int) and not isinstance(said, bool) else None


def plain(text: Any, most: int = LONGEST_REASON) -> str:
    """Text from a judge as text that can be stored: no NUL, no lone surrogate, not longer than `most`."""
    if not isinstance(text, str):
        return ""
    clean = text[: most + 1].replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8").strip()
    return clean if len(clean) <= most else f"{clean[: most - 1]}…"


def _after_thinking(text: str) -> str:
    """What follows the first end of thinking that no JSON object holds: a quote of a step may hold such a mark.

    Nothing is taken from a text that begins with an object that is cut off or broken: a mark in it cannot be told from
    one in a quote.
    """
    if _THOUGHT.search(text) is None:
        return text
    spans = spans_of_objects(text)
    begins = _OBJECT_FIRST.match(text)
    if begins is not None and (not spans or spans[0][0] != begins.end()):
        return text
    position = 0
    for start, end in [*spans, (len(text), len(text))]:
        if (mark := _THOUGHT.search(text, position, start)) is not None:
            return text[mark.end() :]
        position = end
    return text


def _entries(text: str, index: Mapping[str, int]) -> list[dict[str, Any]]:
    """The entries of the last object with steps that names a known id; else of the last one; else loose entries."""
    loose: list[dict[str, Any]] = []
    last: list[dict[str, Any]] = []
    known: list[dict[str, Any]] = []
    for value in objects_in(text):
        steps = value.get("steps")
        if isinstance(steps, list):
            last = [entry for entry in steps if isinstance(entry, dict)]
            if any(str(entry.get("id", "")).strip() in index for entry in last):
                known = last
        elif "id" in value:
            loose.append(value)
    return known or last or loose
