"""Whether a figure has moved: means of some updates then and now, and the noise of their difference.

The noise of an update's mean is the larger of what its groups say of it and of what it jumps from update to update:
neighbours differ by little but noise, however far a run drifts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean
from typing import Any

Line = Mapping[str, Any]
"""A line of metrics.jsonl."""

REMEMBERED = 200
"""The last updates, which noise is estimated from and in which a break is looked for: what a look costs is bounded."""


@dataclass(frozen=True)
class Change:
    """A figure then and now.

    Attributes:
        before: Its mean over the updates that it is compared with.
        now: Its mean over the last ones.
        error: Standard error of the difference.
        began: Update that splits what lies between best into two levels.
        beside: First and last of the updates that it is compared with.
    """

    before: float
    now: float
    error: float
    began: int
    beside: tuple[int, int]

    @property
    def moved(self) -> float:
        """The difference."""
        return self.now - self.before

    @property
    def ratio(self) -> float:
        """How many times as much it is; of nothing infinitely many."""
        return self.now / self.before if self.before > 0 else math.inf

    @property
    def sigmas(self) -> float:
        """The difference in standard errors, signed."""
        if self.moved == 0:
            return 0.0
        return self.moved / self.error if self.error > 0 else math.copysign(math.inf, self.moved)

    def said(self, form: str = ".2f", unit: str = "") -> str:
        """Both means, the noise, and when."""
        noise = f", {abs(self.sigmas):.1f} standard errors" if math.isfinite(self.sigmas) else ""
        first, last = self.beside
        return f"{self.before:{form}}{unit} in updates {first} to {last}, {self.now:{form}} now{noise}"


def change(lines: Sequence[Line], key: str, start: int, width: int) -> Change | None:
    """Compare `width` updates from place `start` on with the last `width`; None where either have no such figure."""
    later = range(max(start + width, len(lines) - REMEMBERED), len(lines))

    def known(places: Iterable[int]) -> list[int]:
        return [place for place in places if lines[place].get(key) is not None]

    def values(places: Iterable[int]) -> list[float]:
        return [float(lines[place][key]) for place in places]

    before, now = known(range(start, start + width)), known(later[-width:])
    if not before or not now:
        return None
    recent = known(range(max(0, len(lines) - REMEMBERED), len(lines)))
    jumps = fmean((b - a) ** 2 / 2 for a, b in pairwise(values(recent))) if len(recent) > 1 else 0.0
    groups = fmean(lines[place].get("errors", {}).get(key, 0.0) ** 2 for place in recent)
    error = math.sqrt(max(jumps, groups) * (1 / len(before) + 1 / len(now)))
    between = [*before, *known(later)]
    began = lines[between[_break(values(between))]]
    beside = int(lines[start]["update"]), int(lines[start + width - 1]["update"])
    return Change(fmean(values(before)), fmean(values(now)), error, int(began["update"]), beside)


def _break(values: Sequence[float]) -> int:
    """Where a list is best cut into two parts of one level each: the first place of the second part."""
    sums, n = list(accumulate(values)), len(values)

    def between(cut: int) -> float:
        first, rest = sums[cut - 1] / cut, (sums[-1] - sums[cut - 1]) / (n - cut)
        return cut * (n - cut) * (first - rest) ** 2

    return max(range(1, n), key=between)
