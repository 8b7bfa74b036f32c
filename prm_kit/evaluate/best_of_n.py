"""Best of N: what picking one of N solutions of each problem by a score, or by votes, would get right.

Every figure is the expectation over all subsets of N of a problem's candidates, so a curve over N does not hang on the
order of the candidates: pass@N as in arXiv 2107.03374, and in the same way the picks. Ties are split: where k
candidates share the highest score, or k answers the most votes, each counts 1/k.

Picking by a score has a closed form (sort, and count the subsets whose best lies in each tie). Votes have none: up to
`MOST_SUBSETS` subsets are all counted, which is exact; beyond that as many are drawn evenly, which is unbiased.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from prm_kit.errors import InputError
from prm_kit.evaluate.bootstrap import Bootstrap, FloatArray, ratio

MOST_SUBSETS = 2048

RANDOM, MAJORITY, ORACLE = "random", "majority", "oracle"


@dataclass(frozen=True)
class Candidate:
    """One of the solutions of a problem.

    Attributes:
        problem: The problem's text.
        final_answer: As stated; None where it states none.
        is_correct: Whether that answer is right.
        scores: A number per way of scoring, higher is better; None, where the scorer abstained, is picked last.
    """

    problem: str
    final_answer: str | None
    is_correct: bool
    scores: Mapping[str, float | None]


def best_of_n(candidates: Sequence[Candidate], *, seed: int = 0, resamples: int = 1000) -> dict[str, dict[str, Any]]:
    """Share of problems answered rightly by each way of picking from all candidates, with bootstrap intervals.

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
    groups = grouped(candidates)
    sizes = {len(group) for group in groups}
    if len(sizes) != 1:
        raise InputError(f"problems have different numbers of candidates: {sorted(sizes) or 'none at all'}")
    n = sizes.pop()
    found = curves(candidates, sizes=(n,), voted=(), seed=seed, resamples=resamples)["curves"]
    names = {RANDOM: "pass@1", MAJORITY: "majority", ORACLE: f"pass@{n}"}
    picked = [name for name in found if name not in names]
    order = [RANDOM, MAJORITY, *picked, ORACLE]
    return {names.get(name, f"best of {n} by {name.removeprefix('best by ')}"): found[name][0] for name in order}


