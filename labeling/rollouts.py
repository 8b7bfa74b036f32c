"""Labels from rollouts: a step is as good as the answers that a policy reaches from it.

This is Math-Shepherd's estimate (arXiv 2312.08935). Of every prefix of a solution, the problem alone included,
`samples` continuations are sampled. Step k is judged by the prefix that ends with it:

+1    more than `threshold` of its continuations reach the reference answer (default: any does)
-1    they do not, and of some earlier prefix they do: what could be reached before can no longer be
null  they do not, and never did: the problem is beyond this policy, so nothing is said of the step

That estimates whether the answer can still be reached by this policy, which is not the same as being correct, and it
can say nothing of steps that add nothing: there is no 0. The share of continuations that reached the answer, their
number and the share's standard error are kept beside the value, or alone (method "soft").

The last prefix of a solution that states a final answer is not continued: that answer is the outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labeling.continuations import Continuations, Tally, share_stderr
from labeling.rollout_settings import RolloutSettings
from prm_kit.records import Annotation, LabelValue, Rater, Solution, StepLabel, step_hash

NEVER_SOLVED = "never_solved"
"""Flag of an annotation: no continuation of any prefix, the problem included, reached the answer."""

OWN_ANSWER = Tally()
"""Stands for the rollouts of a prefix that is a whole solution: nothing is sampled."""


class RolloutLabeler:
    """Labels every step by the rollouts of its prefix; implements `labeling.labeler.Labeler`.

    Solutions need a reference answer (or a judge that does without).

    Args:
        continuations: The policy's; its settings say how labels are made.
        rater: Signs the annotations.
    """

    def __init__(self, continuations: Continuations, rater: Rater) -> None:
        self.rater = rater
        self._continuations = continuations
        self._settings = continuations.settings

    @staticmethod
    def most_rollouts(solution: Solution, settings: RolloutSettings) -> int:
        """Rollouts that labelling a solution takes at most."""
        return (len(solution.spans) + 1) * settings.samples

    def label(self, solutions: Sequence[Solution]) -> Iterator[Annotation]:
        """Label every solution; the prefixes of all of them are continued together."""
        own = [own_outcome(solution, self._continuations) for solution in solutions]
        prefixes = self._continuations.prefixes(solutions)
        asked = [
            lists[:-1] if solution.final_answer is not None else lists
            for solution, lists in zip(solutions, prefixes, strict=True)
        ]
        tallies = iter(self._continuations.tally([prefix for lists in asked for prefix in lists]))
        for solution, verdict, lists in zip(solutions, own, asked, strict=True):
            yield self._annotate(solution, verdict, [next(tallies) for _ in lists])

    def _annotate(self, solution: Solution, own: bool | None, tallies: list[Tally | None]) -> Annotation:
        reaches = [None if tally is None else self._continuations.reaches(tally) for tally in tallies]
        shown = list(tallies)
        if len(tallies) == len(solution.spans):  # the last prefix is the whole solution, with its answer
            reaches.append(own)
            shown.append(None if own is None else OWN_ANSWER)
        labels = []
        for step, text in enumerate(solution.steps):
            label = self._label(step, step_hash(text), reaches[step + 1], shown[step + 1], any(reaches[: step + 1]))
            if label is not None:
                labels.append(label)
        flags = () if any(reaches) else (NEVER_SOLVED,)
        return Annotation(solution.id, self.rater, tuple(labels), flags=flags, meta=looked_at(solution, tallies))

    def _label(
        self, step: int, hashed: str, reaches: bool | None, tally: Tally | None, before: bool
    ) -> StepLabel | None:
        if reaches is None or tally is None:
            return None
        if not reaches and not before:
            return StepLabel(step, None, hashed, comment="no rollout reaches the answer, from here or from before")
        label = labelled_step(step, hashed, reaches, tally, self._settings)
        if self._settings.method == "soft":
            return StepLabel(step, None, hashed, label.shares, label.count, label.stderr)
        return label


def own_outcome(solution: Solution, continuations: Continuations) -> bool | None:
    """Whether the final answer that a solution states is right; None where it states none, or nobody can say."""
    if solution.final_answer is None:
        return None
    if solution.is_correct is not None:
        return solution.is_correct
    return continuations.judge(solution, solution.completion)


def labelled_step(step: int, hashed: str, reaches: bool, tally: Tally, settings: RolloutSettings) -> StepLabel:
    """A label of -1 or +1 with the estimate that it stands on."""
    value: LabelValue = 1 if reaches else -1
    if tally is OWN_ANSWER:
        return StepLabel(step, value, hashed, (0.0, 0.0, 1.0) if reaches else (1.0, 0.0, 0.0), 1, 0.0, "own answer")
    count = tally.count(settings)
    share = tally.reached / count
    return StepLabel(step, value, hashed, (1.0 - share, 0.0, share), count, share_stderr(tally.reached, count))


def looked_at(solution: Solution, tallies: Sequence[Tally | None]) -> dict[str, int]:
    """What an annotation's meta says: steps, prefixes continued, rollouts by outcome, and tokens.

    A prefix that several solutions share is counted with each of them.
    """
    known = [tally for tally in tallies if tally is not None]
    return {
        "steps": len(solution.spans),
        "prefixes": len(known),
        "prefixes_too_long": len(tallies) - len(known),
        "rollouts": sum(tally.sampled for tally in known),
        "reached": sum(tally.reached for tally in known),
        "truncated": sum(tally.truncated for tally in known),
        "undecided": sum(tally.undecided for tally in known),
        "tokens": sum(tally.tokens for tally in known),
    }
