"""Chain-of-thought text to step spans: lossless, structure-aware, English and Chinese."""

from prm_kit.split.answer import find_answer
from prm_kit.split.boundaries import METHODS
from prm_kit.split.cap import estimate_tokens
from prm_kit.split.sections import think_spans
from prm_kit.split.splitter import (
    MAX_STEP_TOKENS,
    Split,
    resplit,
    split,
    split_solution,
    summarise,
    think_steps,
)

__all__ = [
    "MAX_STEP_TOKENS",
    "METHODS",
    "Split",
    "estimate_tokens",
    "find_answer",
    "resplit",
    "split",
    "split_solution",
    "summarise",
    "think_spans",
    "think_steps",
]
