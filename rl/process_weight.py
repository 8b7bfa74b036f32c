"""How much the process reward weighs in each update: always as much, less and less, or less whenever the PRM is gamed.

The weight of an update is a function of its number and of the lines of metrics.jsonl before it, so that a run that goes
on weighs what it would have weighed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from prm_kit.errors import UsageError

if TYPE_CHECKING:
    from rl.algorithms import Algorithm

Schedule = Literal["constant", "automatic"] | dict[Literal["from", "to", "over"], float]
"""The algorithm's own weight; its weight, falling as alarms ask; or in a line from one weight to another over updates.
"""

PATIENCE = 5
"""Updates that a smaller weight is given before the next alarm may halve it again."""

HALVINGS = 3
"""Times that the weight is halved; an alarm after that takes it to 0."""


def process_weight(schedule: Schedule, own: float, update: int, lines: Sequence[Mapping[str, Any]]) -> float:
    """The weight of an update.

    Args:
        schedule: See `Schedule`.
        own: The algorithm's own weight.
        update: Number of the update, from 0.
        lines: Of the updates before it, oldest first, with their "alarms" (`rl.alarms.Alarm` as mappings).

    Returns:
        At least 0. "automatic" halves with every alarm of the PRM's kind, `PATIENCE` updates apart, `HALVINGS` times;
        the next one takes it to 0.
    """
    if schedule == "constant":
        return own
    if isinstance(schedule, dict):
        if update >= schedule["over"]:
            return schedule["to"]
        return schedule["from"] + (schedule["to"] - schedule["from"]) * update / schedule["over"]
    falls, last = 0, -PATIENCE
    for line in lines:
        alarmed = any(alarm["kind"] == "prm" for alarm in line.get("alarms", ()))
        if alarmed and line["update"] - last >= PATIENCE:
            falls, last = falls + 1, line["update"]
    return own / 2**falls if falls <= HALVINGS else 0.0


def weighed(algorithm: Algorithm, weight: float) -> Algorithm:
    """The algorithm with another weight of the process reward; with 0 its steps are not credited at all."""
    if weight == algorithm.weights.process:
        return algorithm
    changed: dict[str, Any] = {"weights": algorithm.weights.model_copy(update={"process": weight})}
    if weight == 0:
        changed |= {"credit": None, "process_estimator": None, "online_prm": None}
    return replace(algorithm, **changed)


def check_schedule(schedule: Schedule, algorithm: Algorithm) -> None:
    """Refuse a schedule that means nothing here.

    Raises:
        UsageError: A key is missing, a number is negative, the algorithm does not reward steps, or nothing would be
            left where the process weight is 0.
    """
    if schedule == "constant":
        return
    if isinstance(schedule, dict):
        if missing := {"from", "to", "over"} - set(schedule):
            raise UsageError(f"process_weight: give {', '.join(sorted(missing))} too")
        if negative := [key for key, number in schedule.items() if number < 0]:
            raise UsageError(f"process_weight.{negative[0]}: {schedule[negative[0]]} is below 0")
    if algorithm.weights.process == 0:
        raise UsageError(
            f"process_weight: algorithm {algorithm.name} does not reward steps; set parts.weights.process, or "
            "process_weight: constant"
        )
    falls = schedule == "automatic" or 0 in (schedule["from"], schedule["to"])
    if falls and algorithm.weights.final == 0:
        raise UsageError(
            f"process_weight: algorithm {algorithm.name} is rewarded by the PRM alone: at weight 0 nothing would be "
            "left; set parts.weights.final"
        )
