"""One line of metrics.jsonl about an update, and the rollouts of it that are kept to be read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from statistics import fmean, stdev
from typing import Any

import torch

from rl.batch import Batch
from rl.gathering import Earned, Gathered
from rl.hacking import instruments
from rl.objective import Update
from rl.rewards import process_reward


def update_line(gathered: Gathered, batch: Batch, update: Update | None, n_pairs: int) -> dict[str, Any]:
    """What an update's rollouts look like before anything is learnt from them.

    Returns:
        `figures` of all rollouts that train, branches left out; errors (by name the standard error of each figure over
        groups, where there are two groups or more), no_signal (share of groups without any advantage, or without a
        pair's chance: equal rewards), advantage_size, process_share, pairs, and counts of what was sampled, left out
        and filtered.
    """
    described = gathered.roots or gathered.trained  # branches of one rollout are no independent samples of the policy
    of_row = {id(row): sums for row, sums in zip(gathered.rows, _of_tokens(batch), strict=True)}
    tokens = [of_row[id(row)] for row in described]
    line = figures(described, tokens)
    line["errors"] = _errors(described, tokens)
    line["no_signal"] = _without_signal(batch, update)
    if update is not None:
        trained_BT = batch.mask_BT & batch.trained_B[:, None]
        line["advantage_size"] = float(update.advantage_BT[trained_BT].abs().mean())
        if bool(update.process_BT.any()):
            line["process_share"] = float(
                update.process_BT.abs().sum() / (update.process_BT.abs() + update.outcome_BT.abs()).sum()
            )
    if n_pairs:
        line["pairs"] = n_pairs
    return line | {name.replace(" ", "_"): number for name, number in sorted(gathered.counts.items())}


def figures(rows: Sequence[Earned], tokens: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What some rollouts look like.

    Args:
        rows: Rollouts that train; at least one.
        tokens: Of each "tokens" and, summed over them, "entropy" and, with a reference policy, "kl".

    Returns:
        reward, accuracy (of rollouts with a verdict; None without any), a mean of each reward part, process (also where
        steps are credited: the mean over its steps), process_gap (how much more the PRM likes than is right), entropy
        (nats per token, estimated from what was sampled), kl (to the reference policy per token, k1) and `instruments`.
    """
    judged = [row.correct for row in rows if row.correct is not None]
    found: dict[str, Any] = {
        "reward": fmean(row.reward for row in rows),
        "accuracy": fmean(judged) if judged else None,
    }
    for name in rows[0].parts:
        there = [value for row in rows if (value := row.parts[name]) is not None]
        found[name] = fmean(there) if there else None
    if "process" not in found and any(row.step_values for row in rows):
        liked = [reward for row in rows if (reward := process_reward(row.step_values)) is not None]
        found["process"] = fmean(liked) if liked else None
    if found["accuracy"] is not None and found.get("process") is not None:
        found["process_gap"] = found["process"] - found["accuracy"]
    for name in ("entropy", "kl"):
        if name in tokens[0]:
            found[name] = sum(one[name] for one in tokens) / max(1.0, sum(one["tokens"] for one in tokens))
    return found | instruments([row.sampled.solution for row in rows], [row.sampled.length for row in rows])


def _of_tokens(batch: Batch) -> list[dict[str, float]]:
    """For each row what `figures` asks of its tokens."""
    assert batch.old_BT is not None
    sums = {"tokens": batch.mask_BT.float(), "entropy": -batch.old_BT}
    if batch.reference_BT is not None:
        sums["kl"] = batch.old_BT - batch.reference_BT
    columns = {name: torch.where(batch.mask_BT, value_BT, 0.0).sum(1).tolist() for name, value_BT in sums.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _errors(rows: Sequence[Earned], tokens: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Standard errors over groups, each group's figures counting alike; none of a figure that is not finite."""
    groups: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.sampled.group, []).append(place)
    said = [figures([rows[i] for i in places], [tokens[i] for i in places]) for places in groups.values()]
    names = dict.fromkeys(name for one in said for name in one)  # a group that nobody judged has fewer
    by_name = {name: [one[name] for one in said if one.get(name) is not None] for name in names}
    known = {name: values for name, values in by_name.items() if len(values) > 1 and all(map(math.isfinite, values))}
    return {name: stdev(values) / len(values) ** 0.5 for name, values in known.items()}


def shown_rollouts(rows: Sequence[Earned], number: int) -> list[dict[str, Any]]:
    """Rollouts to be read by people: wrong ones that the PRM likes and right ones that it dislikes, in turn.

    A rollout is liked as much as its worst step. With no PRM, or no verdict, they come in the order sampled.
    """

    def worst(row: Earned) -> float:
        return min((value for value in row.step_values if value is not None), default=0.0)

    wrong = sorted((row for row in rows if not row.correct), key=worst, reverse=True)
    right = sorted((row for row in rows if row.correct), key=worst)
    picked = [row for pair in zip_longest(wrong, right) for row in pair if row is not None][:number]
    return [
        {
            "problem": row.sampled.problem.text,
            "completion": row.sampled.solution.completion,
            "correct": row.correct,
            "reward": row.reward,
            "parts": row.parts,
            "step_values": row.step_values,
            "finish": row.sampled.rollout.finish,
            "prefix": row.sampled.prefix,
        }
        for row in picked
    ]


def _without_signal(batch: Batch, update: Update | None) -> float:
    """Share of groups in which no row has an advantage, or on the pair route no two rewards differ."""
    groups = set(batch.group_B.tolist())
    silent = 0
    for group in groups:
        rows_B = (batch.group_B == group) & (batch.trained_B | (update is None))
        if update is None:
            silent += len(set(batch.reward_B[rows_B].tolist())) <= 1
        else:
            silent += int(not bool(update.advantage_BT[rows_B].any()))
    return silent / len(groups)
