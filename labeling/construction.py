"""Solutions that were spoilt on purpose: wrong and idle steps of kinds that no policy makes yet, with known labels.

A PRM that has only seen the mistakes of one policy scores those that it will invent as right. Each construction starts
from a right solution and spoils it at one step (`labeling.corruptions`):

- steps before keep the labels that the source has, if somebody is relied on who labelled them
- the spoilt step has the label that follows from how it was made
- steps after have none, unless a step was put in that changes nothing for them
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random

from labeling.corruptions import CORRUPTIONS, FILLERS, Change, Source, right_answer
from labeling.draft import Draft
from prm_kit.answers import extract_final_answer
from prm_kit.errors import UsageError, unknown_name
from prm_kit.quantities import parse_quantity, plain_text, same_quantity
from prm_kit.records import Annotation, Labelled, LabelValue, Rater, Solution, StepLabel, step_hash

VERSION = "1"
"""Goes up whenever a label would come out differently."""

LabelSteps = Callable[[Solution], Sequence[LabelValue]]
"""Labels every step of a solution exactly."""

_KEPT_META = ("split", "subset", "split_key")


class Constructor:
    """Makes labelled constructions of right solutions. What it makes of a solution depends on it and the seed alone.

    Args:
        kinds: Names of corruptions; None: all.
        per_solution: Constructions of one solution at most; None: one of each kind that finds an occasion.
        seed: Of the choices.
        fillers: What a filler step says; "{result}" in it stands for the last result before.
        label_steps: A program that labels every step exactly. With it all labels are its own, and dropped and swapped
            steps are labelled too; without it these two kinds are never made.
        program: The program's name.

    Attributes:
        counts: What was made by kind, and how many solutions or kinds were passed over, by reason.
    """

    def __init__(
        self,
        kinds: Sequence[str] | None = None,
        per_solution: int | None = None,
        seed: int = 0,
        fillers: Sequence[str] = FILLERS,
        label_steps: LabelSteps | None = None,
        program: str = "",
    ) -> None:
        for kind in kinds or ():
            if kind not in CORRUPTIONS:
                raise unknown_name("corruption", kind, CORRUPTIONS)
        if per_solution is not None and per_solution < 1:
            raise UsageError(f"{per_solution} constructions of a solution: at least 1 is needed")
        if not fillers or not all(text.strip() for text in fillers):
            raise UsageError("a filler step needs a text")
        self.counts: Counter[str] = Counter()
        self.rater = Rater("construction", "prm-kit-construction", f"{VERSION}-{program}" if program else VERSION)
        self._kinds = list(kinds or CORRUPTIONS)
        self._per_solution = per_solution
        self._seed = seed
        self._fillers = fillers
        self._label_steps = label_steps

    @property
    def made(self) -> int:
        """How many constructions were made so far."""
        return sum(count for what, count in self.counts.items() if what.startswith("made"))

    def construct(self, solution: Solution, relied_on: Annotation | None = None) -> Iterator[Labelled]:
        """Spoil one solution in several ways.

        Args:
            solution: The solution.
            relied_on: Labels of it that are relied on, by people or a program.
        """
        values = relied_on.values(len(solution.spans)) if relied_on else (None,) * len(solution.spans)
        if reason := _unfit(solution, values):
            self.counts[f"passed over: {reason}"] += 1
            return
        source = Source(solution, Draft.of(solution), values, self._fillers)
        random = Random(f"construct {self._seed} {solution.id}")  # noqa: S311
        made = 0
        for kind in random.sample(self._kinds, len(self._kinds)):
            if made == self._per_solution:
                break
            change = CORRUPTIONS[kind](source, random)
            if change is None:
                self.counts[f"no occasion: {kind}"] += 1
            elif change.value is None and self._label_steps is None:
                self.counts[f"no certain label: {kind}"] += 1
            else:
                yield self._labelled(source, kind, change)
                self.counts[f"made: {kind}"] += 1
                made += 1

    def _labelled(self, source: Source, kind: str, change: Change) -> Labelled:
        old = source.solution
        completion, spans = change.draft.joined()
        meta = {key: old.meta[key] for key in _KEPT_META if key in old.meta}
        new = Solution(
            old.problem,
            completion,
            spans,
            reference_answer=old.reference_answer,
            generator=f"{kind} of {old.generator or 'unknown'}",
            source="construction",
            licence=old.licence,
            meta={**meta, "corruption": kind, "parent": old.id, "branch_step": change.at, "parent_source": old.source},
        )
        new = _with_outcome(new, old)
        if self._label_steps is not None:
            values: Sequence[LabelValue | None] = self._label_steps(new)
        else:
            after = source.values[change.at :] if change.inserted else ()
            values = (*source.values[: change.at], change.value, *after)
        labels = tuple(
            StepLabel(step, value, step_hash(text), comment=f"{kind}: {change.why}" if step == change.at else None)
            for step, (text, value) in enumerate(zip(new.steps, values, strict=False))
            if value is not None
        )
        return Labelled(new, Annotation(new.id, self.rater, labels, meta={"steps": len(spans)}))


def _unfit(solution: Solution, values: Sequence[LabelValue | None]) -> str | None:
    """Why a solution is not one to spoil."""
    if len(solution.spans) < 2:
        return "fewer than two steps"
    if solution.is_correct is False or -1 in values:
        return "not a right solution"
    if solution.is_correct is None and None in values:
        return "not known to be right"
    return None


def _with_outcome(new: Solution, old: Solution) -> Solution:
    """The final answer that the new text states, and whether it is right: as in the source where it says the same."""
    stated = extract_final_answer(new.completion)
    if stated == extract_final_answer(old.completion):
        return dataclasses.replace(new, final_answer=old.final_answer, is_correct=old.is_correct)
    right = right_answer(old)
    if stated is None or right is None:
        return dataclasses.replace(new, final_answer=stated, is_correct=False if stated is None else None)
    a, b = (parse_quantity(plain_text(text)) for text in (stated, right))
    return dataclasses.replace(new, final_answer=stated, is_correct=same_quantity(a, b) if a and b else None)
