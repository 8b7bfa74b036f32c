"""The protocol of whoever labels steps: a rule, a judge, a PRM, rollouts, a construction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from prm_kit.records import Annotation, Rater, Solution

WITHDRAWN = "withdrawn"
"""Flag of an annotation without labels by which a rater takes back what it said before: for consensus, quality and the
queue it is then as if the rater had never seen the solution."""


class Labeler(Protocol):
    """Solutions in, one annotation each out, in order.

    A labeller that has nothing to say of a solution still returns an annotation, one without labels, so that what it
    covers can be counted.
    """

    @property
    def rater(self) -> Rater:
        """Who signs the annotations; its version changes whenever the labels would."""
        ...

    def label(self, solutions: Sequence[Solution]) -> Iterator[Annotation]:
        """Label every solution."""
        ...
