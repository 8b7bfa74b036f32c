"""Instruments against reward hacking: how completions are written, whatever they earn. `rl.alarms` reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prm_kit.records import Solution

_SELF_CORRECTION = re.compile(r"\b(wait\b|hmm|let me (re)?check|actually,)|等等|再检查", re.IGNORECASE)


def instruments(solutions: Sequence[Solution], tokens: Sequence[int]) -> dict[str, float]:
    """How completions are written, whatever they earn; means over completions.

    Args:
        solutions: Completions split into steps; at least one.
        tokens: Tokens of each.

    Returns:
        tokens, steps (of a completion), step_tokens (tokens per step), one_step (share of completions of at most one
        step), repetition (share of steps said before in the same completion), self_correction (share of completions
        with "Wait" and the like).
    """
    n = len(solutions)
    steps = [len(solution.spans) for solution in solutions]
    said = [[" ".join(step.split()).casefold() for step in solution.steps] for solution in solutions]
    return {
        "tokens": sum(tokens) / n,
        "steps": sum(steps) / n,
        "step_tokens": sum(tokens) / max(1, sum(steps)),
        "one_step": sum(count <= 1 for count in steps) / n,
        "repetition": sum(len(one) - len(set(one)) for one in said) / max(1, sum(steps)),
        "self_correction": sum(bool(_SELF_CORRECTION.search(solution.completion)) for solution in solutions) / n,
    }
