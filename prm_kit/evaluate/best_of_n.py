"""Best of n: what picking one of n solutions of each problem by a score would get right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prm_kit.errors import InputError
from prm_kit.evaluate.bootstrap import Bootstrap, ratio


@dataclass(frozen=True)
class Candidate:
    """One of the n solutions of a problem.

    Attributes:
        problem: The problem's text.
        final_answer: As stated; None where it states none.
        is_correct: Whether that answer is right.
        scores: A number per way of scoring, higher is better.
    """

    problem: str
    final_answer: str | None
    is_correct: bool
    scores: Mapping[str, float]


def best_of_n(candidates: Sequence[Candidate], *, seed: int = 0, resamples: int = 1000) -> dict[str, dict[str, Any]]:
    """Share of problems answered rightly by each way of picking, with bootstrap intervals over problems.

    Ties are split: where k candidates share the highest score (or k answers the most votes), each counts 1/k, so no
    order of the candidates matters.

    Args:
        candidates: The same number n of each problem, in any order, all scored in the same ways.
        seed: Of the resamples.
        resamples: How many resamples an interval is made of.

    Returns:
        Figures {value, low, high, n} by name: "pass@1" (one candidate at random), "majority" (the answer stated most
        often), "best of n by NAME" for each score, and "pass@n" (some candidate is right: the most that picking can
        reach). Here "n" in a figure counts problems; in the names it is the number of candidates.

    Raises:
        InputError: No candidates, problems with different numbers of them, or different ways of scoring.
    """
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.problem, []).append(candidate)
    sizes = {len(group) for group in groups.values()}
    if len(sizes) != 1:
        raise InputError(f"problems have different numbers of candidates: {sorted(sizes) or 'none at all'}")
    ways = {tuple(candidate.scores) for candidate in candidates}
    if len(ways) != 1:
        raise InputError(f"candidates are scored in different ways: {sorted(ways)}")
    n = sizes.pop()
    picked: dict[str, list[float]] = {}
    for group in groups.values():
        right = [float(candidate.is_correct) for candidate in group]
        picked.setdefault("pass@1", []).append(sum(right) / n)
        picked.setdefault("majority", []).append(_majority(group))
        for name in ways.copy().pop():
            picked.setdefault(f"best of {n} by {name}", []).append(_by_score(group, name))
        picked.setdefault(f"pass@{n}", []).append(max(right))
    bootstrap = Bootstrap(len(groups), resamples, seed)
    return {name: _figure(np.array(shares), bootstrap) for name, shares in picked.items()}


def _majority(group: Sequence[Candidate]) -> float:
    votes = Counter(candidate.final_answer for candidate in group if candidate.final_answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = {
        candidate.final_answer: candidate.is_correct for candidate in group if candidate.final_answer is not None
    }
    chosen = [winners[answer] for answer, count in votes.items() if count == most]
    return sum(chosen) / len(chosen)


def _by_score(group: Sequence[Candidate], name: str) -> float:
    highest = max(candidate.scores[name] for candidate in group)
    chosen = [candidate.is_correct for candidate in group if candidate.scores[name] == highest]
    return sum(chosen) / len(chosen)


def _figure(share_P: np.ndarray[Any, Any], bootstrap: Bootstrap) -> dict[str, Any]:
    sums_PM = np.stack([share_P, np.ones_like(share_P)], axis=1)
    replicates = bootstrap.of_sums(sums_PM, lambda sums: ratio(sums[:, 0], sums[:, 1]))
    return bootstrap.measure(float(share_P.mean()), replicates, len(share_P))
