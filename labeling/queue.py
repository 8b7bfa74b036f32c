"""In which order people label: where a label teaches most, a random share for unbiased evaluation, gold in between.

The random share is drawn over all solutions, labelled ones included, by a hash of the solution's id: the unbiased
sample is every solution with `draw(id, seed)` up to the cutoff, and it only grows from one round to the next. Nothing
in a queue file says what a gold label is.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from labeling.label_table import LabelTable
from prm_kit.errors import InputError, UsageError, unknown_name
from prm_kit.files import whole_file
from prm_kit.score import Probabilities

Reason = Literal["uncertain", "convincing", "disagreement", "random", "gold"]

WRONG = 0.5
"""A step is predicted wrong where p(-1) is above this."""


class Queued(NamedTuple):
    """One line of a queue: a solution, why it is there, and its score (higher first; its draw for the random share)."""

    solution_id: str
    reason: str
    score: float


class Candidate(NamedTuple):
    """A solution that may be queued.

    Attributes:
        id: Of the solution.
        labelled: Whether a person has labelled it; it is then not queued again.
        is_correct: Whether its final answer is right; None unknown.
        members: Class probabilities per step (None: abstained) of every PRM that has scored it.
        disagreement: How far its raters disagree, in [0, 1], see `disagreements`; None where fewer than two judged a
            step.
    """

    id: str
    labelled: bool = False
    is_correct: bool | None = None
    members: Sequence[Sequence[Probabilities | None]] = ()
    disagreement: float | None = None


def uncertainty(candidate: Candidate) -> float | None:
    """Mean entropy, in [0, 1], of the steps up to the first one predicted wrong, of the mean over the ensemble.

    What comes after the first error teaches little and is often not labelled at all. Source of the rule: ActPRM (arXiv
    2504.10559). One PRM is an ensemble of one.
    """
    entropies = []
    for step in _mean_of_members(candidate.members):
        if step is None:
            continue
        entropies.append(-sum(p * math.log(p) for p in step if p > 0) / math.log(len(step)))
        if step[0] > WRONG:
            break
    return sum(entropies) / len(entropies) if entropies else None


def convincing_wrong(candidate: Candidate) -> float | None:
    """How right a solution with a wrong final answer looks: the lowest 1 - p(-1) of its steps; None for the others."""
    if candidate.is_correct is not False:
        return None
    return min((1.0 - step[0] for step in _mean_of_members(candidate.members) if step is not None), default=None)


def disagreement(candidate: Candidate) -> float | None:
    """How far the raters disagree; None where they agree or are fewer than two."""
    return candidate.disagreement or None


def disagreements(table: LabelTable) -> dict[str, float]:
    """By solution id, over its steps with two labels or more, the mean distance of two labels, in [0, 1].

    The distance of -1 and +1 is 1, that of neighbours 1/2, of equals 0.
    """
    counts = [(pl.col("value") == value).sum().cast(pl.Float64).alias(str(value)) for value in (-1, 0, 1)]
    wrong, neutral, right = (pl.col(name) for name in ("-1", "0", "1"))
    m = wrong + neutral + right
    apart = wrong * right + 0.5 * neutral * (wrong + right)
    found = (
        table.labels.group_by("solution", "step")
        .agg(counts)
        .filter(m >= 2)
        .with_columns(apart=apart / (m * (m - 1) / 2))
        .group_by("solution")
        .agg(pl.col("apart").mean())
        .join(table.solutions.select("solution", "id"), on="solution")
    )
    return dict(found.select("id", "apart").iter_rows())


def draw(solution_id: str, seed: int) -> float:
    """A number in [0, 1) that depends on the solution and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{solution_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


class Plan(NamedTuple):
    """A queue and the account of it.

    Attributes:
        queue: In order.
        cutoff: The random sample is every candidate whose draw is at most this, labelled before or not; None: none.
        sampled_before: How many of that sample were labelled before.
    """

    queue: list[Queued]
    cutoff: float | None
    sampled_before: int


def plan_queue(
    candidates: Iterable[Candidate],
    orders: Sequence[str],
    limit: int,
    random_share: float = 0.1,
    gold: Sequence[str] = (),
    gold_rate: float = 0.05,
    seed: int = 0,
) -> Plan:
    """Order solutions for people.

    Args:
        candidates: All solutions, labelled ones too.
        orders: Names in `ORDERS`; several take turns, each with the best it has left.
        limit: How many lines there are at most, gold questions included.
        random_share: Share of the lines that are not gold that is drawn at random.
        gold: Ids of solutions with gold labels, the first to be asked first; they are queued as gold questions and as
            nothing else.
        gold_rate: Share of the lines that are gold questions. Each is asked once.
        seed: Another seed, another random share.

    Raises:
        UsageError: Shares out of range, or an unknown order.
    """
    _check(orders, limit, random_share, gold_rate)
    golden = set(gold)
    every = [candidate for candidate in candidates if candidate.id not in golden]
    n_lines = min(limit - min(round(limit * gold_rate), len(golden)), sum(not c.labelled for c in every))
    sample, cutoff, before = _random_sample(every, round(n_lines * random_share), seed)
    taken = {row.solution_id for row in sample}
    left = [candidate for candidate in every if not candidate.labelled and candidate.id not in taken]
    active = _taking_turns([_ranked(order, left) for order in orders], n_lines - len(sample))
    others = len(active) + len(sample)
    n_gold = min(round(others * gold_rate / (1 - gold_rate)), len(golden), limit - others)
    questions = [Queued(id_, "gold", 0.0) for id_ in list(dict.fromkeys(gold))[:n_gold]]
    return Plan(_interleaved([active, sample, questions], seed), cutoff, before)


def write_queue(path: Path, queue: Iterable[Queued]) -> int:
    """Write a queue as JSON lines (solution_id, rank from 0, reason, score); return how many."""
    n = 0
    with whole_file(path) as file:
        for rank, row in enumerate(queue):
            line = {"solution_id": row.solution_id, "rank": rank, "reason": row.reason, "score": row.score}
            file.write(json.dumps(line, allow_nan=False) + "\n")
            n += 1
    return n


def read_scores(path: Path) -> dict[str, tuple[Probabilities | None, ...]]:
    """Class probabilities by solution id from the file that `prm-kit score` writes.

    Raises:
        InputError: A line that is no such score.
    """
    found = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                found[str(row["solution_id"])] = tuple(
                    None if p is None else _probabilities(p) for p in row["probabilities"]
                )
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}:{number}: not a score of `prm-kit score`: {error!r}") from None
    return found


