"""The records everything else speaks in: problems, solutions with step spans, annotations with step labels.

What a label means, everywhere: +1 correct and moves on; 0 correct but adds nothing (restates, repeats, stalls);
-1 wrong, or impossible to verify; None not judged. A step is judged given the steps before it as written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

from prm_kit.errors import InputError, unknown_name
from prm_kit.record_checks import Span, check_meta, check_spans, check_text, join_steps

LabelValue = Literal[-1, 0, 1]
RaterKind = Literal["human", "judge", "rule", "rollout", "prm", "construction", "import", "merged", "simulated"]

LABEL_VALUES: tuple[LabelValue, ...] = (-1, 0, 1)
"""The label values in class order: class id = position in this tuple. Shares and probabilities use it too."""

NeutralPolicy = Literal["keep", "positive", "negative", "drop", "half"]
"""What becomes of label 0 where only two classes fit: it stays, goes to +1, goes to -1, is left out, or goes to both in
equal halves. Never chosen silently."""

RATER_KINDS: tuple[str, ...] = get_args(RaterKind)


@dataclass(frozen=True)
class Problem:
    """A task text with its reference answer.

    Attributes:
        text: What a policy is asked.
        reference_answer: The right final answer, or None where none is known.
        meta: Where it comes from (source, split, row); JSON values only.
    """

    text: str
    reference_answer: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Solution:
    """A problem's worked answer: the completion verbatim and the spans of its steps.

    Attributes:
        problem: The problem's text.
        completion: Verbatim text that a model (or a person) returned.
        spans: Per step (start, end) as character offsets into `completion`, in order, never empty or overlapping.
        final_answer: The answer that the completion states, or None where none was found.
        reference_answer: The right answer, or None. Not part of the id: correcting it orphans no label.
        is_correct: Whether the final answer is right as the source or a checker says; None unknown.
        generator: The model or person that wrote the completion.
        source: The data set it comes from.
        licence: The licence it comes under.
        meta: Provenance that has no field of its own; JSON values only. Keys used across the project: `row_id`
            (id in the source), `split`, `subset`, `parent` (id of the trunk solution of a branch), `branch_step`
            (index of the first step at which a branch leaves its parent).
    """

    problem: str
    completion: str
    spans: tuple[Span, ...]
    final_answer: str | None = None
    reference_answer: str | None = None
    is_correct: bool | None = None
    generator: str | None = None
    source: str = ""
    licence: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("problem", "completion", "source"):
            check_text(name, getattr(self, name))
        for name in ("final_answer", "reference_answer", "generator", "licence"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        check_meta(self.meta)
        check_spans(self.spans, self.completion)

    @cached_property
    def id(self) -> str:
        """Content address: 32 hex digits over problem, completion and spans. A re-split is another solution."""
        return solution_id(self.problem, self.completion, self.spans)

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps' texts."""
        return tuple(self.completion[start:end] for start, end in self.spans)

    @classmethod
    def from_steps(
        cls,
        problem: str,
        steps: Sequence[str],
        separator: str = "\n\n",
        **fields: Any,
    ) -> Solution:
        """Join `steps` into a completion. The spans come from the joining, so no text is searched for."""
        completion, spans = join_steps(steps, separator)
        return cls(problem, completion, spans, **fields)


@dataclass(frozen=True)
class Rater:
    """Whoever labels. `version` is whatever changes the labels: a prompt hash, a rule version, a checkpoint."""

    kind: RaterKind
    name: str
    version: str = ""

    def __post_init__(self) -> None:
        if self.kind not in RATER_KINDS:
            raise unknown_name("rater kind", self.kind, RATER_KINDS)
        if not self.name:
            raise InputError(f"a {self.kind} rater needs a name")


@dataclass(frozen=True)
class StepLabel:
    """One rater's value of one step.

    Attributes:
        step: 0-based index.
        value: -1, 0, +1, or None not judged.
        step_hash: Hash of the step's text, so that a label can never drift to another text.
        shares: Vote or rollout shares per class in the order (-1, 0, +1), summing to 1. A Monte-Carlo value v is
            (1 - v, 0, v). Soft labels live here and never in `value`.
        count: How many votes or rollouts the shares come from.
        stderr: Standard error of the share of +1.
        comment: What the rater wrote about this step.
        sources: For a merged label, the ids of the annotations it was made from.
    """

    step: int
    value: LabelValue | None
    step_hash: str
    shares: tuple[float, float, float] | None = None
    count: int | None = None
    stderr: float | None = None
    comment: str | None = None
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.value is not None and (self.value not in LABEL_VALUES or isinstance(self.value, bool)):
            raise InputError(f"step {self.step}: label {self.value!r} is not -1, 0, 1 or null")
        if self.shares is not None and not (
            len(self.shares) == 3
            and all(0.0 <= share <= 1.0 for share in self.shares)
            and abs(sum(self.shares) - 1.0) < 1e-6
        ):
            raise InputError(f"step {self.step}: shares {self.shares!r} are not three numbers in [0, 1] summing to 1")


