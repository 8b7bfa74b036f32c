"""Pairs of completions of one problem, the better first: who is compared with whom (their losses: `pair_losses`).

A pair is only ever made of rewards that differ by more than `eps`, so ties give none. Completions that ended at the
limit are left out where the candidates say which did. Everything here is deterministic given the seed.

"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from prm_kit.errors import UsageError


@dataclass(frozen=True)
class Candidates:
    """Completions to make pairs of; one entry each.

    Attributes:
        group: The problem that a completion answers.
        reward: Finite, higher is better.
        ids: Generated token ids, as sampled (never re-tokenised text).
        correct: 1 right, 0 wrong, None unknown.
        steps: Texts of the steps.
        truncated: Whether it ended at the limit of tokens.
        prefix: Tokens before `ids` that the whole group shares, because its completions are branches; 0 where not.
        step_of_token: The 0-based step that each of the ids belongs to.
        step_values: A PRM's value of each step, None where it abstained; empty without a PRM.
    """

    group: Sequence[int]
    reward: Sequence[float]
    ids: Sequence[Sequence[int]]
    correct: Sequence[bool | None] | None = None
    steps: Sequence[Sequence[str]] | None = None
    truncated: Sequence[bool] | None = None
    prefix: Sequence[int] | None = None
    step_of_token: Sequence[Sequence[int]] | None = None
    step_values: Sequence[Sequence[float | None]] | None = None

    def groups(self) -> Iterator[list[int]]:
        """Rows of each group that may stand in a pair, in the order of appearance."""
        rows = defaultdict(list)
        for row, group in enumerate(self.group):
            if self.truncated is None or not self.truncated[row]:
                rows[group].append(row)
        return iter(rows.values())

    def step_names(self, who: str) -> list[list[str]]:
        """Each completion's steps with whitespace and case levelled."""
        if self.steps is None:
            raise UsageError(f"{who} needs the steps of the completions")
        return [[" ".join(step.split()).casefold() for step in steps] for steps in self.steps]


@dataclass(frozen=True)
class Pair:
    """Two completions of one problem.

    Attributes:
        better: Row of the one with more reward.
        worse: Row of the other.
        gap: Difference of their rewards, above 0.
        fork: How many generated tokens they share before the first that differs.
        weight: 1 / (pairs of the problem x problems with pairs): the weights of an update add up to 1.
        wrong: Where the worse one went wrong: its generated tokens from the first number to before the second. None:
            nobody said, so it may be anywhere after the fork.
    """

    better: int
    worse: int
    gap: float
    fork: int
    weight: float
    wrong: tuple[int, int] | None = None


PairBuilder = Callable[[Candidates, int], list[Pair]]
"""(candidates, seed) -> pairs. The seed matters where a builder draws."""


def random_pairs(candidates: Candidates, seed: int, *, eps: float = 0.0, per_group: int = 4) -> list[Pair]:
    """`per_group` pairs drawn without replacement among those that differ: the baseline, not a recommendation."""
    source = random.Random(seed)  # noqa: S311
    chosen = []
    for rows in candidates.groups():
        every = list(_ordered(candidates, rows, eps))
        chosen += source.sample(every, min(per_group, len(every)))
    return _pairs(candidates, chosen)


def ranked(candidates: Candidates, seed: int, *, eps: float = 0.0) -> list[Pair]:
    """Every pair that differs: the ranking of the handbook's GFPO."""
    return _pairs(candidates, (pair for rows in candidates.groups() for pair in _ordered(candidates, rows, eps)))


