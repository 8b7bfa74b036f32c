"""One annotation of one window as Label Studio exports it, checked: the server itself checks nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from labeling.label_studio.interface import FLAGS
from labeling.label_studio.tasks import Window
from prm_kit.errors import InputError
from prm_kit.record_checks import check_text
from prm_kit.records import LabelValue

MAX_COMMENT = 10_000
_VALUES: dict[str, LabelValue] = {"-1": -1, "0": 0, "1": 1}
_CONTROL = re.compile(r"(label|comment)_(\d{1,3})|(first_error|flags|comment)")
_ORIGINS = ("manual", "prediction", "prediction-changed")


@dataclass(frozen=True)
class WindowLabels:
    """What one annotator said about one window. Step indices are those of the solution.

    Attributes:
        solution_id: The solution.
        window: The window.
        annotator: The server's user number.
        values: Label by step.
        comments: Comment by step.
        origins: Where each label came from, by step: manual, prediction, prediction-changed.
        flags: In the order of `FLAGS`.
        first_error: Step that was named as the first wrong one, or None.
        comment: On the whole.
        time: When it was last changed, ISO 8601 in UTC.
        lead_time: Seconds, or None.
        task: The server's task number.
        annotation: The server's annotation number.
        unique_id: The server's lasting id of the annotation.
        edited_by: User number of somebody else who changed it last, or None.
    """

    solution_id: str
    window: Window
    annotator: int
    values: Mapping[int, LabelValue]
    comments: Mapping[int, str]
    origins: Mapping[int, str]
    flags: tuple[str, ...]
    first_error: int | None
    comment: str | None
    time: str
    lead_time: float | None
    task: int
    annotation: int
    unique_id: str
    edited_by: int | None


def read_annotation(row: Mapping[str, Any], task: int, solution_id: str, window: Window) -> WindowLabels:
    """Check one exported annotation (not a skipped one) and read its labels.

    Args:
        row: An entry of a task's `annotations`.
        task: The task's number.
        solution_id: The solution that the task shows.
        window: The window that the task shows.

    Raises:
        InputError: Anything is not as the page would have made it.
    """
    annotator = _person(row.get("completed_by"))
    if annotator is None:
        raise InputError("it names no annotator")
    found = _Found(window)
    results = row.get("result")
    if not isinstance(results, list):
        raise InputError("it has no list of results")
    for result in results:
        found.add(result)
    updated_by = _person(row.get("updated_by"))
    return WindowLabels(
        solution_id=solution_id,
        window=window,
        annotator=annotator,
        values=found.values,
        comments=found.comments,
        origins=found.origins,
        flags=tuple(flag for flag in FLAGS if flag in found.flags),
        first_error=found.first_error,
        comment=found.comment,
        time=_time(row.get("updated_at") or row.get("created_at")),
        lead_time=_lead_time(row.get("lead_time")),
        task=task,
        annotation=_number(row, "id"),
        unique_id=str(row.get("unique_id") or ""),
        edited_by=updated_by if updated_by not in (None, annotator) else None,
    )


class _Found:
    """Collects the results of one annotation; each control may be set once."""

    def __init__(self, window: Window) -> None:
        self.values: dict[int, LabelValue] = {}
        self.comments: dict[int, str] = {}
        self.origins: dict[int, str] = {}
        self.flags: frozenset[str] = frozenset()
        self.first_error: int | None = None
        self.comment: str | None = None
        self._window = window
        self._seen: set[str] = set()

    def add(self, result: Any) -> None:
        """Take in one result.

        Raises:
            InputError: An unknown control, one that is set twice, a step that the page does not show, or a value that
                the control does not have.
        """
        name = result.get("from_name") if isinstance(result, dict) else None
        control = _CONTROL.fullmatch(name) if isinstance(name, str) else None
        if control is None or name is None:
            raise InputError(f"a result of {_shown(name)}, which the page does not have")
        if name in self._seen:
            raise InputError(f"{name} is set twice")
        self._seen.add(name)
        to = f"step_{control[2]}" if control[2] else "problem"
        if result.get("to_name") != to:
            raise InputError(f"{name} is said of {_shown(result.get('to_name'))} instead of {to}")
        if control[2]:
            self._step(control[1], int(control[2]), name, result)
        elif name == "comment":
            self.comment = _text(name, result)
        elif name == "flags":
            self.flags = frozenset(_choices(name, result, FLAGS, most=len(FLAGS)))
        else:
            steps = [str(step) for step in range(self._window.first, self._window.last)]
            self.first_error = int(_choices(name, result, steps)[0])

    def _step(self, kind: str, column: int, name: str, result: Mapping[str, Any]) -> None:
        step = self._window.first + column
        if step >= self._window.last:
            raise InputError(f"{name}: the page shows {self._window.last - self._window.first} steps")
        if kind == "comment":
            self.comments[step] = _text(name, result)
            return
        self.values[step] = _VALUES[_choices(name, result, tuple(_VALUES))[0]]
        origin = result.get("origin", "manual")
        if origin not in _ORIGINS:
            raise InputError(f"{name}: origin {_shown(origin)} is not one of {', '.join(_ORIGINS)}")
        self.origins[step] = origin


def _choices(name: str, result: Mapping[str, Any], known: Any, most: int = 1) -> list[str]:
    value = result.get("value")
    chosen = value.get("choices") if result.get("type") == "choices" and isinstance(value, dict) else None
    if (
        not isinstance(chosen, list)
        or not 1 <= len(chosen) <= most
        or any(not isinstance(choice, str) or choice not in known for choice in chosen)
    ):
        raise InputError(f"{name}: {_shown(chosen)} is not among {', '.join(known)}")
    return chosen


def _text(name: str, result: Mapping[str, Any]) -> str:
    value = result.get("value")
    texts = value.get("text") if result.get("type") == "textarea" and isinstance(value, dict) else None
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name}: {_shown(texts)} is no text")
    text = "\n".join(texts)
    check_text(name, text)
    if len(text) > MAX_COMMENT:
        raise InputError(f"{name}: {len(text)} characters are more than {MAX_COMMENT}")
    return text


def _person(value: Any) -> int | None:
    """A user's number; exports of some versions hold the whole user."""
    number = value.get("id") if isinstance(value, dict) else value
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _number(row: Mapping[str, Any], key: str) -> int:
    number = row.get(key)
    if not isinstance(number, int) or isinstance(number, bool):
        raise InputError(f"{key} {_shown(number)} is no number")
    return number


def _time(text: Any) -> str:
    try:
        when = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise InputError(f"its time {_shown(text)} is no ISO 8601 time") from None
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _lead_time(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError(f"lead_time {_shown(value)} is no number of seconds")
    return float(value)


def _shown(value: Any) -> str:
    return repr(value)[:80]
