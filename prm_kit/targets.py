"""From labels to what a PRM is trained on: per labelled step a distribution over the classes (-1, 0, +1).

A label without a value and without shares is masked: no class stands for "not judged". A label with shares and no
value stays soft. A label with both counts as its value, unless shares are what is learnt.

Each distinct (problem, steps so far, step) counts once, however many branches, imports or raters repeat it: where
repeats disagree the target is the mean of theirs, which gives the gradient of all of them at the weight of one.
Where the steps of a solution are compared with each other, each distinct solution counts once instead, with all its
labelled steps.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from prm_kit.errors import InputError
from prm_kit.label_distribution import ONE_HOT, Distribution, fold_neutral, label_distribution, mean
from prm_kit.records import (
    LABEL_VALUES,
    Annotation,
    Labelled,
    NeutralPolicy,
    Solution,
    check_annotation,
)

Target = Literal["steps", "outcome"]
"""What is learnt: every labelled step (a PRM), or at the last step whether the final answer is right (an ORM)."""


@dataclass(frozen=True)
class SolutionTargets:
    """The steps of one solution that are trained on.

    Attributes:
        solution: The solution.
        steps: Step indices, increasing, never empty.
        distributions: Per such step the target over (-1, 0, +1), summing to 1.
    """

    solution: Solution
    steps: tuple[int, ...]
    distributions: tuple[Distribution, ...]


@dataclass(frozen=True)
class TargetSet:
    """Targets of a data set and the account of what became of every label.

    Attributes:
        items: Solutions with at least one target, in the order given.
        labels: Labels as they came: how many -1, 0, +1, soft, null (null: steps without any label too).
        masses: Target mass per class (-1, 0, +1) after everything; sums to the number of targets.
        dropped_labels: Labels that became no target of their own, by reason.
        dropped_solutions: Solutions left out, by reason.
        conflicts: Steps whose repeats disagree (their target is a mean).
        outcome_from: For target "outcome": where they came from and how many: "is_correct", "labels", or "labels of a
            branch": a solution that ends at the step that was labelled, whose final answer nobody knows.
    """

    items: tuple[SolutionTargets, ...]
    labels: Mapping[str, int]
    masses: Distribution
    dropped_labels: Mapping[str, int] = field(default_factory=dict)
    dropped_solutions: Mapping[str, int] = field(default_factory=dict)
    conflicts: int = 0
    outcome_from: Mapping[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of targets."""
        return sum(len(item.steps) for item in self.items)

    @property
    def prior(self) -> Distribution:
        """Share of each class.

        Raises:
            InputError: There is no target.
        """
        total = sum(self.masses)
        if not total:
            raise InputError("no step carries a usable label")
        return (self.masses[0] / total, self.masses[1] / total, self.masses[2] / total)

    def account(self) -> dict[str, object]:
        """Everything but the items, as JSON data."""
        return {
            "solutions": len(self.items),
            "targets": self.count,
            "labels": dict(self.labels),
            "target_mass": {
                f"{value:+d}" if value else "0": m for value, m in zip(LABEL_VALUES, self.masses, strict=True)
            },
            "dropped_labels": dict(self.dropped_labels),
            "dropped_solutions": dict(self.dropped_solutions),
            "conflicting_repeats": self.conflicts,
            "outcome_from": dict(self.outcome_from),
        }


def targets_of(
    labelled: Iterable[Labelled],
    *,
    target: Target = "steps",
    neutral_policy: NeutralPolicy = "keep",
    mask_after_first_error: bool = False,
    prefer_shares: bool = False,
    whole_solutions: bool = False,
) -> TargetSet:
    """Turn annotated solutions into targets.

    Args:
        labelled: Solutions with one annotation each; a solution may come several times.
        target: "steps", or "outcome": one target at the last step, +1 or -1, from `is_correct` and, where that is
            null, from the labels: wrong after any -1, else right if the last step was judged, else unknown.
        neutral_policy: What becomes of the mass on 0, see `fold_neutral`. Outcomes have none.
        mask_after_first_error: Leave out what an annotation says after its first step that is surely wrong (value -1,
            or a share of 1 on -1). A step is judged given the steps before it as written, so such labels are sound
            by default; raters that call everything after an error wrong need this.
        prefer_shares: A label with both a value and shares counts as its shares.
        whole_solutions: Count each distinct solution once, not each distinct step.

    Raises:
        InputError: An annotation is of another solution, of a step that does not exist, or of another step's text.
    """
    labels: Counter[str] = Counter({"-1": 0, "0": 0, "+1": 0, "soft": 0, "null": 0})
    dropped: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    found: list[tuple[Solution, dict[int, Distribution]]] = []
    for solution, annotation in labelled:
        check_annotation(solution, annotation)
        _count_labels(solution, annotation, labels)
        if not solution.spans:
            lost["no steps"] += 1
            continue
        if target == "outcome":
            source, outcome = outcome_target(solution, annotation)
            sources.update([source] if outcome else [])
            chosen = {} if outcome is None else {len(solution.spans) - 1: outcome}
        else:
            chosen = step_targets(annotation, neutral_policy, mask_after_first_error, dropped, prefer_shares)
        if chosen:
            found.append((solution, chosen))
        else:
            lost["outcome unknown" if target == "outcome" else "no usable label"] += 1
    items, repeats, conflicts = _count_once(found, whole_solutions)
    if repeats:
        dropped["repeats another solution" if whole_solutions else "repeats another prefix and step"] += repeats
    if len(found) > len(items):
        lost["every label repeats another"] += len(found) - len(items)
    return TargetSet(items, dict(labels), _masses(items), dict(dropped), dict(lost), conflicts, dict(sources))


