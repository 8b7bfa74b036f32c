"""The rollouts of one update with what they earned, gathered group by group, and as the batch that algorithms read.

B rollouts, T generated tokens, S steps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rl.batch import Batch
from rl.idle_steps import idle_steps
from rl.rewarding import Rewarded
from rl.rollouts import Sampled


@dataclass(frozen=True)
class Earned:
    """One rollout and what it earned.

    Attributes:
        sampled: The rollout.
        reward: The composed reward.
        parts: Its parts, unweighted; None where a part that weighs nothing failed.
        correct: Whether the answer is right; None: no verdict.
        step_values: Per step in [-1, 1], None where the scorer abstained; empty without a scorer.
        is_reference: Only to compare with, not to train on.
        in_pairs: Whether pairs may be made of it.
    """

    sampled: Sampled
    reward: float
    parts: dict[str, float | None]
    correct: bool | None
    step_values: tuple[float | None, ...]
    is_reference: bool = False
    in_pairs: bool = True


@dataclass
class Gathered:
    """What an update has to learn from.

    Attributes:
        rows: Rollouts, groups one after another.
        problem_of_group: Number of the problem that each group answers.
        draw_of_group: Which of the problems drawn so far that was: branches have the number of their roots.
        counts: sampled, sampled tokens, failed (rollouts without a reward: left out), filtered (groups), and per part
            of the reward "failed NAME".
    """

    rows: list[Earned] = field(default_factory=list)
    problem_of_group: list[int] = field(default_factory=list)
    draw_of_group: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(
        self,
        problems: Sequence[int],
        groups: Sequence[Sequence[Sampled]],
        rewarded: Rewarded,
        *,
        tails: bool = False,
    ) -> None:
        """Add whole groups; rollouts without a reward are counted and left out.

        Args:
            problems: Number of the problem of each group.
            groups: Rollouts of a problem; right after them come the branches of each of them, if it has some.
            rewarded: What they earned, one after another.
            tails: Give branches their root's own continuation as a sibling to make pairs with.
        """
        place = 0
        roots: list[tuple[Sampled, int]] = []
        for problem, group in zip(problems, groups, strict=True):
            number = len(self.problem_of_group)
            self.problem_of_group.append(problem)
            start = group[0].prefix
            self.draw_of_group.append(max(self.draw_of_group, default=-1) + (start is None))
            if tails and start is not None:
                root, earned = roots.pop(0)
                tail = replace(root.tail(start), group=number)
                self._add(tail, rewarded, earned, is_reference=True, in_pairs=True)
            elif start is None:
                roots = [(one, place + i) for i, one in enumerate(group)]
            for one in group:
                self._add(replace(one, group=number), rewarded, place)
                place += 1
        tokens = sum(len(one.rollout.ids) for group in groups for one in group)
        failed = {f"failed {name}": n for name, n in rewarded.composed.failed.items() if n}
        self.counts.update(sampled=place, **{"sampled tokens": tokens}, **failed)

    def add_references(self, rollouts: Sequence[Sampled], groups: Sequence[int], rewarded: Rewarded) -> None:
        """Add one rollout to compare with for each of the groups; a group whose one has no reward is dropped."""
        for place, (one, group) in enumerate(zip(rollouts, groups, strict=True)):
            self._add(replace(one, group=group), rewarded, place, is_reference=True, in_pairs=False)
        compared = {row.sampled.group for row in self.rows if row.is_reference}
        lost = {row.sampled.group for row in self.rows} - compared
        tokens = sum(len(one.rollout.ids) for one in rollouts)
        self.counts.update(sampled=len(rollouts), filtered=len(lost), **{"sampled tokens": tokens})
        self.rows = [row for row in self.rows if row.sampled.group in compared]

    def keep(self, keep_B: Tensor) -> None:
        """Drop the groups whose rows are False."""
        kept = [row for row, keep in zip(self.rows, keep_B.tolist(), strict=True) if keep]
        self.counts.update(filtered=len(self.groups) - len({row.sampled.group for row in kept}))
        self.rows = kept

    @property
    def groups(self) -> list[int]:
        """Numbers of the groups that still have rows."""
        return list(dict.fromkeys(row.sampled.group for row in self.rows))

    @property
    def trained(self) -> list[Earned]:
        """Rows without those that are only compared with."""
        return [row for row in self.rows if not row.is_reference]

    @property
    def roots(self) -> list[Earned]:
        """Trained rows that answer a problem from its start: the ones that say what the policy is like."""
        return [row for row in self.trained if row.sampled.prefix is None]

    @property
    def n_draws(self) -> int:
        """Drawn problems that still have rows, their own or branches'."""
        return len({self.draw_of_group[group] for group in self.groups})

    def _add(
        self, one: Sampled, rewarded: Rewarded, place: int, *, is_reference: bool = False, in_pairs: bool = True
    ) -> None:
        total = rewarded.composed.totals[place]
        if total is None:
            self.counts["failed"] += not (is_reference and in_pairs)  # a tail has failed as a whole already
            return
        parts = {name: values[place] for name, values in rewarded.composed.parts.items()}
        values = rewarded.step_values[place]
        self.rows.append(Earned(one, total, parts, rewarded.correct[place], values, is_reference, in_pairs))


