"""One line of metrics.jsonl about an update, and the rollouts of it that are kept to be read."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rl.batch import Batch
from rl.gathering import Earned, Gathered
from rl.hacking import instruments
from rl.objective import Update


def update_line(gathered: Gathered, batch: Batch, update: Update | None, n_pairs: int) -> dict[str, Any]:
    """What an update's rollouts look like before anything is learnt from them.

    Returns:
        reward, accuracy (of rollouts with a verdict), a mean of each reward part, no_signal (share of groups without
        any advantage, or without a pair's chance: equal rewards), entropy (nats per token, estimated from what was
        sampled), kl (to the reference policy per token, k1, where there is one), counts of what was sampled, left out
        and filtered, and `instruments`.
    """
    rows = gathered.trained
    judged = [row.correct for row in rows if row.correct is not None]
    line: dict[str, Any] = {
        "reward": fmean(row.reward for row in rows),
        "accuracy": fmean(judged) if judged else None,
    }
    for name in rows[0].parts:
        there = [value for row in rows if (value := row.parts[name]) is not None]
        line[name] = fmean(there) if there else None
    values = [value for row in rows for value in row.step_values if value is not None]
    if values and "process" not in line:
        line["process"] = (fmean(values) + 1) / 2
    line["no_signal"] = _without_signal(batch, update)
    trained_BT = batch.mask_BT & batch.trained_B[:, None]
    assert batch.old_BT is not None
    line["entropy"] = -float(batch.old_BT[trained_BT].mean())
    if batch.reference_BT is not None:
        line["kl"] = float((batch.old_BT - batch.reference_BT)[trained_BT].mean())
    if update is not None:
        line["advantage_size"] = float(update.advantage_BT[trained_BT].abs().mean())
        if bool(update.process_BT.any()):
            line["process_share"] = float(
                update.process_BT.abs().sum() / (update.process_BT.abs() + update.outcome_BT.abs()).sum()
            )
    if n_pairs:
        line["pairs"] = n_pairs
    solutions = [row.sampled.solution for row in rows]
    counts = {name.replace(" ", "_"): number for name, number in sorted(gathered.counts.items())}
    return line | counts | instruments(solutions, [len(row.sampled.rollout.ids) for row in rows])


def shown_rollouts(rows: Sequence[Earned], number: int) -> list[dict[str, Any]]:
    """The rollouts on which PRM and verifier disagree most, and with no PRM the first ones: to be read by people."""

    def disagreement(row: Earned) -> float:
        values = [value for value in row.step_values if value is not None]
        return abs((min(values) + 1) / 2 - row.correct) if values and row.correct is not None else -1.0

    picked = sorted(rows, key=disagreement, reverse=True)[:number]
    return [
        {
            "problem": row.sampled.problem.text,
            "completion": row.sampled.solution.completion,
            "correct": row.correct,
            "reward": row.reward,
            "parts": row.parts,
            "step_values": row.step_values,
            "finish": row.sampled.rollout.finish,
        }
        for row in picked
    ]


def _without_signal(batch: Batch, update: Update | None) -> float:
    """Share of groups in which no row has an advantage, or on the pair route no two rewards differ."""
    groups = set(batch.group_B.tolist())
    silent = 0
    for group in groups:
        rows_B = (batch.group_B == group) & batch.trained_B
        if update is None:
            silent += len(set(batch.reward_B[rows_B].tolist())) <= 1
        else:
            silent += int(not bool(update.advantage_BT[rows_B].any()))
    return silent / len(groups)