def success_failure(candidates: Candidates, seed: int, *, eps: float = 0.0, per_completion: int = 4) -> list[Pair]:
    """Right against wrong, by correctness and not by reward: the handbook's SRPO.

    The right one must have `eps` more reward too, so that no pair says the opposite of the reward. No completion
    stands in more than `per_completion` pairs.
    """
    if candidates.correct is None:
        raise UsageError("success_failure needs to know which completions are right")
    right = candidates.correct
    source = random.Random(seed)  # noqa: S311
    used: Counter[int] = Counter()
    chosen = []
    for rows in candidates.groups():
        every = [(i, j) for i, j in _ordered(candidates, rows, eps) if right[i] is True and right[j] is False]
        source.shuffle(every)
        for i, j in every:
            if max(used[i], used[j]) < per_completion:
                used.update((i, j))
                chosen.append((i, j))
    return _pairs(candidates, chosen)


def variance_aware(candidates: Candidates, seed: int, *, eps: float = 0.0, least_variance: float = 0.0) -> list[Pair]:
    """Best against worst where the rewards vary by more than `least_variance`: the handbook's choice for DAPO, VAPO."""
    chosen = []
    for rows in candidates.groups():
        rewards = [candidates.reward[row] for row in rows]
        average = sum(rewards) / len(rewards)
        if sum((reward - average) ** 2 for reward in rewards) / len(rewards) > least_variance:
            best, worst = rows[rewards.index(max(rewards))], rows[rewards.index(min(rewards))]
            chosen += list(_ordered(candidates, [best, worst], eps))
    return _pairs(candidates, chosen)


def self_contrast(candidates: Candidates, seed: int, *, eps: float = 0.0) -> list[Pair]:
    """The best against the next best that is more than `eps` below it."""
    chosen = []
    for rows in candidates.groups():
        best = max(rows, key=lambda row: candidates.reward[row])
        below = [row for row in rows if candidates.reward[row] < candidates.reward[best] - eps]
        if below:
            chosen.append((best, max(below, key=lambda row: candidates.reward[row])))
    return _pairs(candidates, chosen)


def prefix_sharing(
    candidates: Candidates, seed: int, *, eps: float = 0.0, share: float = 0.5, least: int = 1, by_steps: bool = False
) -> list[Pair]:
    """Completions that begin alike: the handbook's GFPO.

    The sorted sequences are a trie laid flat: what two of them share is the least that neighbours between them share,
    so no two texts are ever compared with each other.

    Args:
        candidates: The completions.
        seed: Not used.
        eps: Least difference of rewards.
        share: Least common part, as a share of the shorter one. Branches of one prefix share it by construction: every
            two of them are a pair.
        least: Least common tokens (or steps), as for `share`.
        by_steps: Compare steps, whitespace and case levelled, instead of token ids.
    """
    names: Sequence[Sequence[int | str]] = (
        candidates.step_names("prefix_sharing by steps") if by_steps else candidates.ids
    )
    chosen = []
    for rows in candidates.groups():
        if candidates.prefix is not None and candidates.prefix[rows[0]] > 0:
            chosen += list(_ordered(candidates, rows, eps))
            continue
        order = sorted(rows, key=lambda row: list(names[row]))
        shared = [common_prefix(names[a], names[b]) for a, b in pairwise(order)]
        for first, row in enumerate(order):
            common = len(names[row])
            for other, step in zip(order[first + 1 :], shared[first:], strict=True):
                common = min(common, step)
                if common < max(least, 1):
                    break
                if common >= share * min(len(names[row]), len(names[other])):
                    chosen += list(_ordered(candidates, [row, other], eps))
    return _pairs(candidates, chosen)


def near_miss(candidates: Candidates, seed: int, *, eps: float = 0.0, edits: int = 2) -> list[Pair]:
    """Completions that differ in 1 to `edits` steps (put in, left out or changed) and have a step in common."""
    names = candidates.step_names("near_miss")
    chosen = []
    for rows in candidates.groups():
        for i, j in _ordered(candidates, rows, eps):
            if 0 < edit_distance(names[i], names[j], edits) <= min(edits, max(len(names[i]), len(names[j])) - 1):
                chosen.append((i, j))
    return _pairs(candidates, chosen)


