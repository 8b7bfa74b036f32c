"""Training examples: token ids, read positions and targets as compact arrays, and the micro-batches made of them.

B sequences, T tokens, N read positions, K = 3 classes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prm_kit.encode import Encoded
from prm_kit.errors import InputError
from prm_kit.segments import Encoder
from prm_kit.targets import SolutionTargets

_CHUNK = 1024


@dataclass(frozen=True)
class Example:
    """One sequence to train on.

    Attributes:
        solution_id: The solution that it shows, whole or a window of it.
        ids: int32 [T], token ids.
        positions: int32 [N], where steps with a target are read, increasing.
        targets: float32 [N, 3], distributions over (-1, 0, +1).
        prompt_length: How many of the first ids are template and problem.
    """

    solution_id: str
    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    targets: NDArray[np.float32]
    prompt_length: int = 0


class Batch(NamedTuple):
    """Examples padded on the right. A causal backbone needs no mask for that: no token sees what comes after it.

    Attributes:
        ids: int64 [B, T], token ids; padding, on the right, is 0.
        rows: int64 [N], the row of each read position.
        positions: int64 [N], its column.
        starts: int64 [B], the column at which the solution begins, after template and problem.
    """

    ids: NDArray[np.int64]
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]
    starts: NDArray[np.int64]


class ExampleSet(NamedTuple):
    """Examples and what was left out on the way from the targets, by reason."""

    examples: list[Example]
    dropped: dict[str, int]

    @property
    def lengths(self) -> list[int]:
        """Tokens of every example."""
        return [len(example.ids) for example in self.examples]


def examples_of(
    items: Sequence[SolutionTargets],
    encoder: Encoder,
    *,
    max_tokens: int | None = None,
    too_long: Literal["refuse", "window", "drop"] = "refuse",
    cut_tail: bool = False,
) -> ExampleSet:
    """Encode solutions and keep the read positions that have a target.

    Args:
        items: What to learn.
        encoder: The PRM's encoder.
        max_tokens: Longest sequence.
        too_long: "refuse", "window" (both as the encoder does it), or "drop": leave the solution out and count it.
        cut_tail: Leave out the tokens after the last read position. Nothing reads them; right for a causal backbone
            only, whose earlier positions cannot see them.

    Raises:
        InputError: A solution is too long and `too_long` is "refuse", or the encoder gave a step that has a target no
            read position, or several.
    """
    examples: list[Example] = []
    dropped: dict[str, int] = {}
    for chunk in _chunks(items, _CHUNK):
        solutions = [item.solution for item in chunk]
        if too_long == "drop":
            encoded = encoder.encode(solutions)
        else:
            encoded = encoder.encode(solutions, max_tokens=max_tokens, too_long=too_long)
        _check_reads(chunk, encoded)
        for one in encoded:
            item = chunk[one.solution]
            if too_long == "drop" and max_tokens is not None and len(one.ids) > max_tokens:
                dropped["solutions longer than max_tokens"] = dropped.get("solutions longer than max_tokens", 0) + 1
                continue
            wanted = dict(zip(item.steps, item.distributions, strict=True))
            read = [(p, wanted[s]) for p, s in zip(one.read_positions, one.steps, strict=True) if s in wanted]
            if not read:
                dropped["windows without a target"] = dropped.get("windows without a target", 0) + 1
                continue
            positions = np.array([position for position, _ in read], dtype=np.int32)
            ids = one.ids[: int(positions[-1]) + 1] if cut_tail else one.ids
            targets = np.array([distribution for _, distribution in read], dtype=np.float32)
            examples.append(
                Example(item.solution.id, np.array(ids, dtype=np.int32), positions, targets, one.prompt_length)
            )
    return ExampleSet(examples, dropped)


def collate(examples: Sequence[Example]) -> Batch:
    """Pad examples on the right into one batch."""
    longest = max(len(example.ids) for example in examples)
    ids_BT = np.zeros((len(examples), longest), dtype=np.int64)
    for row, example in enumerate(examples):
        ids_BT[row, : len(example.ids)] = example.ids
    return Batch(
        ids_BT,
        np.repeat(np.arange(len(examples)), [len(example.positions) for example in examples]),
        np.concatenate([example.positions for example in examples]).astype(np.int64),
        np.array([example.prompt_length for example in examples], dtype=np.int64),
    )


def concatenated_targets(examples: Sequence[Example]) -> NDArray[np.float32]:
    """Targets [N, 3] in the order of `Batch.rows` and `Batch.positions`."""
    return np.concatenate([example.targets for example in examples])


def class_masses(examples: Sequence[Example]) -> tuple[float, float, float]:
    """Target mass per class (-1, 0, +1)."""
    total = np.zeros(3)
    for example in examples:
        total += example.targets.sum(axis=0, dtype=np.float64)
    return float(total[0]), float(total[1]), float(total[2])


def examples_sha256(examples: Sequence[Example]) -> str:
    """Hash of everything that a model is shown: ids, read positions and targets, in order."""
    digest = hashlib.sha256()
    for example in examples:
        for array in (example.ids, example.positions, example.targets):
            digest.update(len(array).to_bytes(8, "little"))
            digest.update(array.tobytes())
    return digest.hexdigest()


def _check_reads(items: Sequence[SolutionTargets], encoded: Sequence[Encoded]) -> None:
    """Every step of every solution is read once."""
    reads: list[Counter[int]] = [Counter() for _ in items]
    for one in encoded:
        reads[one.solution].update(one.steps)
    for item, read in zip(items, reads, strict=True):
        for step in item.steps:
            if read[step] != 1:
                raise InputError(f"solution {item.solution.id}, step {step}: {read[step]} read positions instead of 1")


def _chunks(items: Sequence[SolutionTargets], size: int) -> Iterator[Sequence[SolutionTargets]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
