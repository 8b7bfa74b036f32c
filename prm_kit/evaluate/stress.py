"""Attack a scorer: how often does what must follow from a change of a solution follow?

The result is one plain dict that JSON can hold: schema, name, about, settings (seed, resamples, level, aggregation,
holds, leading), data (right, wrong: solutions attacked), scorers [{name, role}], attacks [{name, kind, what, scorers
{name: rate (a figure over problems), passed, failed, refused, abstained, holds, failure (an example, or null)}}],
warnings and notes. A refusal by name (a sequence too long, say) is neither passed nor failed; it is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from prm_kit.errors import InputError
from prm_kit.evaluate.attacks import ATTACKS, CONTROL, Attack, Trial
from prm_kit.evaluate.baselines import ALL_CORRECT, ALL_CORRECT_NAME, ConstantScorer, RandomScorer
from prm_kit.evaluate.bootstrap import Bootstrap, problem_numbers, ratio, sums_by_problem
from prm_kit.evaluate.first_error import NO_ERROR, true_first_errors
from prm_kit.evaluate.length import score_or_nan
from prm_kit.records import Labelled, Solution
from prm_kit.score import StepScorer, StepScores

HOLDS = 0.95
"""An attack is withstood where at least this share of its trials passes."""

MARGIN = 0.1
"""A number has not risen while it is higher by no more than this share of half the range of the scorer's values."""

Answer = StepScores | InputError


@dataclass(frozen=True)
class _Made:
    """The trials of one attack, with the labels of the solution that each is made from."""

    attack: Attack
    trials: list[tuple[Trial, Labelled]]


def stress(
    labelled: Sequence[Labelled],
    scorer: StepScorer,
    *,
    name: str,
    aggregation: str = "min",
    each: int | None = 100,
    about: Mapping[str, Any] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    progress: Callable[[str, int, int | None, str], None] | None = None,
) -> dict[str, Any]:
    """Run every attack on a scorer, and on two that know nothing: a constant and a random one.

    Args:
        labelled: Solutions with labels: right ones have no step labelled -1 and none unjudged, wrong ones a first
            step labelled -1 and every step before it judged.
        scorer: The scorer.
        name: Of the data.
        aggregation: How its steps make a solution's score.
        each: Attack at most so many right and so many wrong solutions, drawn by their ids; None: all.
        about: What was run, for the header of reports.
        seed: Of everything drawn.
        resamples: How many resamples an interval is made of.
        progress: Called as progress(stage, done, total, "").

    Raises:
        InputError: No solution can be attacked.
    """
    right, wrong = _drawn(labelled, each)
    if not right and not wrong:
        raise InputError(f"{name}: no solution whose labels settle its first error, so there is nothing to attack")
    made = [_trials(attack, right if attack.kind == "right" else wrong, seed) for attack in ATTACKS]
    solutions = {one.id: one for of in made for trial, _ in of.trials for one in (trial.original, trial.changed)}
    scorers: list[StepScorer] = [scorer, ConstantScorer(ALL_CORRECT_NAME, ALL_CORRECT), RandomScorer(seed)]
    said: dict[str, dict[str, Answer]] = {}
    for number, one in enumerate(scorers):
        if progress:
            progress("stress", number, len(scorers), one.name)
        said[one.name] = dict(zip(solutions, answers_or_refusals(one, list(solutions.values())), strict=True))
    attacks = [
        {"name": of.attack.name, "kind": of.attack.kind, "what": of.attack.what}
        | {"scorers": {one: _outcome(of, said[one], aggregation, resamples, seed) for one in said}}
        for of in made
    ]
    return {
        "schema": 1,
        "name": name,
        "about": dict(about or {}),
        "settings": {
            "seed": seed, "resamples": resamples, "level": 0.95, "aggregation": aggregation, "holds": HOLDS,
            "margin": MARGIN, "leading": scorer.name,
        },
        "data": {"right": len(right), "wrong": len(wrong)},
        "scorers": [{"name": one.name, "role": "model" if one is scorer else "baseline"} for one in scorers],
        "attacks": attacks,
        "warnings": _warnings(attacks, scorer.name),
        "notes": [
            "a constant scorer passes whatever may not rise and fails whatever must fall: only both kinds of trials "
            "together say something",
            f"'not higher' leaves a margin of {MARGIN:.0%} of half the range of the scorer's values",
        ],
    }  # fmt: skip


def answers_or_refusals(scorer: StepScorer, solutions: Sequence[Solution]) -> list[Answer]:
    """Score all; where the scorer refuses, halve until it is clear which solutions it refuses.

    Only an `InputError` is about a solution: a server that is not there, or a limit that is reached, ends the attacks.
    """
    try:
        return list(scorer.score(solutions))
    except InputError as refusal:
        if len(solutions) == 1:
            return [refusal]
    half = len(solutions) // 2
    return [*answers_or_refusals(scorer, solutions[:half]), *answers_or_refusals(scorer, solutions[half:])]


