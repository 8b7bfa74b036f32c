"""What each training objective is and what it goes with; no torch. `prm_kit.objectives` holds the losses themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prm_kit.card import CheckpointKind, ReadoutName

ObjectiveName = Literal["cross-entropy", "ordinal", "binary", "bce", "mse", "pqm", "ensemble", "causal", "implicit"]


@dataclass(frozen=True)
class ObjectiveKind:
    """What an objective asks of the data and of the model.

    Attributes:
        readout: What its head gives.
        checkpoint: What it is saved as.
        knows_neutral: Whether 0 is a class of its own; otherwise the neutral policy must say where its mass goes.
        soft: Shares are learnt as they are, also where a label has a value beside them.
        whole_solutions: The steps of one solution are compared with each other, so none may be left out or cut off.
        class_weights: Whether classes can be weighted.
        classifies: Whether there are class probabilities to take accuracy and F1 of.
        outcome_only: Learns from the final answer, and gets the steps from that.
        members: Whether the head stands several times.
        extra_settings: Settings of its own, which no other objective takes.
    """

    readout: ReadoutName
    checkpoint: CheckpointKind = "token-classification"
    knows_neutral: bool = False
    soft: bool = False
    whole_solutions: bool = False
    class_weights: bool = True
    classifies: bool = True
    outcome_only: bool = False
    members: bool = False
    extra_settings: tuple[str, ...] = ()


OBJECTIVE_KINDS: dict[ObjectiveName, ObjectiveKind] = {
    "cross-entropy": ObjectiveKind("classes", knows_neutral=True),
    "ordinal": ObjectiveKind("ordinal", knows_neutral=True),
    "binary": ObjectiveKind("binary"),
    "bce": ObjectiveKind("sigmoid", soft=True),
    "mse": ObjectiveKind("sigmoid", soft=True, class_weights=False),
    "pqm": ObjectiveKind(
        "unbounded", whole_solutions=True, class_weights=False, classifies=False, extra_settings=("margin",)
    ),
    "ensemble": ObjectiveKind("ensemble", knows_neutral=True, members=True, extra_settings=("members",)),
    "causal": ObjectiveKind("binary", checkpoint="causal", extra_settings=("verdict_tokens",)),
    "implicit": ObjectiveKind(
        "unbounded", checkpoint="implicit", outcome_only=True, extra_settings=("beta", "reference", "step_score")
    ),
}
"""By the name in `TrainSettings.objective`."""