def step_targets(
    annotation: Annotation,
    neutral_policy: NeutralPolicy,
    mask_after_first_error: bool,
    dropped: Counter[str],
    prefer_shares: bool = False,
) -> dict[int, Distribution]:
    """Targets of one annotation by step; labels that give none are counted in `dropped` by reason."""
    targets: dict[int, Distribution] = {}
    after_error = False
    for label in annotation.labels:
        raw = label_distribution(label, prefer_shares)
        if raw is None:
            dropped["not judged"] += 1
        elif after_error and mask_after_first_error:
            dropped["after the first error"] += 1
        else:
            folded = fold_neutral(raw, neutral_policy)
            if folded is None:
                dropped["neutral"] += 1
            else:
                targets[label.step] = folded
        after_error = after_error or label.value == -1 or (raw is not None and raw[0] == 1.0)
    return targets


def outcome_target(solution: Solution, annotation: Annotation) -> tuple[str, Distribution | None]:
    """Where the outcome of a solution is known from, and its target; None where it is not known."""
    if solution.is_correct is not None:
        return "is_correct", ONE_HOT[1 if solution.is_correct else -1]
    source = "labels of a branch" if "branch_step" in solution.meta else "labels"
    distributions = {label.step: label_distribution(label) for label in annotation.labels}
    if any(d is not None and d[0] == 1.0 for d in distributions.values()):
        return source, ONE_HOT[-1]
    last = distributions.get(len(solution.spans) - 1)
    return source, last and fold_neutral(last, "positive")


def prefix_keys(solution: Solution) -> list[bytes]:
    """Per step a digest of the problem and the steps up to and with it: equal digests read equal text."""
    digest = hashlib.blake2b(f"{len(solution.problem)}:{solution.problem}".encode(), digest_size=16)
    keys, previous = [], 0
    for start, end in solution.spans:
        digest.update(f"{start - previous},{end - start}:{solution.completion[previous:end]}".encode())
        keys.append(digest.digest())
        previous = end
    return keys


def _count_once(
    found: Sequence[tuple[Solution, dict[int, Distribution]]], whole_solutions: bool
) -> tuple[tuple[SolutionTargets, ...], int, int]:
    """Items in which every (prefix, step) stands once, the number of repeats taken out, and of steps in conflict.

    With whole solutions: those whose labelled steps are all the same stand once; every step still has the mean of what
    is said of it anywhere.
    """
    said: dict[bytes, list[Distribution]] = {}
    keys: list[list[bytes]] = []
    for solution, chosen in found:
        all_keys = prefix_keys(solution)
        keys.append([all_keys[step] for step in chosen])
        for key, distribution in zip(keys[-1], chosen.values(), strict=True):
            said.setdefault(key, []).append(distribution)
    conflicts = sum(len(set(several)) > 1 for several in said.values())
    if whole_solutions:
        first = {tuple(its): index for index, its in reversed(list(enumerate(keys)))}
        means = {key: mean(several) for key, several in said.items()}
        whole = [
            SolutionTargets(solution, tuple(chosen), tuple(means[key] for key in its))
            for index, ((solution, chosen), its) in enumerate(zip(found, keys, strict=True))
            if first[tuple(its)] == index
        ]
        return tuple(whole), sum(map(len, keys)) - sum(len(item.steps) for item in whole), conflicts
    repeats = sum(len(several) - 1 for several in said.values())
    items = []
    for (solution, chosen), its_keys in zip(found, keys, strict=True):
        kept = {step: mean(said.pop(key)) for step, key in zip(chosen, its_keys, strict=True) if key in said}
        if kept:
            items.append(SolutionTargets(solution, tuple(kept), tuple(kept.values())))
    return tuple(items), repeats, conflicts


def _masses(items: Iterable[SolutionTargets]) -> Distribution:
    total = [0.0, 0.0, 0.0]
    for item in items:
        for distribution in item.distributions:
            for k, mass in enumerate(distribution):
                total[k] += mass
    return total[0], total[1], total[2]


def _count_labels(solution: Solution, annotation: Annotation, counts: Counter[str]) -> None:
    counts["null"] += len(solution.spans) - len(annotation.labels)
    for label in annotation.labels:
        if label.value is not None:
            counts[f"{label.value:+d}" if label.value else "0"] += 1
        else:
            counts["soft" if label.shares is not None else "null"] += 1
