"""A published PRM as a checkpoint of ours: a token-classification model that gives the same scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from prm_kit.card import tokenizer_fingerprint
from prm_kit.checkpoints import load_own
from prm_kit.errors import InputError, UsageError
from prm_kit.files import whole_directory
from prm_kit.model import Prm
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Solution
from prm_kit.released.checkpoint import open_checkpoint
from prm_kit.released.registry import FAMILIES, family_of
from prm_kit.score import StepScores
from prm_kit.weights import read_json

TOLERANCE = 1e-6
"""Most that a score may differ before and after."""

SAMPLES = (
    Solution.from_steps("What is 2 + 3 * 4?", ["3 * 4 = 12.", "2 + 12 = 14, so the answer is \\boxed{14}."]),
    Solution.from_steps("What is 2 + 3 * 4?", ["2 + 3 = 5.", "5 * 4 = 20.", "The answer is \\boxed{20}."]),
    Solution.from_steps("Find x² if 3x = 12.", ["Step 1: x = 12 / 3\n= 4.", "因此 x² = 16."]),
)
"""What is scored before and after."""


@dataclass(frozen=True)
class Converted:
    """What became of a published PRM.

    Attributes:
        family: Its family; "own" for a causal PRM trained here.
        readout: What the outputs of the new head are.
        before: Scores of `SAMPLES` as published.
        after: Scores of `SAMPLES` by the new checkpoint, loaded again.
        difference: Most that a value differs.
    """

    family: str
    readout: str
    before: list[StepScores]
    after: list[StepScores]
    difference: float


def convert_prm(
    source: str | Path,
    out: str | Path,
    *,
    family: str | None = None,
    reference: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> Converted:
    """Write a published PRM as a checkpoint that plain `AutoModelForTokenClassification` and `Prm.load` read.

    The number format of the trunk stays as it is stored. Nothing is written unless the scores of `SAMPLES` are equal.

    Args:
        source: Folder or hub id; also a causal PRM trained here.
        out: Folder to write; one that is there must be a checkpoint of ours, and is replaced.
        family: A name in `FAMILIES`, where the files do not say which one it is.
        reference: Of an adapter: its base model, where that is not to be found under the name that the adapter gives.
        device: Where the models are put for the comparison.

    Raises:
        UsageError: The family cannot be told, or cannot be converted; the reason is named.
        InputError: The checkpoint cannot be read, or scores differ.
    """
    out, device = Path(out), torch.device(device)
    check_replaceable(out)
    named, prm = _published(source, family, reference, device)
    before = PrmScorer(prm).score(SAMPLES)
    with whole_directory(out) as part:
        prm.save(part)
        readout, dtype = prm.card.readout, prm.trunk.dtype
        del prm  # one model at a time in memory
        after = PrmScorer(Prm.load(part, device, dtype)).score(SAMPLES)  # type: ignore[arg-type]
        difference = most_different(before, after)
        if not difference <= TOLERANCE:
            raise InputError(f"{source}: scores differ by {difference:.2g} after conversion; nothing was written")
    return Converted(named, readout, before, after, difference)


def check_replaceable(out: Path) -> None:
    """Refuse to replace anything but a checkpoint of ours or an empty folder.

    Raises:
        UsageError: Something else is there.
    """
    if out.exists() and not (out / "prm.json").is_file() and (out.is_file() or any(out.iterdir())):
        raise UsageError(f"{out}: exists and is no PRM checkpoint, so it is not replaced; choose another name")


def most_different(before: list[StepScores], after: list[StepScores]) -> float:
    """Most that a probability, or an unbounded value, differs."""
    differences = [0.0]
    for one, other in zip(before, after, strict=True):
        for p, q in zip(one.probabilities, other.probabilities, strict=True):
            if p is not None and q is not None:
                differences += [abs(a - b) for a, b in zip(p, q, strict=True)]
        for v, w in zip(one.unbounded or (), other.unbounded or (), strict=True):
            if v is not None and w is not None:
                differences.append(abs(v - w))
    return max(differences)


def _published(
    source: str | Path, family: str | None, reference: str | Path | None, device: torch.device
) -> tuple[str, Prm]:
    if (Path(source) / "prm.json").is_file():
        return "own", _own(source, device)
    checkpoint = open_checkpoint(source, device, torch.float32, str(reference) if reference else None)
    checkpoint = replace(checkpoint, dtype=_stored_dtype(checkpoint.config))
    named = family_of(checkpoint, family)
    if reason := FAMILIES[named].not_convertible:
        raise UsageError(f"{source}: a PRM of the family {named} has no token-classification form: {reason}")
    prm = FAMILIES[named].read(checkpoint)
    if not isinstance(prm, Prm):
        raise AssertionError(f"{named} is no model with a head, yet counts as convertible")
    return named, prm


def _own(source: str | Path, device: torch.device) -> Prm:
    """A causal PRM of ours in its token-classification form."""
    prm = load_own(source, device, _stored_dtype(read_json(Path(source) / "config.json")))
    if prm.card.kind == "token-classification":
        raise UsageError(f"{source}: is a token-classification checkpoint of ours already")
    if prm.card.kind != "causal":
        raise UsageError(
            f"{source}: a PRM of the kind {prm.card.kind} has no token-classification form: its scores are log-ratios "
            "of two language models over whole vocabularies"
        )
    card = prm.card.model_copy(update={"kind": "token-classification", "verdict_ids": None})
    return Prm(
        prm.model, prm.tokenizer, card.model_copy(update={"tokenizer_sha256": tokenizer_fingerprint(prm.encoder)})
    )


def _stored_dtype(config: Mapping[str, Any]) -> torch.dtype:
    said = config.get("dtype") or config.get("torch_dtype") or "float32"
    found = getattr(torch, str(said), torch.float32)
    return found if isinstance(found, torch.dtype) else torch.float32