def batch_of(rows: Sequence[Earned], max_tokens: int, device: torch.device, *, scored: bool) -> Batch:
    """The rows as tensors, with the log-probabilities that they were sampled with as the rollout's and the old ones.

    A branch begins where its prefix ends, with the step that it goes on with as its step 0.

    Args:
        rows: At least one.
        max_tokens: Most tokens of a rollout in this run.
        device: Where the tensors go.
        scored: Whether a scorer judged the steps.
    """
    width = max(len(row.sampled.rollout.ids) for row in rows)
    first = [0 if row.sampled.prefix is None else row.sampled.step_of_token[0] for row in rows]
    n_steps = max(1, *(len(row.sampled.solution.spans) for row in rows))

    def padded(lists: Sequence[Sequence[float | int]], fill: float, columns: int, dtype: torch.dtype) -> Tensor:
        filled = [[*values, *[fill] * (columns - len(values))] for values in lists]
        return torch.tensor(filled, dtype=dtype, device=device)

    def column(values: Sequence[float | int | bool], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    own_values = [_own_values(row, start) for row, start in zip(rows, first, strict=True)]
    values = [[math.nan if value is None else value for value in row] for row in own_values]
    steps = [[step - start for step in row.sampled.step_of_token] for row, start in zip(rows, first, strict=True)]
    rollout_BT = padded([row.sampled.rollout.log_probabilities for row in rows], 0.0, width, torch.float32)
    return Batch(
        group_B=column([row.sampled.group for row in rows], torch.int64),
        mask_BT=padded([[1] * len(row.sampled.rollout.ids) for row in rows], 0, width, torch.bool),
        reward_B=column([row.reward for row in rows], torch.float32),
        max_tokens=max_tokens,
        correct_B=column([math.nan if row.correct is None else float(row.correct) for row in rows], torch.float32),
        step_BT=padded(steps, 0, width, torch.int64),
        step_rewards_BS=padded(values, math.nan, n_steps, torch.float32) if scored else None,
        truncated_B=column([row.sampled.rollout.finish == "length" for row in rows], torch.bool),
        is_reference_B=column([row.is_reference for row in rows], torch.bool),
        old_BT=rollout_BT,
        rollout_BT=rollout_BT,
    )


def _own_values(row: Earned, start: int) -> tuple[float | None, ...]:
    """Values of the steps from `start` on; as of a whole completion, -1 where none of them says anything."""
    own = row.step_values[start:]
    if start > 0 and own and all(idle_steps(row.sampled.solution)[start:]):
        return (-1.0, *own[1:])
    return own