def verdict(trial: Trial, item: Labelled, said: Mapping[str, Answer], aggregation: str, scale: float) -> bool | str:
    """Whether a trial passes; "refused" or "abstained" where the numbers for it are not there.

    Args:
        trial: The trial.
        item: The original with its labels.
        said: The scorer's answers by solution id.
        aggregation: How steps make a solution's score.
        scale: Half the range of the scorer's values.
    """
    before, after = said[trial.original.id], said[trial.changed.id]
    if isinstance(before, InputError) or isinstance(after, InputError):
        return "refused"
    ours = _number(after, trial.of, aggregation)
    if trial.against == "own step":
        theirs = _number(after, trial.step, aggregation)
    elif trial.against == "original right steps":
        labels = item.annotation.values(len(item.solution.spans))
        values = [x for x, label in zip(before.values, labels, strict=True) if label == 1 and x is not None]
        theirs = float(np.mean(values)) if values else float("nan")
    else:
        theirs = _number(before, trial.step, aggregation)
    if not np.isfinite(ours) or not np.isfinite(theirs):
        return "abstained"
    return bool(ours < theirs) if trial.must == "fall" else bool(ours <= theirs + MARGIN * scale)


def _drawn(
    labelled: Sequence[Labelled], each: int | None
) -> tuple[list[tuple[Labelled, int]], list[tuple[Labelled, int]]]:
    """Right and wrong solutions with the index of the first error (0 of right ones), each solution once."""
    sides: tuple[dict[str, tuple[Labelled, int]], dict[str, tuple[Labelled, int]]] = ({}, {})
    for item, error in zip(labelled, true_first_errors(labelled).tolist(), strict=True):
        if item.solution.spans and error >= NO_ERROR and not (error == NO_ERROR and item.solution.is_correct is False):
            sides[error >= 0].setdefault(item.solution.id, (item, max(error, 0)))
    right, wrong = ([side[key] for key in sorted(side)][:each] for side in sides)
    return right, wrong


def _trials(attack: Attack, items: Sequence[tuple[Labelled, int]], seed: int) -> _Made:
    found = []
    for item, error in items:
        trial = attack.make(item, error, Random(f"{seed}:{attack.name}:{item.solution.id}"))  # noqa: S311
        if trial is not None:
            found.append((trial, item))
    return _Made(attack, found)


def _number(score: StepScores, step: int | None, aggregation: str) -> float:
    value = score_or_nan(score, aggregation) if step is None else score.values[step]
    return float("nan") if value is None else value


def _outcome(of: _Made, said: Mapping[str, Answer], aggregation: str, resamples: int, seed: int) -> dict[str, Any]:
    known = [score for score in said.values() if isinstance(score, StepScores)]
    values = [x for score in known if not score.is_bounded for x in score.values if x is not None]
    scale = (max(values) - min(values)) / 2 if values else 1.0
    verdicts = [verdict(trial, item, said, aggregation, scale) for trial, item in of.trials]
    decided = [index for index, found in enumerate(verdicts) if isinstance(found, bool)]
    problem = problem_numbers([of.trials[index][1].solution.problem for index in decided])
    bootstrap = Bootstrap(max(1, int(problem.max(initial=-1)) + 1), resamples, seed)
    passed = np.array([float(verdicts[index]) for index in decided])
    sums = sums_by_problem(problem, np.stack([np.ones(len(passed)), passed], axis=1), bootstrap.n_problems)
    replicates = bootstrap.of_sums(sums, lambda drawn: ratio(drawn[:, 1], drawn[:, 0]))
    rate = float(passed.mean()) if len(passed) else None
    failed = next((index for index, found in enumerate(verdicts) if found is False), None)
    return {
        "rate": bootstrap.measure(rate, replicates, len(passed)),
        "passed": verdicts.count(True),
        "failed": verdicts.count(False),
        "refused": verdicts.count("refused"),
        "abstained": verdicts.count("abstained"),
        "holds": None if rate is None else rate >= HOLDS,
        "failure": None if failed is None else _failure(of.trials[failed][0], said, aggregation),
    }


def _failure(trial: Trial, said: Mapping[str, Answer], aggregation: str) -> dict[str, Any]:
    after = said[trial.changed.id]
    steps, problem = trial.changed.steps, trial.changed.problem
    text = "\n".join(steps) if trial.of is None else steps[trial.of]
    number = _number(after, trial.of, aggregation) if isinstance(after, StepScores) else float("nan")
    return {"original": trial.original.id, "problem": problem, "step": trial.of, "text": text, "number": number}


def _warnings(attacks: Sequence[Mapping[str, Any]], leading: str) -> list[str]:
    holds = {attack["name"]: attack["scorers"][leading]["holds"] for attack in attacks}
    fallen = [name for name, held in holds.items() if held is False and name != CONTROL]
    untried = [name for name, held in holds.items() if held is None]
    found = [f"{leading} falls for: {', '.join(fallen)}"] if fallen else []
    if holds[CONTROL] is False:
        found.append(f"{leading} does not see the errors in the first place: what wrong steps do not gain says little")
    refused = sum(attack["scorers"][leading]["refused"] for attack in attacks)
    if refused:
        found.append(f"{leading} refused {refused} attacked solutions: they are neither passed nor failed")
    return [*found, *([f"no trial was possible or answered: {', '.join(untried)}"] if untried else [])]
