"""Which examples make an update and which of them go through the model together. No torch, no state.

The order is a function of (lengths, tokens per update, seed, epoch): nothing needs saving to resume in the middle of
an epoch, and the memory that a micro-batch may take does not change what an update is made of.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate


def updates_per_epoch(lengths: Sequence[int], batch_tokens: int) -> int:
    """Number of updates in an epoch: the total over `batch_tokens`, rounded, at least 1.

    Args:
        lengths: Tokens of every example.
        batch_tokens: Tokens wanted per update.
    """
    return min(len(lengths), max(1, round(sum(lengths) / batch_tokens)))


def epoch_updates(
    lengths: Sequence[int], batch_tokens: int, bucket_updates: int, seed: int, epoch: int
) -> list[list[int]]:
    """Deal all examples into the updates of one epoch.

    Examples are shuffled and cut into pools of `bucket_updates` updates; each pool is sorted by length, cut into
    updates of about equal tokens, and the updates are shuffled. So an update holds examples of like length, drawn
    from all over the data.

    Args:
        lengths: Tokens of every example.
        batch_tokens: Tokens wanted per update.
        bucket_updates: Updates per pool; 1 leaves the shuffled order.
        seed: Of the run.
        epoch: 0-based.

    Returns:
        `updates_per_epoch` lists of indices; every index stands in exactly one.
    """
    number = updates_per_epoch(lengths, batch_tokens)
    source = random.Random(f"{seed}/{epoch}")  # noqa: S311
    order = list(range(len(lengths)))
    source.shuffle(order)
    pools = -(-number // bucket_updates)
    shares = [number // pools + (pool < number % pools) for pool in range(pools)]
    updates: list[list[int]] = []
    for share, pool in zip(shares, cut_evenly(order, lengths, shares), strict=True):
        if bucket_updates > 1:
            pool.sort(key=lambda index: lengths[index])
        updates += cut_evenly(pool, lengths, [1] * share)
    source.shuffle(updates)
    return updates


def cut_evenly(order: Sequence[int], lengths: Sequence[int], shares: Sequence[int]) -> list[list[int]]:
    """Cut `order` into one run per share, with tokens in proportion to the shares.

    Every run has at least as many examples as its share, so that it can be cut on.

    Args:
        order: Indices into `lengths`.
        lengths: Tokens of every example.
        shares: Positive; their sum is at most the number of examples.
    """
    total = sum(lengths[index] for index in order)
    ends = list(accumulate(lengths[index] for index in order))
    runs, start = [], 0
    for number, done in enumerate(accumulate(shares)):
        wanted = total * done / sum(shares)
        stop = start + shares[number]
        last = len(order) - sum(shares[number + 1 :])
        while stop < last and ends[stop] <= wanted:
            stop += 1
        stop = last if number == len(shares) - 1 else stop
        runs.append(list(order[start:stop]))
        start = stop
    return runs


def micro_batches(indices: Sequence[int], lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Cut examples into batches whose rows x longest row stays within the budget, longest first.

    Args:
        indices: The examples of an update.
        lengths: Tokens of every example.
        token_budget: Padded tokens per batch; an example longer than that goes alone.
    """
    batches: list[list[int]] = []
    for index in sorted(indices, key=lambda index: -lengths[index]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= token_budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
