"""How far the policy that learns is from the one that the rollouts were sampled with, over the steps of an update.

B rollouts, T generated tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rl.parts import name_of, numbers_of
from rl.surrogates import Surrogate, log_ratio, sequence_log_ratio

_RANGE = 0.2
"""Clip range that is looked at where a surrogate has none of its own."""


@dataclass
class Drift:
    """Adds up over tokens; those of several processes can be added together.

    Attributes:
        tokens: Looked at in all optimiser steps.
        clipped: Of those, with an importance ratio outside of the surrogate's clip range.
        divergence: Sum of k3, the estimate of KL(old || new) of a token that is never negative: r - 1 - log r.
        first_tokens: Looked at before anything was learnt from these rollouts.
        mismatch: Sum over those of the absolute difference between the log-probability that was sampled with and the
            one that the trainer computes, which is rounding, or an engine that computes something else.
        most: The largest of these differences.
    """

    tokens: int = 0
    clipped: int = 0
    divergence: float = 0.0
    first_tokens: int = 0
    mismatch: float = 0.0
    most: float = 0.0

    @torch.no_grad()
    def add(
        self, surrogate: Surrogate | None, new_BT: Tensor, old_BT: Tensor, mask_BT: Tensor, sampled_BT: Tensor | None
    ) -> None:
        """Count some rows of an optimiser step.

        Args:
            surrogate: Whose clip range counts; None on the pair route.
            new_BT: Log-probabilities now.
            old_BT: At the start of the update.
            mask_BT: The tokens to look at.
            sampled_BT: Those that were sampled with, in the first step of an update; None later.
        """
        numbers = {} if surrogate is None else numbers_of(surrogate)
        log_BT = log_ratio(new_BT, old_BT, mask_BT)
        by_row = name_of(surrogate) == "gspo"
        ratio_BT = (sequence_log_ratio(new_BT, old_BT, mask_BT)[:, None] if by_row else log_BT).exp()
        outside_BT = (ratio_BT < 1 - numbers.get("low", _RANGE)) | (ratio_BT > 1 + numbers.get("high", _RANGE))
        self.tokens += int(mask_BT.sum())
        self.clipped += int((outside_BT & mask_BT).sum())
        self.divergence += float(torch.where(mask_BT, log_BT.expm1() - log_BT, 0.0).sum())
        if sampled_BT is not None and bool(mask_BT.any()):
            difference_BT = torch.where(mask_BT, (new_BT - sampled_BT).abs(), 0.0)
            self.first_tokens += int(mask_BT.sum())
            self.mismatch += float(difference_BT.sum())
            self.most = max(self.most, float(difference_BT.max()))

    @classmethod
    def joined(cls, parts: Sequence[Drift]) -> Drift:
        """What several processes counted, together."""
        return cls(
            sum(part.tokens for part in parts),
            sum(part.clipped for part in parts),
            sum(part.divergence for part in parts),
            sum(part.first_tokens for part in parts),
            sum(part.mismatch for part in parts),
            max(part.most for part in parts),
        )

    def figures(self) -> dict[str, float]:
        """clip_share, kl_update (nats per token), mismatch and mismatch_most (nats); none where no policy learnt."""
        found: dict[str, float] = {}
        if self.tokens:
            found |= {"clip_share": self.clipped / self.tokens, "kl_update": self.divergence / self.tokens}
        if self.first_tokens:
            found |= {"mismatch": self.mismatch / self.first_tokens, "mismatch_most": self.most}
        return found
