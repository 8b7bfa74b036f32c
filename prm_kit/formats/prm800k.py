"""PRM800K: trees of rated alternatives by people (arXiv 2305.20050; README of openai/prm800k).

The path follows `chosen_completion`, else `human_completion`. Every candidate that was not chosen is a branch of its
own: the chosen steps before it and that candidate, labelled at the candidate only, because the steps before it are
labelled once, in the trunk. A step that a person wrote has no rating and gets no label.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from prm_kit.errors import InputError
from prm_kit.formats.folding import Holds
from prm_kit.formats.format import (
    Format,
    Item,
    Judged,
    Layout,
    Reading,
    Row,
    as_list,
    as_mapping,
    as_text,
    branch_of,
)
from prm_kit.formats.prm800k_rows import write_tree
from prm_kit.record_checks import check_text
from prm_kit.records import Annotation, LabelValue, Rater, Solution, StepLabel, step_hash

ANSWER_MARK = "# Answer\n\n"
"""PRM800K's last steps state the final answer after this."""

_QUESTION_KEYS = (
    "pre_generated_steps",
    "pre_generated_answer",
    "pre_generated_verifier_score",
    "ground_truth_solution",
)


class Prm800kLayout(Layout):
    """Options.

    Attributes:
        separator: What stands between two steps of the completion.
    """

    separator: str = "\n\n"


@dataclass(frozen=True)
class _Candidate:
    number: int | None  # place among the completions; None: written by the labeller
    text: str
    rating: LabelValue | None
    flagged: bool

    @property
    def by_hand(self) -> bool:
        return self.number is None


def read_row(row: Row, layout: Prm800kLayout) -> Reading:
    """One row: the trunk first (where anything was chosen), then one solution per candidate that was not chosen."""
    question, label = as_mapping(row.value, "question"), as_mapping(row.value, "label")
    reading = Reading()
    chosen, alternatives = _path(as_list(label, "steps"), reading)
    tree = _Tree(row, question, label, layout)
    items: dict[str, Item] = {}
    trunk = tree.trunk(chosen) if chosen else None
    if trunk is not None:
        _add(items, trunk, tree.trunk_annotation(trunk, chosen), reading)
    for step, candidate in alternatives:
        if not candidate.text.strip():
            reading.notes["an alternative without text was left out"] += 1
            continue
        branch = tree.branch(trunk, chosen, step, candidate, whole=not items)
        _add(items, branch, tree.branch_annotation(branch, step, candidate, whole=not items), reading)
    if not items:
        raise InputError("label.steps: no completion at all")
    reading.items = list(items.values())
    return reading


def _path(steps: Sequence[Any], reading: Reading) -> tuple[list[_Candidate], list[tuple[int, _Candidate]]]:
    chosen: list[_Candidate] = []
    alternatives: list[tuple[int, _Candidate]] = []
    for index, step in enumerate(steps):
        key = f"label.steps[{index}]"
        if not isinstance(step, Mapping):
            raise InputError(f"{key}: {type(step).__name__} is not an object")
        candidates = _candidates(step, key)
        reading.seen.update(str(candidate.rating) for candidate in candidates)
        if len(chosen) < index and candidates:
            raise InputError(f"{key}: follows a step at which nothing was chosen")
        picked = _picked(step, candidates, key)
        if picked is not None:
            if not picked.text.strip():
                raise InputError(f"{key}: the chosen step is empty")
            chosen.append(picked)
        alternatives += [(index, candidate) for candidate in candidates if candidate is not picked]
    return chosen, alternatives


def _candidates(step: Mapping[str, Any], key: str) -> list[_Candidate]:
    found = []
    for number, completion in enumerate(step.get("completions") or []):
        if not isinstance(completion, Mapping):
            raise InputError(f"{key}.completions[{number}]: not an object")
        found.append(_candidate(number, completion, f"{key}.completions[{number}]"))
    human = step.get("human_completion")
    if isinstance(human, str):
        human = {"text": human}
    if human is not None:
        found.append(_candidate(None, human, f"{key}.human_completion"))
    return found


def _candidate(number: int | None, value: Mapping[str, Any], key: str) -> _Candidate:
    rating = value.get("rating")
    if rating is not None and (isinstance(rating, bool) or rating not in (-1, 0, 1)):
        raise InputError(f"{key}.rating: not -1, 0, 1 or null")
    text = as_text(value, "text")
    check_text(f"{key}.text", text)
    return _Candidate(
        number, text, None if rating is None else cast(LabelValue, int(rating)), bool(value.get("flagged"))
    )


def _picked(step: Mapping[str, Any], candidates: Sequence[_Candidate], key: str) -> _Candidate | None:
    number = step.get("chosen_completion")
    if number is None:
        return next((candidate for candidate in candidates if candidate.by_hand), None)
    for candidate in candidates:
        if candidate.number == number and not isinstance(number, bool):
            return candidate
    raise InputError(f"{key}.chosen_completion: {number!r} is not one of its completions")


