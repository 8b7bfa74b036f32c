"""Prompts are files with versions; this module loads them and fills in one problem and one solution.

What stands in a problem or a step was written by somebody else and may address the judge. It goes between tags that
carry a mark, a hash of the very text, so no text can hold the mark that closes it. Step ids are opaque: a step that
looks like an answer to the prompt cannot name them, and a number that the solution gives its steps ("Step 3:") is
taken off, so that it cannot be mistaken for an id. The system message is the same for every solution, so servers that
keep the state of a common beginning read it once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prm_kit.errors import UsageError, unknown_name
from prm_kit.files import value_sha256
from prm_kit.records import Solution
from prm_kit.settings import Settings, load_settings

RENDERING = "1"
"""Version of what this module makes of a prompt file and a solution; raised whenever the messages change."""

FOLDER = Path(__file__).parent / "prompts"

_PLACE = re.compile(r"\{\{(\w+)\}\}")
_HEADING = re.compile(
    r"\s*(?:\#{1,6}\s*|[-*•]\s+)?(?:\*\*|__)?\s*(?:step\s*\#?\d+|第\s*\d+\s*步|步骤\s*\d+)\s*(?:\*\*|__)?\s*[:：.)\-–—]"
    r"\s*(?:\*\*|__)?\s*",
    re.IGNORECASE,
)
# How chat templates mark turns: a server whose tokenizer reads them in user text would take the text for a turn.
_CONTROL = re.compile(
    r"<(?=\|[^|<>\n]{1,40}\|>|｜[^｜<>\n]{1,40}｜>|/?s>|/?(?:start|end)_of_turn>|extra_\d{1,3}>|<SYS>|</SYS>|bos>|eos>)"
    r"|\[(?=/?INST\])",
    re.IGNORECASE,
)


class PromptFile(Settings):
    """A prompt file. `{{name}}` is filled in: mark, problem, reference, steps, count, ids, and in `again` the fault."""

    name: str
    version: int
    language: Literal["en", "zh"]
    asks: Literal["facets", "first_error"]
    system: str
    user: str
    again: str


@dataclass(frozen=True)
class Prompt:
    """A loaded prompt.

    Attributes:
        file: What the file says.
        sha256: Hash of that and of the way it is filled in.
    """

    file: PromptFile
    sha256: str

    @property
    def version(self) -> str:
        """Name, version and hash: "facets-1.en.0a1b2c3d"."""
        return f"{self.file.name}-{self.file.version}.{self.file.language}.{self.sha256[:8]}"


@dataclass(frozen=True)
class Asked:
    """A prompt with one solution in it.

    Attributes:
        messages: What goes to the model: a system and a user message.
        ids: The opaque id of each step, in step order.
        shown: Each step as the model sees it.
        defused: How many marks of chat templates in the text were broken up with a space.
    """

    messages: tuple[dict[str, str], ...]
    ids: tuple[str, ...]
    shown: tuple[str, ...]
    defused: int


def load_prompt(name: str, language: str = "en") -> Prompt:
    """Load a prompt that is shipped, by name and language, or one of the user's own, by path.

    Raises:
        UsageError: There is none, or the file is malformed.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = {file.name.removesuffix(".yaml") for file in FOLDER.glob("*.yaml")}
        if f"{name}.{language}" not in known:
            raise unknown_name("prompt", f"{name}.{language}", known)
        path = FOLDER / f"{name}.{language}.yaml"
    file = load_settings(PromptFile, path)
    for place in ("{{mark}}", "{{problem}}", "{{steps}}"):
        if place not in file.system + file.user:
            raise UsageError(f"{path}: the prompt never says {place}")
    return Prompt(file, value_sha256([file.model_dump(), RENDERING]))


def render(prompt: Prompt, solution: Solution, show_reference: bool = False, fault: str | None = None) -> Asked:
    """Fill a solution into a prompt. The same solution gives the same messages.

    Args:
        prompt: The prompt.
        solution: What is judged.
        show_reference: Show the judge the reference answer. It then tends to judge steps by the outcome.
        fault: Why an earlier answer could not be used, in words of our own.
    """
    texts = [solution.problem, solution.reference_answer or "", *(_without_heading(step) for step in solution.steps)]
    shown = [_CONTROL.sub(lambda found: f"{found[0]} ", text) for text in texts]
    mark = _mark(solution.id, shown)
    ids = _opaque_ids(mark, len(solution.spans))
    facets = prompt.file.asks == "facets"
    blocks = [
        _tagged("step" if facets else f"paragraph_{index}", mark, text, step_id if facets else None)
        for index, (step_id, text) in enumerate(zip(ids, shown[2:], strict=True))
    ]
    places = {
        "mark": mark,
        "problem": _tagged("problem", mark, shown[0]),
        "reference": _tagged("reference_answer", mark, shown[1]) if show_reference and texts[1] else "",
        "steps": "\n".join(blocks),
        "count": str(len(ids)),
        "ids": ", ".join(ids),
        "fault": fault or "",
    }
    user = prompt.file.user + (f"\n{prompt.file.again}" if fault else "")
    messages = (
        {"role": "system", "content": _filled(prompt.file.system, places)},
        {"role": "user", "content": _filled(user, places)},
    )
    defused = sum(len(_CONTROL.findall(text)) for text in (texts if show_reference else [texts[0], *texts[2:]]))
    return Asked(messages, ids, tuple(shown[2:]), defused)


def message_bytes(messages: Iterable[Mapping[str, str]]) -> int:
    """Size of the messages' texts in bytes: what a number of tokens is estimated from."""
    return sum(len(message["content"].encode("utf-8", "replace")) for message in messages)


def _filled(text: str, places: dict[str, str]) -> str:
    """Fill all places at once, so that nothing that is filled in is read as a place."""
    lines = []
    for line in text.strip().split("\n"):
        filled = _PLACE.sub(lambda found: places.get(found[1], found[0]), line)
        if filled or not line:
            lines.append(filled)
        elif lines and not lines[-1]:
            lines.pop()  # what is left out leaves no gap
    return "\n".join(lines)


def _tagged(tag: str, mark: str, text: str, step_id: str | None = None) -> str:
    opening = f"<{tag} {mark}>" if step_id is None else f'<{tag} {mark} id="{step_id}">'
    return f"{opening}\n{text}\n</{tag} {mark}>"


def _mark(solution_id: str, texts: list[str]) -> str:
    """Eight hex digits that occur in none of the texts."""
    for number in range(1_000):
        mark = hashlib.sha256(f"mark {number} {solution_id}".encode()).hexdigest()[:8]
        if not any(mark in text for text in texts):
            return mark
    raise AssertionError("a text that holds a thousand hashes of itself")


def _opaque_ids(mark: str, number: int) -> tuple[str, ...]:
    """One id a step: a letter, a digit and a letter, told by the mark and in no order; two letters more if need be."""
    found: dict[str, None] = {}
    salt = 0
    while len(found) < number:
        digest = hashlib.sha256(f"step {salt} {mark}".encode()).digest()
        letters = [chr(ord("a") + byte % 26) for byte in digest]
        long = "".join(letters[2:4]) if number > 300 else ""
        found[f"{letters[0]}{digest[1] % 10}{letters[4]}{long}"] = None
        salt += 1
    return tuple(found)


def _without_heading(step: str) -> str:
    """The step without a leading "Step 3:"; as it is if nothing else is in it."""
    found = _HEADING.match(step)
    return step[found.end() :] if found and step[found.end() :].strip() else step
