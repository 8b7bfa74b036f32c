"""Checkpoints of our own, of whatever kind: how a training run starts, and how they are loaded again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from prm_kit.card import CheckpointKind, read_card
from prm_kit.causal import causal_from_backbone, load_causal
from prm_kit.errors import UsageError
from prm_kit.implicit import implicit_from_backbone, load_implicit
from prm_kit.model import Prm
from prm_kit.objective_kinds import OBJECTIVE_KINDS
from prm_kit.train_settings import TrainSettings


def load_own(path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Prm:
    """Load a checkpoint directory with a prm.json, of any kind, in evaluation mode.

    Args:
        path: The directory.
        device: Where to put it.
        dtype: Of the trunk; None: float32 on the CPU, bfloat16 elsewhere.

    Raises:
        InputError: As `Prm.load`.
    """
    return LOADERS[read_card(path).kind](path, device, dtype)


def starting_prm(settings: TrainSettings, device: torch.device) -> Prm:
    """What a run starts from: a PRM to go on from, or a backbone with what the objective puts on it.

    Weights are float32, so that small updates count.

    Raises:
        InputError: It cannot be loaded.
        UsageError: The PRM to go on from has another head than the objective needs.
    """
    source, kind = settings.backbone, OBJECTIVE_KINDS[settings.objective]
    if (Path(source) / "prm.json").is_file():
        prm = load_own(source, device, torch.float32)
        if (prm.card.kind, prm.card.readout) != (kind.checkpoint, kind.readout):
            raise UsageError(
                f"backbone: {source} is a PRM of the kind {prm.card.kind} with the readout {prm.card.readout}; "
                f"objective {settings.objective} needs {kind.checkpoint} with {kind.readout}"
            )
        _refuse_changes(settings, prm)
        return prm
    if kind.checkpoint == "causal":
        tokens = settings.verdict_tokens or ("-", "+")
        return causal_from_backbone(source, verdict_tokens=tokens, device=device, dtype=torch.float32)
    if kind.checkpoint == "implicit":
        return implicit_from_backbone(
            source,
            reference=settings.reference,
            beta=settings.beta or 0.05,
            step_score=settings.step_score or "cumulative",
            device=device,
            dtype=torch.float32,
        )
    members = (settings.members or 5) if kind.members else 1
    return Prm.from_backbone(
        source, readout=kind.readout, members=members, seed=settings.seed, device=device, dtype=torch.float32
    )


def _refuse_changes(settings: TrainSettings, prm: Prm) -> None:
    """A PRM that is gone on from keeps what it was made with."""
    has = {"members": len(prm.head.weight) // 3, "beta": prm.card.beta, "step_score": prm.card.step_score}
    for key in ("members", "beta", "step_score", "reference", "verdict_tokens"):
        asked = getattr(settings, key)
        if asked is not None and asked != has.get(key):
            raise UsageError(
                f"{key}: {settings.backbone} is a PRM already and keeps its own ({has.get(key, 'inside')})"
            )


LOADERS: dict[CheckpointKind, Callable[[str | Path, str | torch.device, torch.dtype | None], Prm]] = {
    "token-classification": Prm.load,
    "causal": load_causal,
    "implicit": load_implicit,
}
"""By the card's kind."""
