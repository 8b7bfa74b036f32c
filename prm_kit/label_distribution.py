"""A label as a distribution over the classes (-1, 0, +1), and what a neutral policy makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prm_kit.records import LabelValue, NeutralPolicy, StepLabel

Distribution = tuple[float, float, float]

ONE_HOT: Mapping[LabelValue, Distribution] = {-1: (1.0, 0.0, 0.0), 0: (0.0, 1.0, 0.0), 1: (0.0, 0.0, 1.0)}


def label_distribution(label: StepLabel, prefer_shares: bool = False) -> Distribution | None:
    """A label's distribution: its value if it has one, else its shares, else None (masked); or shares first."""
    if prefer_shares and label.shares is not None:
        return label.shares
    return ONE_HOT[label.value] if label.value is not None else label.shares


def fold_neutral(distribution: Distribution, policy: NeutralPolicy) -> Distribution | None:
    """Move the mass on 0 as `policy` says; None if nothing is left.

    "keep": it stays; "positive": to +1; "negative": to -1; "half": half to +1, half to -1; "drop": it is left out and
    the other shares are scaled up to 1.
    """
    wrong, neutral, right = distribution
    if policy == "keep" or neutral == 0.0:
        return distribution
    if policy == "positive":
        return wrong, 0.0, right + neutral
    if policy == "negative":
        return wrong + neutral, 0.0, right
    if policy == "half":
        return wrong + neutral / 2, 0.0, right + neutral / 2
    rest = wrong + right
    return (wrong / rest, 0.0, right / rest) if rest > 1e-6 else None


def mean(several: Sequence[Distribution]) -> Distribution:
    """The mean, class by class; of equals exactly what they are."""
    if all(one == several[0] for one in several):
        return several[0]
    wrong, neutral, right = (sum(column) / len(several) for column in zip(*several, strict=True))
    return wrong, neutral, right
