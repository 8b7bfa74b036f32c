"""Several answers about the same solution to one label per step, with shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prm_kit.records import LABEL_VALUES, LabelValue

Vote = Mapping[int, LabelValue | None]
"""One answer: step to label; None where the judge was unsure. A step that it did not judge is missing."""


class Outcome(NamedTuple):
    """What the votes on one step come to.

    Attributes:
        value: The commonest of -1, 0, +1 and "unsure"; None for the latter and for a tie.
        shares: Of the votes for -1, 0, +1, in this order; None where there was none.
        votes: How many the shares come from.
        tied: Whether several were equally common.
    """

    value: LabelValue | None
    shares: tuple[float, float, float] | None
    votes: int
    tied: bool


def tally(votes: Sequence[Vote], steps: int) -> list[Outcome | None]:
    """Count the votes on each step; None for a step that no vote judged."""
    outcomes: list[Outcome | None] = []
    for step in range(steps):
        counts = Counter(vote[step] for vote in votes if step in vote)
        if not counts:
            outcomes.append(None)
            continue
        (value, most), *rest = counts.most_common()
        tied = any(count == most for _, count in rest)
        outcomes.append(Outcome(None if tied else value, *_shares(counts), tied))
    return outcomes


def critic_outcomes(first_errors: Sequence[int | None], steps: int) -> tuple[list[Outcome | None], int | None]:
    """The critics' first errors to an outcome per step: +1 before the commonest one, -1 at it, nothing after it.

    Ties go to the one named first, as ProcessBench counts (arXiv 2412.06559). The shares of a step come from the votes
    that judged it: those that name no earlier error.

    Args:
        first_errors: One a vote: the index of the first wrong step, None for none; at least one.
        steps: How many steps there are.

    Returns:
        The outcomes, and the first error that won.
    """
    winner, most = Counter(first_errors).most_common(1)[0]
    tied = sum(count == most for count in Counter(first_errors).values()) > 1
    last = steps - 1 if winner is None else winner
    outcomes: list[Outcome | None] = []
    for step in range(steps):
        if step > last:
            outcomes.append(None)
            continue
        counts: Counter[LabelValue | None] = Counter(
            -1 if said == step else 1 for said in first_errors if said is None or said >= step
        )
        outcomes.append(Outcome(-1 if step == winner else 1, *_shares(counts), tied))
    return outcomes, winner


def _shares(counts: Mapping[LabelValue | None, int]) -> tuple[tuple[float, float, float] | None, int]:
    valued = [counts.get(value, 0) for value in LABEL_VALUES]
    count = sum(valued)
    if not count:
        return None, 0
    wrong, neutral, good = (number / count for number in valued)
    return (wrong, neutral, good), count
