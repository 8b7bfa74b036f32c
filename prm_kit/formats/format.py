"""What a foreign format is: a reader of one row, a writer of one row, and the layout options that both share.

A row is one parsed JSON object with its place. A reader turns it into solutions with annotations (a PRM800K row gives a
trunk and its branches), never folds a label, and says in `notes` what it met and mended or left out. A writer turns
one annotated solution, or for tree formats all solutions of one tree, into one row.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prm_kit.errors import InputError
from prm_kit.formats.folding import Folded, Holds
from prm_kit.records import Annotation, LabelValue, Rater, RaterKind, Solution, StepLabel, step_hash
from prm_kit.settings import Settings


@dataclass(frozen=True)
class Row:
    """One parsed row of a foreign file.

    Attributes:
        value: The JSON object.
        file: The file or data set it stands in.
        number: 1-based line of a JSONL file, or element of an array, or row of a table.
    """

    value: Mapping[str, Any]
    file: str
    number: int

    @property
    def place(self) -> str:
        """Name of the file without its folders, and the number: the id of a row that has none of its own."""
        return f"{Path(self.file).name}:{self.number}"

    @property
    def raw(self) -> str:
        """The row as one line of JSON."""
        return json.dumps(self.value, ensure_ascii=True, default=str)

    def text(self, key: str) -> str:
        """A required text."""
        return as_text(self.value, key)

    def texts(self, key: str) -> list[str]:
        """A required list of texts."""
        items = as_list(self.value, key)
        return [as_text({f"{key}[{i}]": item}, f"{key}[{i}]") for i, item in enumerate(items)]

    def array(self, key: str) -> Sequence[Any]:
        """A required list."""
        return as_list(self.value, key)

    def optional_text(self, key: str) -> str | None:
        """A text, or None where the key is absent or null."""
        return None if self.value.get(key) is None else as_text(self.value, key)


def as_text(values: Mapping[str, Any], key: str) -> str:
    """Text under `key`.

    Raises:
        InputError: The key is missing, or holds no text.
    """
    value = _required(values, key)
    if not isinstance(value, str):
        raise InputError(f"{key}: {type(value).__name__} is not text")
    return value


def as_list(values: Mapping[str, Any], key: str) -> Sequence[Any]:
    """List under `key`.

    Raises:
        InputError: The key is missing, or holds no list.
    """
    value = _required(values, key)
    if not isinstance(value, list):
        raise InputError(f"{key}: {type(value).__name__} is not a list")
    return value


def as_mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Object under `key`.

    Raises:
        InputError: The key is missing, or holds no object.
    """
    value = _required(values, key)
    if not isinstance(value, Mapping):
        raise InputError(f"{key}: {type(value).__name__} is not an object")
    return value


def as_share(value: Any, key: str) -> float:
    """A number in [0, 1].

    Raises:
        InputError: It is not one.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise InputError(f"{key}: a soft label is a number in [0, 1]")
    return float(value)


def _required(values: Mapping[str, Any], key: str) -> Any:
    if values.get(key) is None:
        raise InputError(f"{key}: missing")
    return values[key]


class Item(NamedTuple):
    """A solution with every annotation that its row gave."""

    solution: Solution
    annotations: tuple[Annotation, ...]


@dataclass
class Reading:
    """What one row gave.

    Attributes:
        items: Solutions with their annotations, a trunk before its branches.
        seen: Labels as the row words them, counted before anything is made of them.
        notes: What was met and mended or left out, by kind.
    """

    items: list[Item] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)


class Layout(Settings):
    """Options that every format has. They say what the file itself does not.

    Attributes:
        source: Name of the data set; None: the name of the format.
        licence: The licence it comes under.
        generator: Who wrote the completions, where the row does not say.
        split: Name of the split, kept in `meta`.
        rater_kind: Who labelled, where it is not who usually labels in this format.
        rater_name: Name of that rater.
    """

    source: str | None = None
    licence: str | None = None
    generator: str | None = None
    split: str | None = None
    rater_kind: RaterKind | None = None
    rater_name: str | None = None

    def fields(self, format_name: str, row: Row, row_id: str | None = None, **meta: Any) -> dict[str, Any]:
        """The fields of a `Solution` that say where it comes from. Meta values that are None are left out."""
        kept = {"row_id": row_id or row.place, "split": self.split, **meta}
        return {
            "source": self.source or format_name,
            "licence": self.licence,
            "generator": self.generator,
            "meta": {key: value for key, value in kept.items() if value is not None},
        }

    def rater(self, kind: RaterKind, name: str, version: str = "") -> Rater:
        """The rater named by the options, else the usual one of the format."""
        return Rater(self.rater_kind or kind, self.rater_name or name, version)


class Judged(NamedTuple):
    """What a writer is given: a solution, one annotation of it (None: nobody judged it), and its folded labels."""

    solution: Solution
    annotation: Annotation | None
    folded: Folded


Reader = Callable[[Row, Any], Reading]
"""(row, layout) -> what it gives. Raises InputError without the place: the driver adds file and line."""

Writer = Callable[[Sequence[Judged], Any], dict[str, Any]]
"""(one judged solution, or the whole tree in a tree format; layout) -> one row. Raises InputError to refuse it."""


@dataclass(frozen=True)
class Format:
    """One foreign format.

    Attributes:
        name: As on the command line.
        about: One line for the help.
        layout: The class of its options.
        read: Its reader.
        write: Its writer, or None where it can only be read.
        holds: Which kinds of labels it can hold, given its options.
        labels: "folded" to what it holds; "whole": every annotation as it is; "none": it has no place for labels.
        tree: For formats whose row is a tree: the key under which solutions belong to one row. None: one row each.
        warning: For the export report, what whoever reads the file elsewhere should know.
    """

    name: str
    about: str
    layout: type[Layout]
    read: Reader
    write: Writer | None
    holds: Callable[[Any], Holds]
    labels: Literal["folded", "whole", "none"] = "folded"
    tree: Callable[[Solution, Annotation | None], Hashable] | None = None
    warning: str | None = None


def branch_of(solution: Solution, annotation: Annotation | None) -> tuple[str | None, int | None]:
    """(id of the trunk or None, step at which this leaves it or None).

    The annotation's word counts more than the solution's: a solution that two trees share is stored once, with the
    meta of the first.
    """
    meta = {**solution.meta, **(annotation.meta if annotation else {})}
    return meta.get("parent"), meta.get("branch_step")


def hard_labels(solution: Solution, values: Sequence[LabelValue | None]) -> tuple[StepLabel, ...]:
    """One label per value that is not None, with the hash of the step's text."""
    return tuple(
        StepLabel(step, value, step_hash(text))
        for step, (value, text) in enumerate(zip(values, solution.steps, strict=True))
        if value is not None
    )


def soft_label(step: int, text: str, value: float, **fields: Any) -> StepLabel:
    """A Monte-Carlo or otherwise soft value in [0, 1], kept as it is: shares (1 - v, 0, v) and no hard value."""
    return StepLabel(step, None, step_hash(text), shares=(1.0 - value, 0.0, value), **fields)


def single(group: Sequence[Judged]) -> Judged:
    """The only member of a group, for formats that hold one solution a row."""
    (judged,) = group
    return judged
