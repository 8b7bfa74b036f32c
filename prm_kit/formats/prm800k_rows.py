"""Write one tree of solutions as a PRM800K row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prm_kit.errors import InputError
from prm_kit.formats.format import Judged, branch_of

_QUESTION_KEYS = (
    "ground_truth_solution",
    "ground_truth_answer",
    "pre_generated_steps",
    "pre_generated_answer",
    "pre_generated_verifier_score",
)


def write_tree(group: Sequence[Judged]) -> dict[str, Any]:
    """One row from a trunk and its branches, in any order; a lone solution is a trunk.

    Raises:
        InputError: A branch does not leave its trunk where it says, or there are two trunks.
    """
    ids = {judged.solution.id for judged in group}
    branches = [judged for judged in group if _is_branch(judged, ids)]
    trunks = [judged for judged in group if not _is_branch(judged, ids)]
    if len(trunks) > 1:
        orphans = all(branch_of(judged.solution, judged.annotation)[0] for judged in trunks)
        raise InputError("the trunk of these branches is not exported" if orphans else "two trunks in one tree")
    trunk = trunks[0] if trunks else None
    steps = [_chosen_step(trunk, index) for index in range(len(trunk.solution.spans))] if trunk else []
    for branch in branches:
        _add_branch(steps, trunk, branch)
    return _row(trunk or branches[0], [_finished(step) for step in steps])


def _is_branch(judged: Judged, ids: set[str]) -> bool:
    parent, step = branch_of(judged.solution, judged.annotation)
    return step is not None and (parent is None or parent in ids)


class _Step:
    """The candidates of one step, by their place among the completions."""

    def __init__(self) -> None:
        self.completions: list[tuple[int, dict[str, Any]]] = []
        self.chosen: dict[str, Any] | None = None
        self.human: dict[str, Any] | None = None

    def add(self, judged: Judged, index: int, place: int | None, *, chosen: bool) -> None:
        meta = judged.annotation.meta if judged.annotation else {}
        candidate = {
            "text": judged.solution.steps[index],
            "rating": judged.folded.targets[index],
            "flagged": index in meta.get("flagged_steps", ()),
        }
        if index in meta.get("human_written_steps", ()):
            self.human = {**candidate, "source": "human"}
            return
        if chosen:
            self.chosen = candidate
        self.completions.append((len(self.completions) if place is None else place, candidate))


def _chosen_step(trunk: Judged, index: int) -> _Step:
    places = (trunk.annotation.meta if trunk.annotation else {}).get("chosen_completions") or []
    step = _Step()
    step.add(trunk, index, places[index] if index < len(places) else 0, chosen=True)
    return step


def _add_branch(steps: list[_Step], trunk: Judged | None, branch: Judged) -> None:
    _, at = branch_of(branch.solution, branch.annotation)
    assert at is not None
    texts = branch.solution.steps
    before = trunk.solution.steps[:at] if trunk else ()
    if len(texts) != at + 1 or texts[:at] != before:
        raise InputError(f"solution {branch.solution.id}: not its trunk's first {at} steps and one alternative")
    if at == len(steps):
        steps.append(_Step())
    place = branch.annotation.meta.get("alternative") if branch.annotation else None
    steps[at].add(branch, at, place, chosen=False)


def _finished(step: _Step) -> dict[str, Any]:
    completions = [candidate for _, candidate in sorted(step.completions, key=lambda placed: placed[0])]
    chosen = next((i for i, candidate in enumerate(completions) if candidate is step.chosen), None)
    return {"completions": completions, "human_completion": step.human, "chosen_completion": chosen}


def _row(head: Judged, steps: list[dict[str, Any]]) -> dict[str, Any]:
    solution, annotation = head.solution, head.annotation
    flags = annotation.flags if annotation else ()
    meta: Mapping[str, Any] = {
        **solution.meta,
        **(annotation.meta if annotation else {}),
        "ground_truth_answer": solution.reference_answer,
    }
    lead_time = annotation.lead_time if annotation else None
    return {
        "labeler": annotation.rater.name if annotation else None,
        "timestamp": annotation.time.removesuffix("+00:00") if annotation and annotation.time else None,
        "generation": meta.get("generation"),
        "is_quality_control_question": "quality_control" in flags,
        "is_initial_screening_question": "screening" in flags,
        "question": {
            "problem": solution.problem,
            **{key: meta[key] for key in _QUESTION_KEYS if meta.get(key) is not None},
        },
        "label": {
            "steps": steps,
            "total_time": None if lead_time is None else round(lead_time * 1000),
            "finish_reason": meta.get("finish_reason"),
        },
    }