def scores_of_raters(table: LabelTable) -> list[dict[str, tuple[Probabilities | None, ...]]]:
    """Per rater with shares, those shares by solution id: labels of PRMs and judges, read as scores."""
    steps = dict(table.solutions.select("solution", "steps").iter_rows())
    ids = dict(table.solutions.select("solution", "id").iter_rows())
    members: dict[int, dict[int, list[Probabilities | None]]] = {}
    for solution, rater, step, *p in table.shares.select(
        "solution", "rater", "step", "wrong", "neutral", "right"
    ).iter_rows():
        rows = members.setdefault(rater, {}).setdefault(solution, [None] * steps[solution])
        rows[step] = (p[0], p[1], p[2])
    return [
        {ids[solution]: tuple(rows) for solution, rows in by_solution.items()}
        for _, by_solution in sorted(members.items())
    ]


def _probabilities(row: Sequence[float]) -> Probabilities:
    wrong, neutral, right = (float(p) for p in row)
    if not all(0.0 <= p <= 1.0 + 1e-6 for p in (wrong, neutral, right)) or abs(wrong + neutral + right - 1) > 1e-3:
        raise ValueError(f"{row} is not a probability distribution")
    return wrong, neutral, right


def _mean_of_members(members: Sequence[Sequence[Probabilities | None]]) -> list[Probabilities | None]:
    """Per step the mean over the members that scored it."""
    found: list[Probabilities | None] = []
    for said in zip_longest(*members):
        rows = [p for p in said if p is not None]
        if not rows:
            found.append(None)
            continue
        wrong, neutral, right = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        found.append((wrong, neutral, right))
    return found


def _check(orders: Sequence[str], limit: int, random_share: float, gold_rate: float) -> None:
    for order in orders:
        if order not in ORDERS:
            raise unknown_name("order", order, ORDERS)
    if limit < 1 or not 0 <= random_share <= 1 or not 0 <= gold_rate < 1:
        raise UsageError(
            f"a queue needs a limit of 1 or more, a random share in [0, 1] and a gold rate in [0, 1), not {limit}, "
            f"{random_share} and {gold_rate}"
        )
    if not orders and random_share < 1:
        raise UsageError(f"name at least one order ({', '.join(ORDERS)}), or ask for a random share of 1")


def _random_sample(every: Sequence[Candidate], n: int, seed: int) -> tuple[list[Queued], float | None, int]:
    """The first n unlabelled solutions in the order of their draws, the last draw, and how many labelled lie before."""
    sample: list[Queued] = []
    before = 0
    for number, id_, labelled in sorted((draw(c.id, seed), c.id, c.labelled) for c in every):
        if len(sample) == n:
            break
        if labelled:
            before += 1
        else:
            sample.append(Queued(id_, "random", number))
    return sample, (sample[-1].score if sample else None), before if sample else 0


def _ranked(order: str, candidates: Sequence[Candidate]) -> list[Queued]:
    """The best by one order; equal scores by id."""
    reason, score_of = ORDERS[order]
    scored = [(score, candidate.id) for candidate in candidates if (score := score_of(candidate)) is not None]
    scored.sort(key=lambda row: (-row[0], row[1]))
    return [Queued(id_, reason, score) for score, id_ in scored]


def _taking_turns(ranked: Sequence[Sequence[Queued]], n: int) -> list[Queued]:
    chosen: dict[str, Queued] = {}
    for turn in zip_longest(*ranked):
        for row in turn:
            if row is not None and len(chosen) < n:
                chosen.setdefault(row.solution_id, row)
    return list(chosen.values())


def _interleaved(streams: Sequence[Sequence[Queued]], seed: int) -> list[Queued]:
    """Streams spread evenly over one queue, each in its order: whoever stops half way has had half of each."""
    rng = np.random.default_rng(seed)
    placed = [
        ((i + rng.random()) / len(stream), s, i, row)
        for s, stream in enumerate(streams)
        for i, row in enumerate(stream)
    ]
    return [row for *_, row in sorted(placed, key=lambda place: place[:3])]


ORDERS: Mapping[str, tuple[Reason, Callable[[Candidate], float | None]]] = {
    "uncertainty": ("uncertain", uncertainty),
    "convincing": ("convincing", convincing_wrong),
    "disagreement": ("disagreement", disagreement),
}
