"""Generation with a Hugging Face causal language model.

Tensor names end in their dimensions: P prefixes, B rows (P x n), T tokens, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from prm_kit.engines.engine import Limits, Rollout, check_request
from prm_kit.engines.growing_cache import growing_cache

_BLOCK = 128
"""Tokens of a block of the vocabulary, where one is drawn; most vocabularies are a multiple of it."""


class TransformersEngine:
    """Samples from a `PreTrainedModel` with a causal head.

    Prefixes of like length are prefilled together, once each however many rollouts they get; rows that are done leave
    the batch. A rollout's random numbers come from the seed, the prefix and the sample's number, so it is the same
    alone and in any batch, up to the rounding of the model itself.

    Args:
        model: In evaluation mode or not; generation runs in evaluation mode and puts the mode back.
        max_rows: Most rows decoded at once.
    """

    def __init__(self, model: Any, max_rows: int = 256) -> None:
        self.model = model
        self.max_rows = max_rows

    def generate(self, prefixes: Sequence[Sequence[int]], n: int, limits: Limits) -> list[list[Rollout]]:
        """Sample `n` rollouts of every prefix (see `Engine.generate`)."""
        check_request(prefixes, n)
        rollouts: list[list[Rollout]] = [[] for _ in prefixes]
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                for chunk in self._chunks(prefixes, n):
                    rows = [(number, sample) for number, samples in chunk for sample in samples]
                    done = self._decode([prefixes[number] for number, _ in chunk], [s for _, s in chunk], limits)
                    for (number, _), rollout in zip(rows, done, strict=True):
                        rollouts[number].append(rollout)
        finally:
            self.model.train(was_training)
        return rollouts

    def _chunks(self, prefixes: Sequence[Sequence[int]], n: int) -> Iterator[list[tuple[int, range]]]:
        """Prefixes by length, as many as fill `max_rows`; the rollouts of one prefix are split where they must."""
        by_length = sorted(range(len(prefixes)), key=lambda number: len(prefixes[number]))
        if n >= self.max_rows:
            for number in by_length:
                for first in range(0, n, self.max_rows):
                    yield [(number, range(first, min(n, first + self.max_rows)))]
            return
        many = self.max_rows // n
        for first in range(0, len(by_length), many):
            yield [(number, range(n)) for number in by_length[first : first + many]]

    def _decode(self, prefixes: list[Sequence[int]], samples: list[range], limits: Limits) -> list[Rollout]:
        device = self.model.device
        counts = torch.tensor([len(numbers) for numbers in samples], device=device)
        prompt_PT, mask_PT = _left_padded(prefixes, device)
        logits_PV, cache = self._prefill(prompt_PT, mask_PT, limits.max_new_tokens)
        owner_B = torch.arange(len(prefixes), device=device).repeat_interleave(counts)
        if len(owner_B) > len(prefixes):
            cache.batch_select_indices(owner_B)
        mask_BT = None if mask_PT is None else mask_PT[owner_B]
        uniform_BT = _uniforms(prefixes, samples, limits).to(device)
        stop = torch.tensor(limits.stop_ids, dtype=torch.long, device=device)
        length_B = torch.tensor([len(prefix) for prefix in prefixes], device=device)[owner_B]

        rows_B = torch.arange(len(owner_B), device=device)  # which rollout each row still in the batch writes
        ids_BT = torch.zeros_like(uniform_BT, dtype=torch.long)
        log_probabilities_BT = torch.zeros_like(uniform_BT, dtype=torch.float32)
        new_B = torch.full_like(rows_B, limits.max_new_tokens)
        stopped_B = torch.zeros_like(rows_B, dtype=torch.bool)
        logits_BV = logits_PV[owner_B]
        for step in range(limits.max_new_tokens):
            token_B, log_probability_B = choose(logits_BV, uniform_BT[rows_B, step], limits.temperature)
            ids_BT[rows_B, step] = token_B
            log_probabilities_BT[rows_B, step] = log_probability_B
            ends_B = torch.isin(token_B, stop)
            if ends_B.any():
                new_B[rows_B[ends_B]] = step + 1
                stopped_B[rows_B[ends_B]] = True
                left = _without(ends_B)
                if not len(left):
                    break
                cache.batch_select_indices(left)
                rows_B, token_B, mask_BT = rows_B[left], token_B[left], None if mask_BT is None else mask_BT[left]
            if step + 1 < limits.max_new_tokens:
                if mask_BT is not None:
                    mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(mask_BT), 1)], dim=1)
                logits_BV = self._next_logits(token_B, mask_BT, length_B[rows_B] + step, cache)
        return _rollouts(ids_BT, log_probabilities_BT, new_B, stopped_B)

    def _prefill(
        self, prompt_PT: torch.Tensor, mask_PT: torch.Tensor | None, max_new_tokens: int
    ) -> tuple[torch.Tensor, DynamicCache]:
        positions = None if mask_PT is None else (mask_PT.cumsum(1) - 1).clamp(min=0)
        cache = growing_cache(self.model.config, prompt_PT.shape[1] + max_new_tokens)
        output = self.model(
            input_ids=prompt_PT,
            attention_mask=mask_PT,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1], cache

    def _next_logits(
        self, token_B: torch.Tensor, mask_BT: torch.Tensor | None, position_B: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        output = self.model(
            input_ids=token_B[:, None],
            attention_mask=mask_BT,
            position_ids=position_B[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits


def choose(logits_BV: torch.Tensor, uniform_B: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose one token a row by inverting the cumulative distribution at a uniform number.

    Args:
        logits_BV: The model's logits.
        uniform_B: Numbers in [0, 1), float64.
        temperature: 0 takes the likeliest token.

    Returns:
        token_B, and log_probability_B at temperature 1.
    """
    logits_BV = logits_BV.float()
    most_B1 = logits_BV.amax(-1, keepdim=True)
    weights_BV = logits_BV.softmax(-1)
    log_mass_B1 = -weights_BV.amax(-1, keepdim=True).log()  # of exp(logits - most): the likeliest token weighs 1 there
    if temperature == 0.0:
        token_B1 = logits_BV.argmax(-1, keepdim=True)
    else:
        if temperature != 1.0:
            weights_BV = ((logits_BV - most_B1) / temperature).softmax(-1)
        token_B1 = _inverted(weights_BV, uniform_B[:, None])
    return token_B1[:, 0], (logits_BV.gather(-1, token_B1) - most_B1 - log_mass_B1)[:, 0]


