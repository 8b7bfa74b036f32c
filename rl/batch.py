"""What the pure functions of this package read: the rollouts of one update as tensors.

Tensor names end in their dimensions: B sequences (one rollout each), T generated tokens (padded), S steps (padded),
G groups, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from prm_kit.errors import InputError, UsageError


@dataclass(frozen=True)
class Batch:
    """The rollouts of one update. Group-relative parts want whole groups: make it of the whole update, then cut it.

    Attributes:
        group_B: int64, the problem that a rollout answers; rows of a group need not be neighbours.
        mask_BT: bool, the tokens that the policy wrote. False inside a row is a hole (a tool's answer): it is
            skipped, it neither ends nor discounts anything.
        reward_B: float32, the composed reward of the whole completion; finite.
        max_tokens: The most tokens that a rollout of this run may have: a constant of the run, never the width T.
        correct_B: float32, 1 right, 0 wrong, NaN unknown: raw correctness, apart from the reward for ever.
        step_BT: int64, the 0-based step that a token belongs to; tokens after the last step belong to the last step.
            Read where mask_BT is True. Needed by step credits only.
        step_rewards_BS: float32, the PRM's value of each step, in [-1, 1] for a bounded PRM; NaN where there is no
            step, or where the scorer abstained.
        truncated_B: bool, the rollout ended at the limit of tokens.
        is_reference_B: bool, a rollout to compare with (the greedy one, a snapshot's), not one to train on.
        old_BT: float32 log-probabilities under the policy at the start of the update.
        reference_BT: float32 log-probabilities under the reference policy.
        rollout_BT: float32 log-probabilities that the engine sampled with.
        values_BT: float32, the critic's value of the state before each token; before the first one it is V(problem).
    """

    group_B: Tensor
    mask_BT: Tensor
    reward_B: Tensor
    max_tokens: int
    correct_B: Tensor | None = None
    step_BT: Tensor | None = None
    step_rewards_BS: Tensor | None = None
    truncated_B: Tensor | None = None
    is_reference_B: Tensor | None = None
    old_BT: Tensor | None = None
    reference_BT: Tensor | None = None
    rollout_BT: Tensor | None = None
    values_BT: Tensor | None = None

    def __post_init__(self) -> None:
        rows, width = self.mask_BT.shape
        for name, value in self._tensors().items():
            wanted = (rows, width) if name.endswith("_BT") else (rows,)
            if tuple(value.shape[: len(wanted)]) != wanted or value.dim() != (1 if name.endswith("_B") else 2):
                raise InputError(f"{name} has shape {tuple(value.shape)}; the batch has {rows} rows of {width} tokens")
        bad = torch.nonzero(~torch.isfinite(self.reward_B)).flatten()
        if bad.numel():
            raise InputError(
                f"row {int(bad[0])}: its reward is {float(self.reward_B[bad[0]])}; leave failed rewards out"
            )
        longest = int(self.mask_BT.sum(1).max()) if rows else 0
        if longest > self.max_tokens:
            raise InputError(f"a row has {longest} tokens, more than max_tokens, {self.max_tokens}")

    def _tensors(self) -> dict[str, Tensor]:
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}

    @property
    def lengths_B(self) -> Tensor:
        """int64, tokens that the policy wrote."""
        return self.mask_BT.sum(1)

    @property
    def trained_B(self) -> Tensor:
        """bool, False for the rollouts that are only compared with."""
        if self.is_reference_B is None:
            return torch.ones_like(self.group_B, dtype=torch.bool)
        return ~self.is_reference_B

    def need(self, name: str, who: str) -> Tensor:
        """The tensor `name`.

        Raises:
            UsageError: The batch has none; says which part asked for it.
        """
        value = getattr(self, name)
        if value is None:
            raise UsageError(f"{who} needs {name}, which this batch does not have")
        assert isinstance(value, Tensor)
        return value

    def select(self, rows: Tensor) -> Batch:
        """The batch of some rows, by bool mask or indices."""
        chosen: dict[str, Any] = {name: value[rows] for name, value in self._tensors().items()}
        return replace(self, **chosen)


def first_token_BT(mask_BT: Tensor) -> Tensor:
    """bool, the first generated token of each row."""
    return mask_BT & (mask_BT.cumsum(1) == 1)


def step_starts_BS(step_BT: Tensor, mask_BT: Tensor, steps: int) -> Tensor:
    """Where each step begins: int64, the first generated token of the step, or of the next one that owns a token.

    T, the width, where there is none up to the end.
    """
    width = step_BT.shape[1]
    position_BT = torch.arange(width, device=step_BT.device).expand_as(step_BT)
    start_BS = torch.full((len(step_BT), steps), width, device=step_BT.device)
    start_BS = start_BS.scatter_reduce(
        1, torch.where(mask_BT, step_BT, 0), torch.where(mask_BT, position_BT, width), "amin"
    )
    return start_BS.flip(1).cummin(1).values.flip(1)
