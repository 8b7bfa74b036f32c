"""Rollouts that share prompts, forwarded with every distinct prefix once.

Rollouts are sorted, and of each only what it does not share with the one before it goes into one row of tokens: the
eight rollouts of a problem bring its prompt once, branches their common steps once. All layers but attention see that
row. Attention unfolds it: each rollout's queries, keys and values are put together again, attend as plain causal
attention does, and what comes out is folded back. So attention costs what it costs without sharing, in as few calls,
and all the rest is computed once.

B rollouts, L tokens of the longest with its prompt, T distinct tokens, H heads, D hidden per head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from prm_kit.errors import UsageError
from prm_kit.pack import FAMILIES, prefix_groups, prefix_tree

ATTENTION = "prm_kit_shared_prompts"
"""Name under which the attention is known to transformers."""

WORTH_SHARING = 0.85
"""Share of distinct tokens below which rollouts are folded."""


@dataclass(frozen=True)
class Folded:
    """Rollouts as one row of distinct tokens.

    Attributes:
        ids_T: int64, the tokens.
        position_T: int64, the place of each in its rollouts.
        column_BL: int64, where each rollout's tokens are in the row; its last one again where it is padded.
        source_T: int64, one place in [B, L], flattened, of each token of the row.
    """

    ids_T: Tensor
    position_T: Tensor
    column_BL: Tensor
    source_T: Tensor

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], device: torch.device) -> Folded:
        """Fold sequences; the rows of `column_BL` are in their order."""
        order = next(prefix_groups(sequences, sum(map(len, sequences))))
        tree = prefix_tree([sequences[index] for index in order], device)
        longest = max(map(len, sequences))
        column_BL = np.empty((len(sequences), longest), dtype=np.int64)
        source_T = np.empty(len(tree.ids), dtype=np.int64)
        for index, columns in zip(order, tree.columns, strict=True):
            column_BL[index] = np.pad(columns, (0, longest - len(columns)), mode="edge")
            source_T[columns] = index * longest + np.arange(len(columns))
        return cls(
            tree.ids, tree.position_ids, torch.from_numpy(column_BL).to(device), torch.from_numpy(source_T).to(device)
        )

    def unfolded(self, one_1HTD: Tensor) -> Tensor:
        """[1, H, T, D] to [B, H, L, D]."""
        return one_1HTD[0].transpose(0, 1)[self.column_BL].transpose(1, 2)

    def folded(self, one_BHLD: Tensor) -> Tensor:
        """[B, H, L, D] to [1, T, H, D]."""
        return one_BHLD.transpose(1, 2).flatten(0, 1)[self.source_T][None]


def shares_prompts(asked: bool | None, policy: Any, device: torch.device) -> bool:
    """Whether prompts are shared in the passes of training.

    Args:
        asked: The setting. None: on the CPU, where the model's family allows it.
        policy: A causal language model.
        device: Where it is.

    Raises:
        UsageError: It is asked for and the family's attention is not known.
    """
    family = policy.config.model_type
    if asked and family not in FAMILIES:
        raise UsageError(f"share_prompts: not known for {family} models, only {', '.join(sorted(FAMILIES))}")
    return family in FAMILIES and (device.type == "cpu" if asked is None else asked)


def batches_of_like(members: Sequence[int], sequences: Sequence[tuple[int, ...]], token_budget: int) -> list[list[int]]:
    """Cut rollouts into batches whose rows x longest row stays within the budget, those that share prefixes together.

    Args:
        members: Indices of rollouts.
        sequences: Tokens of every rollout with its prompt.
        token_budget: Padded tokens of a batch, which attention holds; a longer rollout goes alone.
    """
    found: list[list[int]] = []
    longest = 0
    for member in sorted(members, key=lambda member: sequences[member]):
        longest = max(longest, len(sequences[member]))
        if found and (len(found[-1]) + 1) * longest <= token_budget:
            found[-1].append(member)
        else:
            found.append([member])
            longest = len(sequences[member])
    return found


@contextmanager
def shared_prompt_attention(configs: Iterable[Any]) -> Iterator[None]:
    """Let models of these configurations follow a `Folded`, handed to their forward as `folded`, or plain rows without.

    It must hold in the backward pass too, where activations are computed again.
    """
    with ExitStack() as stack:
        for config in configs:
            stack.callback(setattr, config, "_attn_implementation", config._attn_implementation)
            config._attn_implementation = ATTENTION
        yield


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    folded: Folded | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    if folded is not None:
        query, key, value = (folded.unfolded(one) for one in (query, key, value))
    if (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    length, seen_LL = query.shape[2], None
    if sliding_window is not None and sliding_window < length:
        seen_LL = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - sliding_window)
    found = scaled_dot_product_attention(
        query, key, value, attn_mask=seen_LL, is_causal=seen_LL is None, dropout_p=dropout, scale=scaling
    )
    return (found.transpose(1, 2) if folded is None else folded.folded(found)), None


AttentionInterface.register(ATTENTION, _attend)
