"""Parts: how a function with its numbers is named, printed, and made from a recipe's words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from prm_kit.errors import UsageError, nearest, unknown_name


def name_of(part: Callable[..., Any] | None) -> str:
    """The name of a function, without the numbers that it was given; "" for None."""
    if part is None:
        return ""
    while isinstance(part, partial):
        part = part.func
    return str(getattr(part, "__name__", type(part).__name__))


def described(part: Callable[..., Any] | None) -> str:
    """Name and numbers, `ppo_clip(high=0.28)`; "-" for None."""
    if part is None:
        return "-"
    if isinstance(part, partial) and part.keywords:
        return f"{name_of(part)}({', '.join(f'{key}={_value(value)}' for key, value in part.keywords.items())})"
    return name_of(part)


def numbers_of(part: Callable[..., Any]) -> dict[str, Any]:
    """The keyword numbers of a part and their values as it stands."""
    parameters = inspect.signature(part).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def part_from(kind: str, asked: Any, registry: Mapping[str, Any]) -> Any:
    """A part by name, or by {name: ..., number: ...}.

    Args:
        kind: What it is, for the messages ("estimator").
        asked: None for no part; a function, taken as it is; a name; or a mapping with `name` and keyword numbers.
        registry: The names that exist.

    Raises:
        UsageError: Unknown name, a number that the part does not have (lists the choices), or one that is none.
    """
    if asked is None or callable(asked):
        return asked
    given = {"name": asked} if isinstance(asked, str) else dict(asked) if isinstance(asked, Mapping) else {}
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise UsageError(f"{kind}: {asked!r} is neither a name nor a mapping with one. Known: {', '.join(registry)}")
    if name not in registry:
        raise unknown_name(kind, name, registry)
    part = registry[name]
    known = numbers_of(part)
    for key in given:
        if key not in known:
            near = nearest(key, known)
            hint = f"; did you mean {near!r}?" if near else f". It has: {', '.join(known) or 'none'}"
            raise UsageError(f"{kind} {name}: no number {key!r}{hint}")
        check_value(f"{kind} {name}: {key}", given[key], str(inspect.signature(part).parameters[key].annotation))
    return partial(part, **given) if given else part


def check_value(what: str, value: Any, annotation: str) -> None:
    """Refuse a value that is not of its kind, before a run finds out; lists and what else has no name are let through.

    Args:
        what: Whose value, for the message.
        value: As asked for.
        annotation: "float", "int", "bool", or such with "| None".

    Raises:
        UsageError: It is not of that kind, or not a number (NaN).
    """
    kinds = annotation.split(" | ")
    number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    fits = {
        "None": value is None,
        "bool": isinstance(value, bool),
        "int": number and isinstance(value, int),
        "float": number,
    }
    if set(kinds) <= set(fits) and not any(fits[kind] for kind in kinds):
        raise UsageError(f"{what}: {value!r} is no {_KINDS[kinds[0]]}")


_KINDS = {"float": "number", "int": "whole number", "bool": "true or false"}


def _value(value: Any) -> str:
    return described(value) if callable(value) else f"{value:g}" if isinstance(value, float) else str(value)