def first_wrong_step(candidates: Candidates, seed: int, *, eps: float = 0.0, threshold: float = 0.0) -> list[Pair]:
    """Right against wrong where a PRM agrees with both verdicts, and says at which step the wrong one went wrong.

    The better one has the right answer and no step valued at `threshold` or below: right by luck is no example. The
    worse one has a wrong answer, and its first step valued so is `Pair.wrong`; where the PRM sees none there is no
    pair. So neither a PRM that is fooled nor a lucky answer makes a pair alone.

    Args:
        candidates: The completions.
        seed: Not used.
        eps: Least difference of rewards.
        threshold: A step is right above this value; steps that the PRM abstained from are passed over.

    Raises:
        UsageError: It is not known which completions are right, or no PRM valued their steps.
    """
    if candidates.correct is None or candidates.step_of_token is None or not any(candidates.step_values or ()):
        raise UsageError("first_wrong_step needs verdicts on the answers and a PRM that values the steps")
    values = candidates.step_values or ()
    wrong_of: dict[int, tuple[int, int]] = {}
    chosen = []
    for rows in candidates.groups():
        first_bad = {
            row: next((step for step, x in enumerate(values[row]) if x is not None and x <= threshold), None)
            for row in rows
            if any(x is not None for x in values[row])
        }
        for i, j in _ordered(candidates, rows, eps):
            bad = first_bad.get(j)
            if candidates.correct[i] is not True or first_bad.get(i, -1) is not None:
                continue
            if candidates.correct[j] is False and bad is not None and bad in candidates.step_of_token[j]:
                tokens = [token for token, step in enumerate(candidates.step_of_token[j]) if step == bad]
                wrong_of[j] = (tokens[0], tokens[-1] + 1)
                chosen.append((i, j))
    return [replace(pair, wrong=wrong_of[pair.worse]) for pair in _pairs(candidates, chosen)]


def common_prefix(a: Sequence[int | str], b: Sequence[int | str]) -> int:
    """How many items two sequences share from the start."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def edit_distance(a: Sequence[str], b: Sequence[str], limit: int) -> int:
    """Levenshtein distance, or `limit + 1` where it is more than `limit`; only a band of 2 limit + 1 is looked at."""
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    row = {j: j for j in range(min(limit, len(b)) + 1)}
    for i, item in enumerate(a, start=1):
        previous, row = row, {}
        for j in range(max(0, i - limit), min(len(b), i + limit) + 1):
            ways = [limit + 1, previous.get(j, limit) + 1, row.get(j - 1, limit) + 1]
            if j > 0:
                ways.append(previous.get(j - 1, limit + 1) + (item != b[j - 1]))
            row[j] = min(ways)
    return row[len(b)]


def _ordered(candidates: Candidates, rows: Sequence[int], eps: float) -> Iterator[tuple[int, int]]:
    """Every two of the rows whose rewards differ by more than eps, the better first."""
    for number, i in enumerate(rows):
        for j in rows[number + 1 :]:
            gap = candidates.reward[i] - candidates.reward[j]
            if abs(gap) > eps:
                yield (i, j) if gap > 0 else (j, i)


def _pairs(candidates: Candidates, chosen: Iterable[tuple[int, int]]) -> list[Pair]:
    chosen = list(chosen)
    count = Counter(candidates.group[i] for i, _ in chosen)
    return [
        Pair(
            i,
            j,
            candidates.reward[i] - candidates.reward[j],
            common_prefix(candidates.ids[i], candidates.ids[j]),
            1 / (count[candidates.group[i]] * len(count)),
        )
        for i, j in chosen
    ]


PAIR_BUILDERS: dict[str, PairBuilder] = {
    "random_pairs": random_pairs,
    "ranked": ranked,
    "success_failure": success_failure,
    "variance_aware": variance_aware,
    "self_contrast": self_contrast,
    "prefix_sharing": prefix_sharing,
    "near_miss": near_miss,
    "first_wrong_step": first_wrong_step,
}
