"""Instruments against reward hacking: what to look at beside the reward, and sentences when something looks wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from prm_kit.records import Solution

_SELF_CORRECTION = re.compile(r"\b(wait|hmm|let me (re)?check|actually,)|等等|再检查", re.IGNORECASE)

WINDOW = 10
"""Updates that an alarm compares with the same number before them."""


_WATCHED = ("process", "accuracy", "steps", "step_tokens", "one_step", "repetition")


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


def alarms(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the last updates look like against the ones before them, in plain sentences; none is the good case.

    Args:
        lines: One mapping an update, oldest first, with `instruments` and "accuracy", and where there is a PRM
            "process" in [0, 1]; other keys are not looked at, and None is no figure. Of fewer than twice `WINDOW`
            nothing is said.
    """
    if len(lines) < 2 * WINDOW:
        return []
    before, now = (
        {key: fmean(said) for key in _WATCHED if (said := [line[key] for line in part if line.get(key) is not None])}
        for part in (lines[-2 * WINDOW : -WINDOW], lines[-WINDOW:])
    )
    found = []

    def moved(key: str) -> float:
        return now[key] - before[key] if key in now and key in before else 0.0

    if moved("process") > 0.02 and moved("accuracy") < -0.02:
        found.append(
            f"the process reward rises ({before['process']:.2f} to {now['process']:.2f}) while accuracy falls "
            f"({before['accuracy']:.2f} to {now['accuracy']:.2f}): the policy has found what the PRM likes"
        )
    if moved("accuracy") < -0.15:
        found.append(f"accuracy fell from {before['accuracy']:.2f} to {now['accuracy']:.2f}")
    for key, many, few in (
        ("steps", "completions have more and more steps", "completions have fewer and fewer steps"),
        ("step_tokens", "steps grow longer", "steps grow shorter"),
    ):
        if before[key] > 0 and not 0.67 < now[key] / before[key] < 1.5:
            found.append(f"{many if now[key] > before[key] else few}: {before[key]:.1f} to {now[key]:.1f}")
    if moved("one_step") > 0.1:
        found.append(f"{now['one_step']:.0%} of completions have at most one step ({before['one_step']:.0%} before)")
    if moved("repetition") > 0.1:
        found.append(f"{now['repetition']:.0%} of steps repeat an earlier one ({before['repetition']:.0%} before)")
    return found