@dataclass(frozen=True)
class Annotation:
    """One rater's pass over one solution.

    Attributes:
        solution_id: The solution that was judged.
        rater: Who judged.
        labels: At most one label a step, in step order; a step without one is not judged.
        time: ISO 8601 in UTC, or "" where the source has none.
        flags: Words such as "bad_problem", "wrong_reference", "not_sure", "quality_control".
        lead_time: Seconds spent, or None.
        comment: On the solution as a whole.
        meta: Provenance that has no field of its own; JSON values only.
    """

    solution_id: str
    rater: Rater
    labels: tuple[StepLabel, ...]
    time: str = ""
    flags: tuple[str, ...] = ()
    lead_time: float | None = None
    comment: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps = [label.step for label in self.labels]
        if any(b <= a for a, b in pairwise(steps)) or (steps and steps[0] < 0):
            raise InputError(f"annotation of {self.solution_id}: step indices {steps} are not increasing from 0")
        for comment in (self.comment, *(label.comment for label in self.labels), *self.flags):
            if comment is not None:
                check_text("a comment or flag", comment)
        check_meta(self.meta)

    @cached_property
    def id(self) -> str:
        """Content address: the same pass written twice is one annotation.

        The step hashes are left out: the solution's id already fixes every step's text.
        """
        return _digest(annotation_text(self))

    @property
    def timeless_id(self) -> str:
        """The id that it has without its time: equal for those that say the same."""
        return replace(self, time="").id

    @property
    def first_error(self) -> int | None:
        """Index of the first step labelled -1, None if none."""
        return next((label.step for label in self.labels if label.value == -1), None)

    def values(self, n_steps: int) -> tuple[LabelValue | None, ...]:
        """One value a step; None where the rater said nothing."""
        by_step = {label.step: label.value for label in self.labels}
        return tuple(by_step.get(step) for step in range(n_steps))

    @classmethod
    def of(
        cls,
        solution: Solution,
        rater: Rater,
        values: Sequence[LabelValue | None],
        **fields: Any,
    ) -> Annotation:
        """Annotate `solution` with one value per step (None: not judged, no label is stored).

        Raises:
            InputError: The number of values differs from the number of steps.
        """
        if len(values) != len(solution.spans):
            raise InputError(f"solution {solution.id}: {len(values)} labels for {len(solution.spans)} steps")
        labels = tuple(
            StepLabel(step, value, step_hash(text))
            for step, (value, text) in enumerate(zip(values, solution.steps, strict=True))
            if value is not None
        )
        return cls(solution.id, rater, labels, **fields)


class Labelled(NamedTuple):
    """A solution together with one annotation of it: the unit that training and evaluation read."""

    solution: Solution
    annotation: Annotation


def solution_id(problem: str, completion: str, spans: Iterable[Span]) -> str:
    """Return the content address of a solution. Lengths are written down, so no two texts run together."""
    where = ",".join(f"{start}-{end}" for start, end in spans)
    return _digest(f"{len(problem)}:{problem}{len(completion)}:{completion}{where}")


def step_hash(text: str) -> str:
    """Hash of one step's text."""
    return _digest(text)


def check_annotation(solution: Solution, annotation: Annotation) -> None:
    """Refuse an annotation that does not fit the solution it is about.

    Raises:
        InputError: It is about another solution, labels a step that is not there, or a step hash does not fit.
    """
    if annotation.solution_id != solution.id:
        raise InputError(f"annotation {annotation.id} is about solution {annotation.solution_id}, not {solution.id}")
    steps = solution.steps
    for label in annotation.labels:
        if label.step >= len(steps):
            raise InputError(f"solution {solution.id}: label of step {label.step}, but it has {len(steps)} steps")
        if label.step_hash != step_hash(steps[label.step]):
            raise InputError(
                f"solution {solution.id}, step {label.step}: the label was made for another text "
                f"(step hash {label.step_hash!r}, the text's is {step_hash(steps[label.step])!r})"
            )


def annotation_text(annotation: Annotation) -> str:
    """What `Annotation.id` is the hash of: JSON with sorted keys."""
    return json.dumps(annotation_fields(annotation), sort_keys=True, ensure_ascii=False)


def annotation_fields(annotation: Annotation) -> dict[str, Any]:
    """What an annotation says, as JSON values; the step hashes, which the solution's id fixes, are left out."""
    rater = annotation.rater
    return {
        "solution_id": annotation.solution_id,
        "rater": {"kind": rater.kind, "name": rater.name, "version": rater.version},
        "labels": [_label_fields(label) for label in annotation.labels],
        "time": annotation.time,
        "flags": list(annotation.flags),
        "lead_time": _float(annotation.lead_time),
        "comment": annotation.comment,
        "meta": dict(annotation.meta),
    }


def _label_fields(label: StepLabel) -> dict[str, Any]:
    fields = {
        "step": label.step,
        "shares": [float(share) for share in label.shares] if label.shares else None,
        "count": label.count,
        "stderr": _float(label.stderr),
        "comment": label.comment,
        "sources": list(label.sources) or None,
    }
    return {key: value for key, value in fields.items() if value is not None} | {"value": label.value}


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)  # 12 and 12.0 are one number, and have one text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]
