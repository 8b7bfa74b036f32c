"""What a PRM is trained and judged on, made from annotated solutions, with the account of what became of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from prm_kit.errors import InputError
from prm_kit.examples import Example, ExampleSet, class_masses, examples_of, examples_sha256
from prm_kit.objective_kinds import OBJECTIVE_KINDS
from prm_kit.records import Labelled
from prm_kit.segments import Encoder
from prm_kit.targets import TargetSet, targets_of
from prm_kit.train_settings import TrainSettings


class TrainingData(NamedTuple):
    """Encoded training and development examples.

    Attributes:
        train: To learn from; never empty, of two classes at least.
        dev: To judge by; may be empty.
        masses: Target mass per class (-1, 0, +1) in training, class weights not applied.
        account: What became of every solution and label, as JSON data.
        warnings: What a person should know before believing the figures.
    """

    train: list[Example]
    dev: list[Example]
    masses: tuple[float, float, float]
    account: dict[str, Any]
    warnings: list[str]

    @property
    def prior(self) -> tuple[float, float, float]:
        """Share of each class in training."""
        wrong, neutral, right = (mass / sum(self.masses) for mass in self.masses)
        return wrong, neutral, right

    def fingerprint(self) -> dict[str, str]:
        """Hashes of everything that the model is shown."""
        return {"train": examples_sha256(self.train), "dev": examples_sha256(self.dev)}


def training_data(
    train_set: Iterable[Labelled],
    dev_set: Iterable[Labelled],
    encoder: Encoder,
    settings: TrainSettings,
    max_tokens: int | None,
) -> TrainingData:
    """Make targets and examples of both sets.

    The development set keeps the labels as they are but for the neutral policy and the target, so that a model is
    judged by what it is trained for.

    Args:
        train_set: To learn from.
        dev_set: To judge by; may be empty.
        encoder: The PRM's encoder.
        settings: Objective, target, neutral policy, masking, class weights and what to do with long solutions.
        max_tokens: Longest sequence; None: no limit.

    Raises:
        InputError: A label does not fit its solution, a solution is too long and may not be, or nothing can be learnt
            because there is no target or one class only.
    """
    kind = OBJECTIVE_KINDS[settings.objective]

    def targets(labelled: Iterable[Labelled]) -> TargetSet:
        return targets_of(
            labelled,
            target=settings.target,
            neutral_policy=settings.neutral_policy,
            mask_after_first_error=settings.mask_after_first_error,
            prefer_shares=kind.soft,
            whole_solutions=kind.whole_solutions,
        )

    def encoded(found: TargetSet) -> ExampleSet:
        # Backbones are causal: what stands after the last step that is read changes nothing.
        return examples_of(found.items, encoder, max_tokens=max_tokens, too_long=settings.too_long, cut_tail=True)

    train_targets, dev_targets = targets(train_set), targets(dev_set)
    train, dev = encoded(train_targets), encoded(dev_targets)
    if not isinstance(settings.class_weights, str):
        train = _with_weight(train, settings.class_weights)
    if kind.whole_solutions:
        train = _ranked(train)
    masses = class_masses(train.examples)
    if sum(mass > 0 for mass in masses) < 2:
        raise InputError(
            f"nothing to learn: the training targets are of {sum(mass > 0 for mass in masses)} of the classes "
            f"(mass on -1, 0, +1: {masses}). Account: {_account(train_targets, train)}"
        )
    account = {"train": _account(train_targets, train), "dev": _account(dev_targets, dev)}
    warnings = _warnings(train_targets, dev_targets, class_masses(dev.examples))
    return TrainingData(train.examples, dev.examples, masses, account, warnings)


def sample_like(examples: Sequence[Example], number: int) -> list[Example]:
    """At most `number` examples, spread evenly over all: what training metrics are measured on."""
    if len(examples) <= number:
        return list(examples)
    return [examples[i * len(examples) // number] for i in range(number)]


def _with_weight(found: ExampleSet, class_weights: Sequence[float]) -> ExampleSet:
    kept = [example for example in found.examples if float((example.targets @ np.array(class_weights)).sum()) > 0]
    lost = len(found.examples) - len(kept)
    return ExampleSet(kept, found.dropped | ({"sequences of class weight 0": lost} if lost else {}))


def _ranked(found: ExampleSet) -> ExampleSet:
    kept = [example for example in found.examples if (example.targets[:, 2] != example.targets[:, 0]).any()]
    lost = len(found.examples) - len(kept)
    return ExampleSet(kept, found.dropped | ({"sequences without a right or wrong step": lost} if lost else {}))


def _account(targets: TargetSet, found: ExampleSet) -> dict[str, Any]:
    read = sum(len(example.positions) for example in found.examples)
    return targets.account() | {
        "sequences": len(found.examples),
        "tokens": sum(found.lengths),
        "steps_read": read,
        "dropped_sequences": found.dropped,
    }


def _warnings(train: TargetSet, dev: TargetSet, dev_masses: Sequence[float]) -> list[str]:
    problems = {item.solution.problem for item in train.items}
    shared = len(problems & {item.solution.problem for item in dev.items})
    unfinished = train.outcome_from.get("labels of a branch", 0)
    checks: dict[str, bool] = {
        f"{shared} problems of the development set are in the training set too: its figures are flattered": shared > 0,
        f"{train.conflicts} steps carry labels that disagree; the mean of them is trained on": train.conflicts > 0,
        f"{unfinished} outcomes are labels of the last step of unfinished branches, not of final answers": unfinished
        > 0,
        "the development targets are of one class only: early stopping by them says little": (
            bool(dev.items) and sum(mass > 0 for mass in dev_masses) < 2
        ),
    }
    return [text for text, is_so in checks.items() if is_so]
