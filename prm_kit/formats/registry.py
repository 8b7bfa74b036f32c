"""All foreign formats by name, and the check of their options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prm_kit.errors import UsageError, unknown_name
from prm_kit.formats.chat import CHAT
from prm_kit.formats.distilabel import DISTILABEL
from prm_kit.formats.format import Format, Layout
from prm_kit.formats.math_aps import MATH_APS
from prm_kit.formats.math_shepherd import MATH_SHEPHERD
from prm_kit.formats.openrlhf import OPENRLHF
from prm_kit.formats.own import OWN
from prm_kit.formats.prm800k import PRM800K
from prm_kit.formats.prmbench import PRMBENCH
from prm_kit.formats.processbench import PROCESSBENCH
from prm_kit.formats.rlhflow import RLHFLOW
from prm_kit.formats.steps import STEPS
from prm_kit.formats.trl import TRL
from prm_kit.settings import validated


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        UsageError: There is none; the message lists the names.
    """
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    return FORMATS[name]


def layout_of(format: Format, options: Mapping[str, Any]) -> Layout:
    """The options of a format, checked.

    Raises:
        UsageError: An unknown option (with the nearest that exists) or a wrong value.
    """
    return validated(format.layout, options, f"options of format {format.name}")


def format_of_row(value: Mapping[str, Any]) -> Format:
    """The format that a row's keys speak for.

    Raises:
        UsageError: None does; the message lists the names to choose from.
    """
    for name, keys in SIGNATURES:
        if all(key in value for key in keys):
            return FORMATS[name]
    raise UsageError(
        f"no format is known by the keys {', '.join(map(str, value)) or '(none)'}; name one of {', '.join(FORMATS)}"
    )


SIGNATURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("prm-kit", ("solution", "annotations")),
    ("prm800k", ("question", "label", "labeler")),
    ("math-aps", ("question", "reasoning_steps")),
    ("math-aps", ("question", "process")),
    ("prmbench", ("modified_question", "modified_process", "error_steps")),
    ("processbench", ("problem", "steps", "final_answer_correct", "label")),
    ("steps", ("problem", "steps")),
    ("trl", ("prompt", "completions", "labels")),
    ("distilabel", ("instruction", "solutions")),
    ("math-shepherd", ("input", "label")),
    ("openrlhf", ("input", "value")),
    ("rlhflow", ("conversations",)),
    ("rlhflow", ("prompt", "answers")),
    ("chat", ("messages",)),
)
"""Keys by which a format is told, the first that fit."""

FORMATS: dict[str, Format] = {
    "chat": CHAT,
    "distilabel": DISTILABEL,
    "math-aps": MATH_APS,
    "math-shepherd": MATH_SHEPHERD,
    "omegaprm": MATH_APS,
    "openrlhf": OPENRLHF,
    "prm-kit": OWN,
    "prm800k": PRM800K,
    "prmbench": PRMBENCH,
    "processbench": PROCESSBENCH,
    "rlhflow": RLHFLOW,
    "steps": STEPS,
    "trl": TRL,
}
