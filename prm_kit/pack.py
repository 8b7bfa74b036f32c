"""Sequences that share prefixes, forwarded once per distinct prefix.

The sequences are sorted, so that each one shares its longest prefix with the one before it, and only the rest of it,
its tail, goes into one row of tokens. The linear layers see every distinct token once. In the attention layers a
tail's queries look at the keys of its own path: the columns of its prefix, wherever they are in the row, and then its
own columns, causally. So eight solutions share their problem, and branches, rollouts and beams share their steps, by
one mechanism and without a mask over the whole row. Rotary positions are those of the separate sequences.

T tokens of the row, H heads, D hidden per head, M queries of a tail, L length of its path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

ATTENTION = "prm_kit_prefix_tree"
"""Name under which the attention is known to transformers."""

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types whose attention is plain scaled dot products, and which this therefore computes exactly."""


@dataclass(frozen=True)
class Tail:
    """The part of one sequence that no earlier sequence of the row has.

    Attributes:
        start: First column of the tail in the row.
        end: Column after its last.
        path: Tensor [L], columns of the whole sequence, prefix and tail; None where they are 0 to `end`.
    """

    start: int
    end: int
    path: Tensor | None


@dataclass(frozen=True)
class PrefixTree:
    """One row of tokens that holds several sequences.

    Attributes:
        ids: Tensor [T], token ids.
        position_ids: Tensor [T], position of each token in its sequence.
        columns: For each sequence, the column of each of its tokens.
        tails: The tails, in order of their columns; a sequence that another one holds as a whole has none.
    """

    ids: Tensor
    position_ids: Tensor
    columns: list[list[int]]
    tails: list[Tail]
    _masks: dict[tuple[int, int | None, torch.dtype], Tensor] = field(default_factory=dict)

    def mask(self, tail: int, window: int | None, like: Tensor) -> Tensor:
        """Additive mask [M, L] of one tail: 0 where a query may look, else minus infinity. Made once for all layers."""
        key = (tail, window, like.dtype)
        if key not in self._masks:
            n_new = self.tails[tail].end - self.tails[tail].start
            length = _length(self.tails[tail])
            query_M1 = torch.arange(length - n_new, length, device=like.device)[:, None]
            key_L = torch.arange(length, device=like.device)
            seen_ML = key_L <= query_M1
            if window is not None:
                seen_ML &= key_L > query_M1 - window
            self._masks[key] = torch.zeros_like(seen_ML, dtype=like.dtype).masked_fill_(~seen_ML, float("-inf"))
        return self._masks[key]


def prefix_groups(sequences: Sequence[Sequence[int]], budget: int) -> Iterator[list[int]]:
    """Deal sequences into rows of at most `budget` distinct tokens; a longer sequence gets a row of its own.

    Args:
        sequences: Token ids.
        budget: Most tokens in a row.

    Yields:
        Indices of the sequences of one row, in sorted order.
    """
    order = sorted(range(len(sequences)), key=lambda index: list(sequences[index]))
    members: list[int] = []
    used = 0
    for index in order:
        sequence = sequences[index]
        new = len(sequence) - (_shared(sequences[members[-1]], sequence) if members else 0)
        if members and used + new > budget:
            yield members
            members, used, new = [], 0, len(sequence)
        members.append(index)
        used += new
    if members:
        yield members


def prefix_tree(sequences: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> PrefixTree:
    """Lay out sequences, sorted as `prefix_groups` gives them, in one row.

    Sequences in another order are computed just as rightly, but share less.
    """
    ids: list[int] = []
    positions: list[int] = []
    columns: list[list[int]] = []
    tails: list[Tail] = []
    previous: Sequence[int] = []
    for sequence in sequences:
        shared = _shared(previous, sequence)
        start, end = len(ids), len(ids) + len(sequence) - shared
        path = [*(columns[-1][:shared] if columns else ()), *range(start, end)]
        columns.append(path)
        previous = sequence
        if end == start:
            continue
        ids.extend(sequence[shared:])
        positions.extend(range(shared, len(sequence)))
        whole = path[-1] == len(path) - 1  # columns increase along a path, so these are 0, 1, 2, ...
        tails.append(Tail(start, end, None if whole else torch.tensor(path, device=device)))
    row = torch.tensor([ids, positions], device=device)
    return PrefixTree(row[0], row[1], columns, tails)


@contextmanager
def prefix_tree_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let the model's attention layers follow a `PrefixTree`, handed to its forward as `prefix_tree`."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common prefix, by halving: slices compare fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _length(tail: Tail) -> int:
    return tail.end if tail.path is None else len(tail.path)


def _attend(
    module: torch.nn.Module,
    query_1HTD: Tensor,
    key_1HTD: Tensor,
    value_1HTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    prefix_tree: PrefixTree | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    if prefix_tree is None:
        raise ValueError(f"{ATTENTION} attention needs the forward argument `prefix_tree`")
    groups = query_1HTD.shape[1] // key_1HTD.shape[1]
    done = []
    for number, tail in enumerate(prefix_tree.tails):
        query = query_1HTD[:, :, tail.start : tail.end]
        if tail.path is None:
            key, value = key_1HTD[:, :, : tail.end], value_1HTD[:, :, : tail.end]
        else:
            key, value = key_1HTD.index_select(2, tail.path), value_1HTD.index_select(2, tail.path)
        if groups > 1:
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        window = sliding_window if sliding_window is not None and sliding_window < _length(tail) else None
        plain = tail.start == 0 and window is None
        mask_ML = None if plain else prefix_tree.mask(number, window, query)
        done.append(
            scaled_dot_product_attention(
                query, key, value, attn_mask=mask_ML, is_causal=plain, dropout_p=dropout, scale=scaling
            )
        )
    return torch.cat(done, dim=2).transpose(1, 2), None


AttentionInterface.register(ATTENTION, _attend)