def curves(
    candidates: Sequence[Candidate],
    *,
    sizes: Sequence[int] = (),
    voted: Iterable[str] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Share of problems answered rightly against the number N of candidates that there are to pick from.

    Args:
        candidates: Of each problem any number, in any order, all scored in the same ways.
        sizes: The values of N; none: 1, 2, 4, ... and the largest number of candidates of a problem.
        voted: The scores that also weigh votes (they must not be negative); None: all.
        seed: Of the resamples and of drawn subsets.
        resamples: How many resamples an interval is made of.

    Returns:
        sizes, problems (how many have at least N candidates; those count at N), sampled (whether some votes were
        counted over drawn subsets), curves {name: a figure per size}: "random", "majority", "oracle" (some candidate
        is right: pass@N), "best by NAME" and "vote by NAME" (the answer whose candidates' scores sum highest).

    Raises:
        InputError: No candidates, different ways of scoring, or a negative or missing weight of a vote.
    """
    groups = grouped(candidates)
    ways = list(groups[0][0].scores) if groups else []
    if not groups or any(list(candidate.scores) != ways for candidate in candidates):
        found = sorted({tuple(candidate.scores) for candidate in candidates})
        raise InputError(f"candidates are scored in different ways: {found}" if found else "no candidates at all")
    weighed = ways if voted is None else list(voted)
    largest = max(map(len, groups))
    asked = list(sizes) or sorted({*(2**k for k in range(largest.bit_length())), largest})
    names = [RANDOM, MAJORITY, ORACLE, *(f"best by {way}" for way in ways), *(f"vote by {way}" for way in weighed)]
    shares_PNM = np.full((len(groups), len(asked), len(names)), np.nan)
    sampled = False
    rng = np.random.default_rng([seed, 1])
    for p, group in enumerate(groups):
        for column, size in enumerate(asked):
            if size <= len(group):
                shares_PNM[p, column] = _shares(group, size, ways, weighed, rng)
                sampled |= size > 1 and math.comb(len(group), size) > MOST_SUBSETS
    bootstrap = Bootstrap(len(groups), resamples, seed)
    return {
        "sizes": asked,
        "problems": np.isfinite(shares_PNM[:, :, 0]).sum(axis=0).tolist(),
        "sampled": bool(sampled),
        "curves": {
            name: [_figure(shares_PNM[:, column, m], bootstrap) for column in range(len(asked))]
            for m, name in enumerate(names)
        },
    }


def picks(candidates: Sequence[Candidate], *, seed: int = 0, resamples: int = 1000) -> dict[str, dict[str, Any]]:
    """Share of problems answered rightly by picking from all candidates, however many a problem has (at least one).

    Returns:
        Figures by name as in `curves`, without votes weighed by scores.
    """
    groups = grouped(candidates)
    ways = list(candidates[0].scores) if candidates else []
    rng = np.random.default_rng([seed, 1])
    shares_PM = np.array([_shares(group, len(group), ways, (), rng) for group in groups])
    bootstrap = Bootstrap(len(groups), resamples, seed)
    names = [RANDOM, MAJORITY, ORACLE, *(f"best by {way}" for way in ways)]
    return {name: _figure(shares_PM[:, m], bootstrap) for m, name in enumerate(names)}


def grouped(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """The candidates of each problem, problems in order of first appearance."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.problem, []).append(candidate)
    return list(groups.values())


def pass_at(right: int, count: int, size: int) -> float:
    """Chance that `size` of `count` candidates, of which `right` are right, hold a right one."""
    return 1.0 - math.comb(count - right, size) / math.comb(count, size)


def best_of_subsets(score_C: Sequence[float | None], right_C: Sequence[bool], size: int) -> float:
    """Chance that the best-scored of `size` of the candidates is right, over all subsets of that size.

    Args:
        score_C: Higher is better; None ranks below every number.
        right_C: Whether each candidate is right.
        size: At most the number of candidates.
    """
    ties: dict[float, list[bool]] = {}
    for score, right in zip(score_C, right_C, strict=True):
        ties.setdefault(-math.inf if score is None else score, []).append(right)
    chance, below = 0.0, 0
    for score in sorted(ties):
        tie = ties[score]
        upto = below + len(tie)
        # The best of a subset lies in this tie: none above it, and not all below it. By symmetry each member of the
        # tie is picked equally often.
        chance += (math.comb(upto, size) - math.comb(below, size)) * sum(tie) / len(tie)
        below = upto
    return chance / math.comb(len(score_C), size)


def vote_of_subsets(weight_WC: FloatArray, group: Sequence[Candidate], subset_SC: FloatArray) -> FloatArray:
    """Chance [W] that the answer with the highest sum of weights is right, over the given subsets.

    Candidates that state no answer have no vote; a subset in which nobody votes is wrong.

    Args:
        weight_WC: Not negative; one row for each way of weighing the candidates.
        group: The candidates.
        subset_SC: 1 where a candidate is in the subset.
    """
    answers = sorted({candidate.final_answer for candidate in group if candidate.final_answer is not None})
    if not answers:
        return np.zeros(len(weight_WC))
    says_CA = np.array([[candidate.final_answer == answer for answer in answers] for candidate in group], dtype=float)
    right_C = np.array([candidate.is_correct for candidate in group], dtype=float)
    right_A = (right_C @ says_CA) / says_CA.sum(axis=0)
    there_SA = subset_SC @ says_CA > 0
    votes_WSA = np.einsum("sc,wc,ca->wsa", subset_SC, weight_WC, says_CA, optimize=True)
    # With a share of slack, so that sums of the same weights in another order tie, however small the weights are.
    wins_WSA = (votes_WSA >= votes_WSA.max(axis=2, keepdims=True) * (1 - 1e-12)) & there_SA
    right_WS = np.nan_to_num(ratio((wins_WSA * right_A).sum(axis=2), wins_WSA.sum(axis=2).astype(float)))
    return np.asarray(right_WS.mean(axis=1), dtype=np.float64)


def subsets_of(count: int, size: int, rng: np.random.Generator) -> FloatArray:
    """Membership [S, count] of all subsets of a size, or of `MOST_SUBSETS` drawn ones where there are more."""
    if math.comb(count, size) <= MOST_SUBSETS:
        picks = np.array(list(combinations(range(count), size)))
    else:
        picks = rng.random((MOST_SUBSETS, count)).argpartition(size - 1, axis=1)[:, :size]
    member = np.zeros((len(picks), count))
    np.put_along_axis(member, picks, 1.0, axis=1)
    return member


def _shares(
    group: Sequence[Candidate], size: int, ways: Sequence[str], weighed: Sequence[str], rng: np.random.Generator
) -> list[float]:
    """The figures of one problem, in the order of the names in `curves`."""
    right = [candidate.is_correct for candidate in group]
    weights = [[1.0] * len(group), *([_weight(candidate, way) for candidate in group] for way in weighed)]
    votes = vote_of_subsets(np.array(weights), group, subsets_of(len(group), size, rng)).tolist()
    return [
        sum(right) / len(group),
        votes[0],
        pass_at(sum(right), len(group), size),
        *(best_of_subsets([candidate.scores[way] for candidate in group], right, size) for way in ways),
        *votes[1:],
    ]


def _weight(candidate: Candidate, way: str) -> float:
    weight = candidate.scores[way]
    if weight is None or not weight >= 0:
        raise InputError(f"a vote cannot be weighed by {way!r} = {weight}: weights are numbers from 0 up")
    return weight


def _figure(share_P: FloatArray, bootstrap: Bootstrap) -> dict[str, Any]:
    """The mean over the problems that have a share."""
    there = np.isfinite(share_P)
    sums_PM = np.stack([np.nan_to_num(share_P), there.astype(float)], axis=1)
    replicates = bootstrap.of_sums(sums_PM, lambda sums: ratio(sums[:, 0], sums[:, 1]))
    point = float(share_P[there].mean()) if there.any() else None
    return bootstrap.measure(point, replicates, int(there.sum()))
