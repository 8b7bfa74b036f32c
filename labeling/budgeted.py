"""A rollout labeller that never samples more than it was allowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from itertools import chain
from typing import Protocol

from labeling.continuations import Spent
from labeling.labeler import Labeler
from labeling.omega import OmegaLabeler
from labeling.rollout_settings import RolloutSettings
from prm_kit.records import Annotation, Labelled, Rater, Solution


class Bounded(Labeler, Protocol):
    """A labeller that knows beforehand how many rollouts a solution takes at most."""

    def most_rollouts(self, solution: Solution, settings: RolloutSettings) -> int:
        """Rollouts that labelling a solution takes at most."""
        ...


class Budgeted:
    """Admits solutions while the dearest way through them fits into what is left; implements `Labeler`.

    Args:
        labeler: The labeller.
        spent: What it has sampled so far, kept by its `Continuations`.
        settings: Its settings.
        max_rollouts: Most rollouts of this object's life; None: no limit.
        max_tokens: Most sampled tokens of this object's life; None: no limit.
        needs_reference: Whether solutions without a reference answer cannot be judged.

    Attributes:
        passed_over: Solutions that no rollout can label, by reason.
        explorations: Solutions that `explored` handed over.
        stopped: Whether a solution was turned away that might not fit even alone.
    """

    def __init__(
        self,
        labeler: Bounded,
        spent: Spent,
        settings: RolloutSettings,
        *,
        max_rollouts: int | None = None,
        max_tokens: int | None = None,
        needs_reference: bool = True,
    ) -> None:
        self.passed_over: Counter[str] = Counter()
        self.stopped = False
        self.explorations = 0
        self._labeler = labeler
        self._spent = spent
        self._settings = settings
        self._max_rollouts = max_rollouts
        self._max_tokens = max_tokens
        self._needs_reference = needs_reference
        self._waiting: list[Solution] = []  # turned away, for the next time
        self._admitted = 0  # rollouts that the solutions admitted and not yet labelled may take

    @property
    def rater(self) -> Rater:
        """Who signs the annotations."""
        return self._labeler.rater

    def admitted(self, solutions: Iterator[Solution], done: Set[str]) -> Iterator[Solution]:
        """The solutions to label, up to the first that might not fit beside those before it.

        Once they are labelled it is known what they took, so ask again for the rest until nothing comes.

        Args:
            solutions: What there is, the same iterator each time; those passed over are counted.
            done: Ids of solutions that cost nothing, because they were labelled before; left out.
        """
        waiting, self._waiting = self._waiting, []
        for solution in chain(waiting, solutions):
            if solution.id in done:
                continue
            if not solution.spans:
                self.passed_over["no steps"] += 1
            elif self._needs_reference and solution.reference_answer is None:
                self.passed_over["no reference answer"] += 1
            elif self._fits(solution):
                yield solution
            else:
                self._waiting = [solution]
                self.stopped = self._admitted == 0
                return

    def spent_so_far(self) -> dict[str, int]:
        """What was sampled: distinct prefixes, rollouts by outcome, and tokens."""
        spent = self._spent
        return {
            "prefixes": spent.prefixes,
            "rollouts": spent.rollouts,
            "tokens": spent.tokens,
            **{key: spent.outcomes[key] for key in ("reached", "missed", "truncated", "undecided")},
        }

    def label(self, solutions: Sequence[Solution]) -> Iterator[Annotation]:
        """Label solutions that were admitted."""
        yield from self._labeler.label(solutions)
        self._admitted = 0

    def explored(self) -> list[Labelled]:
        """Solutions that the labeller came by and labelled too, since it was last asked."""
        found = self._labeler.explored() if isinstance(self._labeler, OmegaLabeler) else []
        self.explorations += len(found)
        return found

    def _fits(self, solution: Solution) -> bool:
        admitted = self._admitted + self._labeler.most_rollouts(solution, self._settings)
        rollouts = self._spent.rollouts + admitted
        tokens = self._spent.tokens + admitted * self._settings.max_new_tokens
        if (self._max_rollouts is not None and rollouts > self._max_rollouts) or (
            self._max_tokens is not None and tokens > self._max_tokens
        ):
            return False
        self._admitted = admitted
        return True
