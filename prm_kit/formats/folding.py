"""From labels to what a format can hold: the only place where a label is folded on its way out.

Nothing is folded unless a policy asks for it. A label that the format cannot hold, and no policy for it, is an error
that names the choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from prm_kit.errors import UsageError
from prm_kit.records import LabelValue, NeutralPolicy, Solution, StepLabel
from prm_kit.settings import Settings

MissingPolicy = Literal["keep", "drop", "cut"]
"""What becomes of a step without label where the format needs one on every step: it stays (an error there); the whole
solution is left out and counted; the steps after the last labelled one are left out."""


class Folding(Settings):
    """The policies of an export, written into its report.

    Attributes:
        neutral_policy: What becomes of label 0.
        missing_policy: What becomes of a step without label.
        threshold: Share of +1 from which a soft label becomes +1, and below which -1. None: soft labels stay soft.
    """

    neutral_policy: NeutralPolicy = "keep"
    missing_policy: MissingPolicy = "keep"
    threshold: float | None = Field(default=None, gt=0.0, le=1.0)


@dataclass(frozen=True)
class Holds:
    """Which labels a format can hold beside -1 and +1.

    Attributes:
        neutral: 0.
        soft: Floats in [0, 1].
        missing: A step without label.
        missing_after_error: Nothing after the first -1: steps need no label there, and have none.
    """

    neutral: bool = False
    soft: bool = False
    missing: bool = False
    missing_after_error: bool = False


@dataclass(frozen=True)
class Folded:
    """A solution as it will be written.

    Attributes:
        solution: The solution; shorter than the original where missing labels were cut off.
        targets: Per step -1, 0 or +1 (int), a soft value in [0, 1] (float), or None.
    """

    solution: Solution
    targets: tuple[LabelValue | float | None, ...]


class LeftOut(Exception):  # noqa: N818 - not an error: what the policy asked for
    """A solution that the policies leave out; the message is the reason under which it is counted."""


def fold(
    solution: Solution, labels: Sequence[StepLabel | None], folding: Folding, holds: Holds, format_name: str
) -> Folded:
    """Fold one label per step to what `holds` allows.

    Args:
        solution: The solution.
        labels: One entry per step; None where nobody judged it.
        folding: The policies.
        holds: What the format can hold.
        format_name: For the messages.

    Raises:
        UsageError: A label does not fit and no policy says what to do with it.
        LeftOut: The policies leave this solution out.
    """
    targets = [
        _target(label, folding, holds, f"solution {solution.id}, step {step}", format_name)
        for step, label in enumerate(labels)
    ]
    needed = targets
    if holds.missing_after_error and -1 in targets:
        needed = targets[: targets.index(-1)]
        targets = [*needed, -1, *[None] * (len(targets) - len(needed) - 1)]
    if holds.missing or None not in needed:
        return Folded(solution, tuple(targets))
    if folding.missing_policy == "keep":
        raise UsageError(
            f"solution {solution.id}: step {targets.index(None)} has no label and format {format_name} needs one on "
            "every step; choose missing_policy: drop (leave such solutions out) or cut (leave out the steps after the "
            "last label)"
        )
    if folding.missing_policy == "drop":
        raise LeftOut("a step has no label")
    return _cut(solution, targets)


def as_it_is(label: StepLabel | None) -> LabelValue | float | None:
    """A label as a target, nothing folded: its value, else its share of +1, else None."""
    if label is None or label.value is not None:
        return None if label is None else label.value
    return None if label.shares is None else label.shares[2]


def soft_value(shares: tuple[float, float, float], policy: NeutralPolicy, where: str) -> float | None:
    """The share of +1 after the share of 0 went where the policy says; None where nothing is left.

    Raises:
        UsageError: There is a share of 0 and the policy is keep: one number cannot hold it.
    """
    negative, neutral, positive = shares
    if neutral == 0.0:
        return positive
    if policy == "keep":
        raise UsageError(f"{where}: the votes for 0 do not fit into one number; {_CHOICES}")
    if policy == "drop":
        return positive / (negative + positive) if negative + positive else None
    return positive + {"positive": 1.0, "negative": 0.0, "half": 0.5}[policy] * neutral


_CHOICES = "choose neutral_policy: positive, negative, drop or half"


def _target(
    label: StepLabel | None, folding: Folding, holds: Holds, where: str, format_name: str
) -> LabelValue | float | None:
    if label is None or (label.value is None and label.shares is None):
        return None
    if label.value is None:
        assert label.shares is not None
        return _soft_target(label.shares, folding, holds, where, format_name)
    if label.value != 0:
        return label.value
    return _neutral_target(folding.neutral_policy, holds, where, format_name)


def _neutral_target(policy: NeutralPolicy, holds: Holds, where: str, format_name: str) -> LabelValue | float | None:
    if policy == "keep" and not holds.neutral:
        raise UsageError(f"{where}: label 0 does not fit into format {format_name}; {_CHOICES}")
    if policy == "half" and not holds.soft:
        raise UsageError(
            f"{where}: format {format_name} (with these options) holds no half label; choose neutral_policy: positive, "
            "negative or drop"
        )
    if policy == "drop" and not holds.missing:
        raise LeftOut("a label 0, dropped, where every step needs a label")
    values: dict[str, LabelValue | float | None] = {
        "keep": 0,
        "positive": 1,
        "negative": -1,
        "half": 0.5,
        "drop": None,
    }
    return values[policy]


def _soft_target(
    shares: tuple[float, float, float], folding: Folding, holds: Holds, where: str, format_name: str
) -> LabelValue | float | None:
    if folding.threshold is None and not holds.soft:
        raise UsageError(
            f"{where}: a soft label does not fit into format {format_name} (with these options); choose a threshold "
            "in (0, 1] from which it is +1"
        )
    value = soft_value(shares, folding.neutral_policy, where)
    if value is None or folding.threshold is None:
        return value
    return 1 if value >= folding.threshold else -1


def _cut(solution: Solution, targets: Sequence[LabelValue | float | None]) -> Folded:
    labelled = [step for step, target in enumerate(targets) if target is not None]
    if not labelled:
        raise LeftOut("no step has a label")
    n = labelled[-1] + 1
    if len(labelled) < n:
        raise LeftOut("a step before the last labelled one has no label")
    end = solution.spans[n - 1][1]
    shorter = replace(
        solution,
        completion=solution.completion[:end],
        spans=solution.spans[:n],
        final_answer=None,
        is_correct=None,
        meta={**solution.meta, "cut_from": solution.id},
    )
    return Folded(shorter, tuple(targets[:n]))
