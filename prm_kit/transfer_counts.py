"""The accounts of an import and of an export: what came, what became of it, what was refused and why."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prm_kit.records import StepLabel

if TYPE_CHECKING:
    from prm_kit.formats.step_blocks import Block

REPORTED_REJECTS = 5
"""How many refused rows a message shows."""


@dataclass
class ImportCount:
    """The account of an import; `summary` makes plain data of it."""

    rows: int = 0
    rejected: int = 0
    solutions: int = 0
    steps: int = 0
    annotations: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    rejects: list[dict[str, Any]] = field(default_factory=list)

    def add_block(self, block: Block) -> None:
        """Count what a block of step lists gave."""
        import pyarrow.compute as pc

        steps = len(block.solutions.column("spans").flatten())
        values = block.annotations.column("labels").flatten().field("value")
        self.solutions += len(block.solutions)
        self.annotations += len(block.annotations)
        self.steps += steps
        for found in pc.value_counts(values).to_pylist():
            self.labels["null" if found["values"] is None else str(found["values"])] += found["counts"]
        self.labels["null"] += steps - len(values)
        self.seen += block.seen
        self.notes += block.notes

    def summary(self) -> dict[str, Any]:
        """Rows read and rejected by reason, what they became, and the labels before (as worded there) and after."""
        return {
            "rows_read": self.rows,
            "rows_rejected": self.rejected,
            "rejected_by_reason": dict(self.reasons.most_common()),
            "solutions": self.solutions,
            "steps": self.steps,
            "annotations": self.annotations,
            "labels_before": dict(self.seen.most_common()),
            "labels_after": dict(self.labels.most_common()),
            "notes": dict(self.notes.most_common()),
        }


@dataclass
class ExportCount:
    """The account of an export."""

    given: int = 0
    rows: int = 0
    solutions: int = 0
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    refused_kinds: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        """Counts as plain data: what was given, left out by policy, refused, written; labels before and after."""
        return {
            "given": self.given,
            "left_out": dict(self.left_out.most_common()),
            "refused": len(self.refused),
            "refused_by_reason": dict(self.refused_kinds.most_common()),
            "rows_written": self.rows,
            "solutions_written": self.solutions,
            "labels_before": dict(self.before.most_common()),
            "labels_after": dict(self.after.most_common()),
            "not_held": dict(self.lost.most_common()),
        }


def label_word(label: StepLabel) -> str:
    """How a label is counted: "-1", "0", "1", "soft" (shares without a value) or "null"."""
    if label.value is not None:
        return str(label.value)
    return "null" if label.shares is None else "soft"


def reason_kind(reason: str) -> str:
    """A reason without its numbers, so that alike reasons are counted together."""
    return re.sub(r"\d+", "N", reason)[:200]
