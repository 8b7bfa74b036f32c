"""Percentile intervals by resampling problems, not steps.

Steps of one solution and solutions of one problem stand and fall together, so the problem is the unit that is drawn
(cluster bootstrap; Efron and Tibshirani 1993, percentile interval). A resample is a row of counts, how often each
problem was drawn; the same seed gives the same rows to every scorer, which makes differences paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prm_kit.errors import UsageError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_CELLS = 2_000_000
_KEPT = 20_000_000
_UNDEFINED_SHARE = 0.1


class Bootstrap:
    """Resamples of `n_problems` problems.

    Attributes:
        n_problems: How many problems there are (P).
        resamples: How many resamples are drawn (R).
        seed: Same seed, same resamples.
        level: Coverage of the intervals, in (0, 1).
    """

    def __init__(self, n_problems: int, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> None:
        if resamples < 2 or not 0.0 < level < 1.0:
            raise UsageError(f"a bootstrap needs at least 2 resamples and a level in (0, 1), not {resamples}, {level}")
        self.n_problems, self.resamples, self.seed, self.level = n_problems, resamples, seed, level
        self._kept: list[NDArray[np.float32]] | None = None

    def draws(self) -> Iterator[NDArray[np.float32]]:
        """Yield the resamples in blocks [r, P]: how often each problem was drawn; each row sums to P."""
        if self._kept is not None:
            yield from self._kept
            return
        keep: list[NDArray[np.float32]] | None = [] if self.n_problems * self.resamples <= _KEPT else None
        for block in self._drawn():
            if keep is not None:
                keep.append(block)
            yield block
        self._kept = keep

    def of_sums(self, sums_PM: FloatArray, statistic: Callable[[FloatArray], FloatArray]) -> FloatArray:
        """Replicates [R, ...] of a statistic of sums over problems, given the sums of each problem [P, M].

        Args:
            sums_PM: What each problem adds, M numbers.
            statistic: From [r, M] sums over the drawn problems to [r, ...]; NaN where it is undefined.
        """
        sums = np.asarray(sums_PM, dtype=np.float64)
        return np.concatenate([statistic(draw.astype(np.float64) @ sums) for draw in self.draws()])

    def of_items(self, problem_N: IntArray, statistic: Callable[[FloatArray], FloatArray]) -> FloatArray:
        """Replicates [R] of a statistic that needs every item: `statistic` gets weights [r, N], gives [r]."""
        rows = max(1, _CELLS // max(1, len(problem_N)))
        found = []
        for draw in self.draws():
            for start in range(0, len(draw), rows):
                weights = draw[start : start + rows].take(problem_N, axis=1).astype(np.float64)
                found.append(statistic(weights))
        return np.concatenate(found)

    def measure(self, value: float | None, replicates: FloatArray, n: int) -> dict[str, Any]:
        """The plain form of a figure: {value, low, high, n}.

        None stands for undefined. The interval is None where more than a tenth of the resamples leave the statistic
        undefined (a class that is hardly there); fewer are left out.
        """
        low: float | None = None
        high: float | None = None
        finite = replicates[np.isfinite(replicates)]
        if value is not None and np.isfinite(value) and len(finite) >= (1 - _UNDEFINED_SHARE) * len(replicates):
            tail = (1 - self.level) / 2
            low, high = (float(x) for x in np.quantile(finite, [tail, 1 - tail]))
        return {"value": number_or_none(value), "low": low, "high": high, "n": int(n)}

    def _drawn(self) -> Iterator[NDArray[np.float32]]:
        rows = max(1, _CELLS // max(1, self.n_problems))
        for block, start in enumerate(range(0, self.resamples, rows)):
            rng = np.random.default_rng([self.seed, block])
            size = min(rows, self.resamples - start)
            drawn = rng.integers(0, self.n_problems, size=(size, self.n_problems))
            flat = (drawn + np.arange(size)[:, None] * self.n_problems).ravel()
            counts = np.bincount(flat, minlength=size * self.n_problems)
            yield counts.reshape(size, self.n_problems).astype(np.float32)


def sums_by_problem(problem_N: IntArray, columns_NM: FloatArray, n_problems: int) -> FloatArray:
    """Add up the rows of each problem: [N, M] to [P, M]."""
    columns = np.asarray(columns_NM, dtype=np.float64)
    return np.stack(
        [np.bincount(problem_N, weights=column, minlength=n_problems) for column in columns.T],
        axis=1,
    )


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide, NaN where the denominator is 0."""
    out = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out


def number_or_none(value: float | None) -> float | None:
    """A float that JSON can hold: NaN and infinity become None (undefined)."""
    return None if value is None or not np.isfinite(value) else float(value)


def problem_numbers(problems: Sequence[str]) -> IntArray:
    """Number the problems in order of first appearance; equal texts are one problem."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(problem, len(seen)) for problem in problems], dtype=np.int64)
