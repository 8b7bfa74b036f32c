"""From training examples to logits at their read positions: padded batches, or rows in which prefixes are shared.

N read positions, K outputs of the head, M members of an ensemble.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prm_kit.batching import micro_batches
from prm_kit.errors import UsageError
from prm_kit.examples import Example, collate, concatenated_targets
from prm_kit.model import Prm
from prm_kit.objectives import StepTargets
from prm_kit.pack import FAMILIES, prefix_groups, prefix_tree, prefix_tree_attention
from prm_kit.train_start import Precision, autocast

WORTH_SHARING = 0.75
"""Share of distinct tokens below which prefixes are shared on the CPU without being asked."""


@dataclass(frozen=True)
class Forward:
    """How examples go through the model.

    Attributes:
        prm: The model.
        precision: As `autocast` takes it.
        token_budget: Tokens that go through the model at once, padding included.
        share_prefixes: Compute what sequences have in common once, instead of padding them into a batch.
        members: Of an ensemble, whose members learn from resampled problems; 0: no ensemble.
        seed: Of that resampling.
    """

    prm: Prm
    precision: Precision
    token_budget: int
    share_prefixes: bool
    members: int = 0
    seed: int = 0

    def attention(self) -> AbstractContextManager[None]:
        """What forward and backward run in: a backward pass that computes activations again needs it as well."""
        return prefix_tree_attention(self.prm.model) if self.share_prefixes else nullcontext()

    def batches(self, examples: Sequence[Example]) -> list[list[Example]]:
        """Cut examples into what goes through at once."""
        if self.share_prefixes:
            indices = list(prefix_groups([example.ids.tolist() for example in examples], self.token_budget))
        else:
            indices = micro_batches(range(len(examples)), [len(e.ids) for e in examples], self.token_budget)
        return [[examples[index] for index in batch] for batch in indices]

    def computed_tokens(self, batch: Sequence[Example]) -> int:
        """Tokens that the model computes for a batch: with padding, or each shared one once."""
        if self.share_prefixes:
            return distinct_tokens(batch)
        return len(batch) * max(len(example.ids) for example in batch)

    def logits(self, batch: Sequence[Example]) -> tuple[Tensor, StepTargets]:
        """Outputs, float32 [N, K], and targets of the steps that are read, example by example, in `attention`."""
        device = self.prm.device
        with autocast(self.precision, device):
            logits_NK = self._shared(batch) if self.share_prefixes else self._padded(batch)
        target, solution, weight = self.targets(batch)
        weight = None if weight is None else weight.to(device)
        return logits_NK, StepTargets(target.to(device), solution.to(device), weight)

    def targets(self, examples: Sequence[Example]) -> StepTargets:
        """Targets of the steps that are read, example by example, on the CPU."""
        counts = [len(example.positions) for example in examples]
        weight_NM = None
        if self.members:
            weights = [member_weights(example, self.members, self.seed) for example in examples]
            weight_NM = torch.from_numpy(np.repeat(np.stack(weights), counts, axis=0).astype(np.float32))
        solution_N = torch.from_numpy(np.repeat(np.arange(len(examples)), counts))
        return StepTargets(torch.from_numpy(concatenated_targets(examples)), solution_N, weight_NM)

    def _padded(self, batch: Sequence[Example]) -> Tensor:
        ids_BT, row_N, position_N, start_B = (torch.from_numpy(array).to(self.prm.device) for array in collate(batch))
        return self.prm.read_logits(ids_BT, None, row_N, position_N, start_B=start_B)

    def _shared(self, batch: Sequence[Example]) -> Tensor:
        tree = prefix_tree([example.ids.tolist() for example in batch], self.prm.device)
        reads = [
            columns[position]
            for example, columns in zip(batch, tree.columns, strict=True)
            for position in example.positions.tolist()
        ]
        position_N = torch.tensor(reads, device=self.prm.device)
        row_N, position_ids = torch.zeros_like(position_N), tree.position_ids[None]
        return self.prm.read_logits(tree.ids[None], None, row_N, position_N, position_ids, prefix_tree=tree)


def member_weights(example: Example, members: int, seed: int) -> NDArray[np.float64]:
    """How often each member learns an example: the same for all solutions of a problem, in every epoch and process.

    Exponential with mean 1, independent over problems and members: the Bayesian bootstrap (Rubin 1981). Unlike
    drawing with replacement it leaves nothing out, so that no update is empty for a member.
    """
    prompt = example.ids[: example.prompt_length].tobytes()
    digest = hashlib.blake2b(prompt, digest_size=16, salt=seed.to_bytes(16, "little")).digest()
    return np.random.default_rng(int.from_bytes(digest, "little")).standard_exponential(members)


def shares_prefixes(asked: bool | None, prm: Prm, examples: Sequence[Example], device: torch.device) -> bool:
    """Whether a run shares prefixes.

    Args:
        asked: The setting. None: on the CPU, where the model's family allows it and `WORTH_SHARING` says so.
        prm: The model.
        examples: All training examples.
        device: What the run computes on, wherever the model is now.

    Raises:
        UsageError: It is asked for and the family's attention is not known.
    """
    family = prm.model.config.model_type
    if asked and not prm.can_share_prefixes:
        raise UsageError(f"share_prefixes: an {prm.card.kind} PRM reads every token after its own prefix")
    if asked and family not in FAMILIES:
        raise UsageError(f"share_prefixes: not known for {family} models, only {', '.join(sorted(FAMILIES))}")
    if asked is not None or family not in FAMILIES or not prm.can_share_prefixes or device.type != "cpu":
        return bool(asked)
    return distinct_tokens(examples) < WORTH_SHARING * sum(len(example.ids) for example in examples)


def distinct_tokens(examples: Sequence[Example]) -> int:
    """Tokens of all examples, with every prefix that several share counted once."""
    total, previous = 0, b""
    for ids in sorted(example.ids.astype(">i4").tobytes() for example in examples):
        total += (len(ids) - _shared_bytes(previous, ids)) // 4
        previous = ids
    return total


def _shared_bytes(one: bytes, other: bytes) -> int:
    """Length of the longest common prefix in bytes, in whole tokens of four."""
    low, high = 0, min(len(one), len(other)) // 4
    while low < high:
        middle = (low + high + 1) // 2
        if one[low * 4 : middle * 4] == other[low * 4 : middle * 4]:
            low = middle
        else:
            high = middle - 1
    return low * 4