def _inverted(weights_BV: torch.Tensor, uniform_B1: torch.Tensor) -> torch.Tensor:
    """The first token [B, 1] up to which the weights sum to more than the uniform number's share of all of them.

    Cumulative sums are float64, since in float32 those over a large vocabulary would lose rare tokens: one over blocks
    and one within the block that is met, so that a large vocabulary is gone through once, and in float32.
    """
    blocks_BKW = pad(weights_BV, (0, -weights_BV.shape[1] % _BLOCK)).reshape(len(weights_BV), -1, _BLOCK)
    mass_BK = blocks_BKW.sum(-1).double()
    cumulative_BK = mass_BK.cumsum(-1)
    target_B1 = uniform_B1 * cumulative_BK[:, -1:]
    block_B1 = _first_above(cumulative_BK, target_B1)
    before_B1 = (cumulative_BK - mass_BK).gather(1, block_B1)
    share_B1 = (target_B1 - before_B1) / mass_BK.gather(1, block_B1)
    cumulative_BW = blocks_BKW.gather(1, block_B1[:, :, None].expand(-1, -1, _BLOCK))[:, 0].double().cumsum(-1)
    token_B1 = block_B1 * _BLOCK + _first_above(cumulative_BW, share_B1 * cumulative_BW[:, -1:])
    return token_B1.clamp(max=weights_BV.shape[1] - 1)


def _first_above(cumulative_BN: torch.Tensor, target_B1: torch.Tensor) -> torch.Tensor:
    """Index [B, 1] of the first sum above the target; where rounding left none, of the last one with any weight.

    Where nothing is a number it is some index: what is drawn there has no log-probability, and whoever reads it stops.
    """
    last_B1 = torch.searchsorted(cumulative_BN, cumulative_BN[:, -1:].contiguous())
    found_B1 = torch.minimum(torch.searchsorted(cumulative_BN, target_B1.contiguous(), right=True), last_B1)
    return found_B1.clamp(max=cumulative_BN.shape[1] - 1)


def _without(gone_B: torch.Tensor) -> torch.Tensor:
    """Indices of the rows that stay: in their places, but for the last ones, which fill the gaps."""
    stay = (~gone_B).nonzero()[:, 0]
    kept = torch.arange(len(stay), device=stay.device)
    kept[gone_B[: len(stay)]] = stay[stay >= len(stay)]
    return kept


def _left_padded(prefixes: list[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Ids [P, T] and their mask; no mask where all prefixes are of one length. The pad id is never looked at."""
    longest = max(len(prefix) for prefix in prefixes)
    prompt_PT = torch.zeros(len(prefixes), longest, dtype=torch.long)
    mask_PT = torch.zeros(len(prefixes), longest, dtype=torch.long)
    for row, prefix in enumerate(prefixes):
        prompt_PT[row, longest - len(prefix) :] = torch.tensor(prefix)
        mask_PT[row, longest - len(prefix) :] = 1
    return prompt_PT.to(device), None if bool(mask_PT.all()) else mask_PT.to(device)


def _uniforms(prefixes: list[Sequence[int]], samples: list[range], limits: Limits) -> torch.Tensor:
    """Uniform numbers [B, max_new_tokens] that depend on seed, prefix and sample number alone."""
    rows = []
    for prefix, numbers in zip(prefixes, samples, strict=True):
        digest = hashlib.sha256(np.asarray(prefix, dtype="<i8").tobytes()).digest()
        words = np.frombuffer(digest, dtype="<u4").tolist()
        for sample in numbers:
            generator = np.random.Generator(np.random.PCG64([limits.seed, sample, *words]))
            rows.append(generator.random(limits.max_new_tokens))
    return torch.from_numpy(np.stack(rows))


def _rollouts(
    ids_BT: torch.Tensor, log_probabilities_BT: torch.Tensor, new_B: torch.Tensor, stopped_B: torch.Tensor
) -> list[Rollout]:
    return [
        Rollout(tuple(ids[:new]), tuple(log_probabilities[:new]), "stop" if stopped else "length")
        for ids, log_probabilities, new, stopped in zip(
            ids_BT.tolist(), log_probabilities_BT.tolist(), new_B.tolist(), stopped_B.tolist(), strict=True
        )
    ]
