"""Typed settings from YAML and `key.sub=value` overrides, checked before any heavy import.

A wrong key is refused with file, line, key and the nearest key that exists; all errors are told at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from prm_kit.errors import UsageError, nearest


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


S = TypeVar("S", bound=BaseModel)

Lines = dict[tuple[str | int, ...], int]
"""Line number (1-based) of each key, by its path."""


def load_settings(model: type[S], path: Path | None = None, overrides: Sequence[str] = ()) -> S:
    """Read a YAML file into `model`, then apply `key.sub=value` overrides (values are YAML scalars or lists).

    Raises:
        UsageError: No such file, no YAML, a duplicate or unknown key, or a value of the wrong type, with file and line.
    """
    values, lines = read_yaml(path) if path else ({}, {})
    for override in overrides:
        apply_override(values, override)
    return validated(model, values, str(path) if path else "command line", lines)


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """Read a YAML mapping with the line of every key. Aliases and tags beyond plain YAML are refused.

    Raises:
        UsageError: The file is missing or not a plain YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    try:
        _refuse_aliases(text, path)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: Lines = {}
        if node is not None:
            _collect_lines(node, (), lines, path)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UsageError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply") from None
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a recipe is a mapping of keys to values, not a {type(values).__name__}")
    return values, lines


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set `a.b=value` in nested mappings, in place.

    Raises:
        UsageError: No "=" in it, or a part of the key is not a mapping.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"override {override!r} is not of the form key.sub=value")
    *parents, last = key.strip().split(".")
    here = values
    for part in parents:
        below = here.setdefault(part, {})
        if not isinstance(below, dict):
            raise UsageError(f"override {override!r}: {part!r} holds a value, not a mapping")
        here = below
    try:
        here[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        here[last] = text


def validated(model: type[S], values: Mapping[str, Any], where: str, lines: Lines | None = None) -> S:
    """Validate into `model`, telling every error with its place.

    Args:
        model: The settings class.
        values: What was read.
        where: File name (or "command line") for the messages.
        lines: Line numbers of the keys, where known.

    Raises:
        UsageError: One line per error: place, key, reason, nearest key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as failure:
        errors = failure.errors()
    messages = []
    for error in errors:
        location = tuple(error["loc"])
        line = _line_of(location, lines or {})
        place = f"{where}:{line}" if line else where
        key = ".".join(str(part) for part in location)
        reason = error["msg"]
        if error["type"] == "extra_forbidden":
            near = nearest(str(location[-1]), known_keys(model, location[:-1]))
            reason = "unknown key" + (f"; did you mean {near!r}?" if near else "")
        messages.append(f"{place}: {key}: {reason}" if key else f"{place}: {reason}")
    raise UsageError("\n".join(messages))


def known_keys(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Keys that `model` accepts at `path`; [] where that is not a settings class."""
    here: Any = model
    for part in path:
        field = getattr(here, "model_fields", {}).get(part) if isinstance(part, str) else None
        if field is not None:
            here = _model_in(field.annotation)
        # any other part (a list index, the tag of a union) leaves the class as it is
    return list(getattr(here, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def _line_of(location: tuple[str | int, ...], lines: Lines) -> int | None:
    while location:
        if location in lines:
            return lines[location]
        location = location[:-1]
    return None


def _refuse_aliases(text: str, path: Path) -> None:
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise UsageError(f"{path}:{_line(event.start_mark)}: YAML aliases are not allowed")


def _collect_lines(node: yaml.Node, path: tuple[str | int, ...], lines: Lines, file: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, key.value)
            if below in lines:
                raise UsageError(f"{file}:{key.start_mark.line + 1}: {'.'.join(map(str, below))}: key given twice")
            lines[below] = key.start_mark.line + 1
            _collect_lines(value, below, lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            _collect_lines(value, (*path, index), lines, file)


def _line(mark: Any) -> int:
    return mark.line + 1 if mark else 0
