"""How an update is divided among optimiser steps and processes, in a sentence; what does not divide is dealt anyway."""

from __future__ import annotations

from rl.train_settings import RlSettings


def division(settings: RlSettings, group_size: int, processes: int = 1) -> str:
    """An update's arithmetic.

    Args:
        settings: Of the run.
        group_size: Rollouts of a problem.
        processes: That sample and learn together.
    """
    groups, parts = settings.problems, settings.minibatches
    said = [f"{groups} groups of {group_size} are {groups * group_size} rollouts an update"]
    if processes > 1:
        said.append(f"{processes} processes sample {_dealt(groups, processes)}")
    if parts * settings.passes > 1:
        times = f", {settings.passes} times over" if settings.passes > 1 else ""
        steps = "1 optimiser step learns" if parts == 1 else f"{parts} optimiser steps learn"
        said.append(f"{steps} from {_dealt(groups, parts)}{times}")
        if groups % parts:
            said.append("every group counts alike, so that a step of fewer groups is a smaller one")
    return "; ".join(said)


def _dealt(groups: int, hands: int) -> str:
    """What the hands get: "3 groups each", "3, 2 and 2 groups", "2 groups (1 of them) and 1 (7 of them)"."""
    sizes = [groups // hands + (hand < groups % hands) for hand in range(hands)]
    if len(set(sizes)) == 1:
        return f"{sizes[0]} groups" + (" each" if hands > 1 else "")
    if hands <= 4:
        return ", ".join(map(str, sizes[:-1])) + f" and {sizes[-1]} groups"
    larger = groups % hands
    return f"{sizes[0]} groups ({larger} of them) and {sizes[-1]} ({hands - larger} of them)"
