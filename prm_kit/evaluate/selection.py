"""Best-of-N, votes and pass@N for the solutions of an evaluation whose outcome is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prm_kit.aggregate import AGGREGATIONS
from prm_kit.answer_text import extract_final_answer
from prm_kit.evaluate.best_of_n import MAJORITY, ORACLE, RANDOM, Candidate, curves
from prm_kit.evaluate.inputs import is_bounded
from prm_kit.evaluate.length import score_or_nan
from prm_kit.quantities import plain_text
from prm_kit.records import Labelled, Solution
from prm_kit.score import StepScores

PICKS = {"best": "best by ", "vote": "vote by "}


def selection_table(
    labelled: Sequence[Labelled], scores: Mapping[str, Sequence[StepScores]], seed: int = 0, resamples: int = 1000
) -> dict[str, Any] | None:
    """Curves over N for every scorer and aggregation, beside random, majority and oracle.

    Candidates are the different solutions whose final answer is known to be right or wrong, of problems that have at
    least two; one that was sampled several times (a list in `meta.samples`) counts as often. Answers vote as text,
    cleaned of LaTeX's dressing; one that the solution's record does not state is looked for in its text. A scorer's
    votes need scores of at least 0 for every candidate: an unbounded scorer, or one that abstains, has none.

    Args:
        labelled: The evaluated solutions.
        scores: Answers by scorer, in the order of the lines.
        seed: Of resamples and drawn subsets.
        resamples: How many resamples an interval is made of.

    Returns:
        sizes, problems (counting at each size), candidates, sampled, stated (candidates that state an answer), and
        lines [{name, pick, scorer, aggregation, figures}]; None where no problem has two such solutions.
    """
    kept = _candidates(labelled)
    if not kept:
        return None
    ways = {(scorer, how): f"{scorer}, {how}" for scorer in scores for how in AGGREGATIONS}
    number = {way: [score_or_nan(scores[way[0]][index], way[1]) for index in kept] for way in ways}
    ways = {way: name for way, name in ways.items() if np.isfinite(number[way]).any()}
    voted = [ways[way] for way in ways if is_bounded(scores[way[0]]) and np.isfinite(number[way]).all()]
    candidates: list[Candidate] = []
    for at, index in enumerate(kept):
        solution = labelled[index].solution
        values = {name: _number(number[way][at]) for way, name in ways.items()}
        one = Candidate(solution.problem, stated_answer(solution), bool(solution.is_correct), values)
        candidates += [one] * _copies(solution)
    found = curves(candidates, voted=voted, seed=seed, resamples=resamples)
    stated = sum(candidate.final_answer is not None for candidate in candidates)
    lines = [_line(RANDOM), *([_line(MAJORITY)] if stated else []), _line(ORACLE)]
    for way, name in ways.items():
        picks = [pick for pick in PICKS if pick == "best" or (stated and name in voted)]
        lines += [_line(f"{PICKS[pick]}{name}", pick, *way) for pick in picks]
    return {
        **{key: found[key] for key in ("sizes", "problems", "sampled")},
        "candidates": len(candidates),
        "stated": stated,
        "lines": [line | {"figures": found["curves"][line["name"]]} for line in lines],
    }


def stated_answer(solution: Solution) -> str | None:
    """What a solution votes for, as comparable text; None where it states nothing."""
    answer = solution.final_answer or extract_final_answer(solution.completion)
    return (plain_text(answer) or answer.strip() or None) if answer else None


def _candidates(labelled: Sequence[Labelled]) -> list[int]:
    """Indices of the candidates, each solution once."""
    first: dict[str, int] = {}
    for index, (solution, _) in enumerate(labelled):
        if solution.is_correct is not None:
            first.setdefault(solution.id, index)
    count: dict[str, int] = {}
    for index in first.values():
        solution = labelled[index].solution
        count[solution.problem] = count.get(solution.problem, 0) + _copies(solution)
    return [index for index in first.values() if count[labelled[index].solution.problem] > 1]


def _copies(solution: Solution) -> int:
    samples = solution.meta.get("samples")
    return max(1, len(samples)) if isinstance(samples, list) else 1


def _number(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def _line(name: str, pick: str | None = None, scorer: str | None = None, how: str | None = None) -> dict[str, Any]:
    return {"name": name, "pick": pick or name, "scorer": scorer, "aggregation": how}
