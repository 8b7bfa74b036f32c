"""Keys and values of a decode loop that grow in place and lose rows in place.

transformers' own layer copies all it holds for every token, which on a CPU is half of the time of a small model.

B rows, H heads, T tokens, D hidden per head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_AHEAD = 128
"""Tokens of room made at a time: all that is held is read for every token, so a copy every 128 of them is nothing."""


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A `DynamicLayer` whose keys and values [B, H, T, D] are views of tensors with room for more.

    Attributes:
        longest: Tokens that it will ever hold: no room is made beyond.
    """

    def __init__(self, longest: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.longest = longest
        self._key_room: Tensor | None = None
        self._value_room: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values [B, H, new, D]; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        end = held + key_states.shape[2]
        rows = slice(0, len(key_states))
        if self._key_room is None or self._value_room is None or end > self._key_room.shape[2]:
            self._key_room = self._grown(self.keys, key_states, end)
            self._value_room = self._grown(self.values, value_states, end)
        self._key_room[rows, :, held:end] = key_states
        self._value_room[rows, :, held:end] = value_states
        self.keys, self.values = self._key_room[rows, :, :end], self._value_room[rows, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order. Where the last rows only fill gaps, nothing else is moved."""
        if self._key_room is None or self._value_room is None:
            return
        assert self.keys is not None
        assert self.values is not None
        kept, end = len(indices), self.get_seq_length()
        moved = (indices != torch.arange(kept, device=indices.device)).nonzero()[:, 0]
        if kept <= len(self.keys) and bool((indices[moved] >= kept).all()):
            for room in (self._key_room, self._value_room):
                room[moved, :, :end] = room[indices[moved], :, :end]
        else:
            self._key_room, self._value_room = (
                self._grown(held[indices], held[indices], end) for held in (self.keys, self.values)
            )
        self.keys, self.values = self._key_room[:kept, :, :end], self._value_room[:kept, :, :end]

    def _grown(self, held: Tensor | None, like: Tensor, end: int) -> Tensor:
        """Room for `end` tokens and some more, with what is held already at its beginning."""
        rows, heads, _, width = like.shape
        room = like.new_empty(rows, heads, max(end, min(end + _AHEAD, self.longest)), width)
        if held is not None and held.numel():
            room[:, :, : held.shape[2]] = held
        return room


def growing_cache(config: Any, longest: int) -> DynamicCache:
    """A cache for a model of this configuration; layers of other kinds (sliding windows, fixed sizes) stay as they are.

    Args:
        config: The model's.
        longest: Tokens that a row will ever hold.
    """
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer(longest) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