class _Tree:
    """Makes the solutions and annotations of one row."""

    def __init__(self, row: Row, question: Mapping[str, Any], label: Mapping[str, Any], layout: Prm800kLayout) -> None:
        self.row, self.question, self.label, self.layout = row, question, label, layout
        self.problem = as_text(question, "problem")
        generation = row.value.get("generation")
        self.subset = "phase1" if generation is None else "phase2"
        self.rater: Rater = layout.rater("human", row.optional_text("labeler") or "unknown", "prm800k")
        self.time = iso_utc(row.value.get("timestamp"))
        self.flags = tuple(
            word
            for word, on in (
                ("quality_control", row.value.get("is_quality_control_question")),
                ("screening", row.value.get("is_initial_screening_question")),
                ("bad_problem", label.get("finish_reason") == "bad_problem"),
                ("give_up", label.get("finish_reason") == "give_up"),
            )
            if on
        )

    def trunk(self, chosen: Sequence[_Candidate]) -> Solution:
        return self._solution([candidate.text for candidate in chosen], **self._problem_meta())

    def branch(
        self, trunk: Solution | None, chosen: Sequence[_Candidate], step: int, candidate: _Candidate, *, whole: bool
    ) -> Solution:
        meta = self._problem_meta() if whole else {}
        texts = [before.text for before in chosen[:step]] + [candidate.text]
        return self._solution(texts, **meta, parent=trunk.id if trunk else None, branch_step=step)

    def _solution(self, steps: Sequence[str], **meta: Any) -> Solution:
        fields = self.layout.fields("prm800k", self.row, subset=self.subset, **meta)
        _, mark, answer = steps[-1].rpartition(ANSWER_MARK)
        return Solution.from_steps(
            self.problem,
            steps,
            self.layout.separator,
            final_answer=answer.strip() if mark else None,
            reference_answer=self.question.get("ground_truth_answer"),
            **fields,
        )

    def _problem_meta(self) -> dict[str, Any]:
        return {key: self.question.get(key) for key in _QUESTION_KEYS}

    def trunk_annotation(self, solution: Solution, chosen: Sequence[_Candidate]) -> Annotation:
        labels = tuple(
            StepLabel(step, candidate.rating, step_hash(candidate.text))
            for step, candidate in enumerate(chosen)
            if candidate.rating is not None
        )
        by_hand = [step for step, candidate in enumerate(chosen) if candidate.by_hand]
        flagged = [step for step, candidate in enumerate(chosen) if candidate.flagged]
        numbers = [candidate.number for candidate in chosen]
        return self._annotation(solution, labels, by_hand, flagged, whole=True, chosen_completions=numbers)

    def branch_annotation(self, solution: Solution, step: int, candidate: _Candidate, *, whole: bool) -> Annotation:
        label = StepLabel(step, candidate.rating, step_hash(candidate.text))
        return self._annotation(
            solution,
            (label,) if candidate.rating is not None else (),
            [step] if candidate.by_hand else [],
            [step] if candidate.flagged else [],
            whole=whole,
            parent=solution.meta.get("parent"),
            branch_step=step,
            alternative=candidate.number,
        )

    def _annotation(
        self,
        solution: Solution,
        labels: tuple[StepLabel, ...],
        by_hand: list[int],
        flagged: list[int],
        *,
        whole: bool,
        **meta: Any,
    ) -> Annotation:
        row = {"generation": self.row.value.get("generation"), "finish_reason": self.label.get("finish_reason")}
        kept = {
            "row_id": self.row.place,
            **(row if whole else {}),
            **meta,
            "human_written_steps": by_hand or None,
            "flagged_steps": flagged or None,
        }
        milliseconds = self.label.get("total_time")
        return Annotation(
            solution.id,
            self.rater,
            labels,
            time=self.time,
            flags=self.flags,
            # The time is of the whole row: on the first annotation only, or adding up would count it many times.
            lead_time=milliseconds / 1000 if whole and isinstance(milliseconds, int | float) else None,
            meta={key: value for key, value in kept.items() if value is not None},
        )


def _add(items: dict[str, Item], solution: Solution, annotation: Annotation, reading: Reading) -> None:
    known = items.get(solution.id)
    if known is None:
        items[solution.id] = Item(solution, (annotation,))
        return
    if any(set(annotation.labels) <= set(other.labels) for other in known.annotations):
        reading.notes["an alternative given twice with the same rating was kept once"] += 1
    else:
        reading.notes["an alternative was given twice with different ratings, both kept"] += 1
        items[solution.id] = Item(known.solution, (*known.annotations, annotation))


def iso_utc(value: Any) -> str:
    """ISO 8601 in UTC; a time without zone is UTC (so PRM800K's are). "" where there is none.

    Raises:
        InputError: It is no time.
    """
    if value is None or value == "":
        return ""
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise InputError("timestamp: not an ISO 8601 time") from None
    return (time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)).isoformat()


def tree_key(solution: Solution, annotation: Annotation | None) -> Hashable:
    """Trunk and branches of one pass belong together: same trunk, same rater, same time."""
    parent, step = branch_of(solution, annotation)
    root: Hashable = parent or solution.id
    if parent is None and step is not None:
        root = ("row", {**solution.meta, **(annotation.meta if annotation else {})}.get("row_id"))
    return root, annotation and (annotation.rater, annotation.time)


def write_rows(group: Sequence[Judged], layout: Prm800kLayout) -> dict[str, Any]:
    """One trunk with its branches, or a lone solution, as one row."""
    return write_tree(group)


PRM800K = Format(
    name="prm800k",
    about="PRM800K: rated alternatives per step, a tree",
    layout=Prm800kLayout,
    read=read_row,
    write=write_rows,
    holds=lambda layout: Holds(neutral=True, missing=True),
    tree=tree_key,
)
