"""`prm-kit score`: a PRM scores every step of a data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from pipelines.output import Json, Out, Output
from pipelines.scorers import Family, Precision, Reference

if TYPE_CHECKING:
    from prm_kit.records import Solution
    from prm_kit.score import StepScorer, StepScores

BATCH = 128
"""Solutions per write: what a killed run scores again, at most."""

MaxRejectShare = Annotated[
    float, typer.Option(min=0, max=1, help="Fail at the end above this share of solutions that are too long.")
]


class Scored(NamedTuple):
    """What scoring gave.

    Attributes:
        scores: By solution id.
        rejected: What was too long: how many ("count"), "of" how many, the "first" reasons, the "file" that has all.
    """

    scores: dict[str, StepScores]
    rejected: dict[str, Any]


def command(
    checkpoint: Annotated[str, typer.Argument(help="Folder or hub id of a PRM, or the address of a server.")],
    inputs: Annotated[list[Path], typer.Argument(help="Snapshot directories, or files that `prm-kit import` reads.")],
    out: Out,
    aggregation: Annotated[str | None, typer.Option(help="min, last, product or mean; default: the card's.")] = None,
    family: Family = None,
    reference: Reference = None,
    precision: Precision = "auto",
    max_reject_share: MaxRejectShare = 0.01,
    as_json: Json = False,
) -> None:
    """Write OUT/scores.jsonl, one line per solution, and OUT/rejects.jsonl, what was too long; resumes when repeated.

    All that fits is scored whatever is rejected; too large a share of rejects then makes the command fail.
    """
    from pipelines.data import snapshots_of, solutions
    from pipelines.evaluate_inputs import identity
    from pipelines.scorers import aggregation_of, fingerprint_of, scorer_of
    from prm_kit.aggregate import AGGREGATIONS
    from prm_kit.errors import UsageError, unknown_name
    from prm_kit.run_directory import RunDirectory

    if aggregation is not None and aggregation not in AGGREGATIONS:
        raise unknown_name("aggregation", aggregation, AGGREGATIONS)
    output = Output(as_json)
    run = RunDirectory(out)
    recipe = {"checkpoint": checkpoint, "inputs": [str(path) for path in inputs], "aggregation": aggregation}
    recipe |= {key: value for key, value in (("family", family), ("reference", reference)) if value}
    recipe |= {"precision": precision} if precision != "auto" else {}
    if Path(checkpoint).is_dir():
        recipe["files"] = identity({"prm": checkpoint}, reference)
    elif served := fingerprint_of(checkpoint):
        recipe["served"] = served
    asked = out / "recipe.yaml"
    if (out / "scores.jsonl").exists() and asked.exists():
        import yaml

        if yaml.safe_load(asked.read_text(encoding="utf-8")) != recipe:
            raise UsageError(
                f"{out} holds the scores of another command, or of a model that has changed since; choose another --out"
            )
    run.start(recipe)
    scorer = scorer_of(checkpoint, "prm", family=family, reference=reference, precision=precision)
    rule = aggregation or aggregation_of(scorer)
    with output.progress() as progress, run.timed("score"):
        every = solutions(snapshots_of(inputs, out / "imported", progress))
        scored = score_into(out / "scores.jsonl", scorer, every, rule, lambda n: progress("score", n, None, ""))
    found = {"solutions": len(scored.scores), "rejected": scored.rejected, "aggregation": rule}
    run.finish(found | {"scores": "scores.jsonl", "checkpoint": checkpoint})
    output.summary(out / "summary.json")
    check_rejected(scored.rejected, max_reject_share)


def score_into(
    path: Path,
    scorer: StepScorer,
    solutions: Iterable[Solution],
    aggregation: str,
    progress: Callable[[int], None],
) -> Scored:
    """Score what `path` does not hold yet, append batch by batch, and return every score.

    Each line: solution_id, score (the steps' p_ok aggregated; of unbounded scores the values), values and
    probabilities per step, and `unbounded` and `uncertainty` where the scorer gives them. A solution that is too long
    is refused alone and stands in the rejects file beside `path`: solution_id, step (null: the whole solution), tokens,
    limit, reason.
    """
    from prm_kit.aggregate import solution_score
    from prm_kit.files import complete_lines, whole_file
    from prm_kit.transfer_counts import REPORTED_REJECTS

    path.parent.mkdir(parents=True, exist_ok=True)
    rejects: dict[str, dict[str, Any]] = {}
    asked: set[str] = set()

    def is_open(solution: Solution) -> bool:
        asked.add(solution.id)
        return solution.id not in found and solution.id not in rejects

    with path.open("a+", encoding="utf-8") as file:
        found = dict(complete_lines(file, path, _scores_of, "scores"))
        todo = filter(is_open, solutions)
        while batch := list(islice(todo, BATCH)):
            unique = list({solution.id: solution for solution in batch}.values())
            for solution, scores in _score_what_fits(scorer, unique, rejects):
                line = {
                    "solution_id": solution.id,
                    "score": solution_score(scores, aggregation),
                    "values": scores.values,
                    "probabilities": scores.probabilities,
                }
                more = {"unbounded": scores.unbounded, "uncertainty": scores.uncertainty}
                line |= {key: value for key, value in more.items() if value is not None}
                file.write(json.dumps(line, allow_nan=False) + "\n")
                found[solution.id] = scores
            file.flush()
            progress(len(asked))
    beside = path.with_name(path.name.replace("scores", "rejects"))
    with whole_file(beside) as refused:
        refused.writelines(json.dumps(reject) + "\n" for reject in rejects.values())
    first = [reject["reason"] for reject in islice(rejects.values(), REPORTED_REJECTS)]
    return Scored(found, {"count": len(rejects), "of": len(asked), "first": first, "file": beside.name})


def check_rejected(rejected: Mapping[str, Any], max_share: float) -> None:
    """Fail if too many solutions were refused.

    Args:
        rejected: As `Scored.rejected`.
        max_share: Share of the solutions that may be.

    Raises:
        InputError: There are more; the message shows the first ones.
    """
    from prm_kit.errors import InputError

    if rejected["count"] <= max_share * rejected["of"]:
        return
    shown = "\n".join(f"  {reason}" for reason in rejected["first"])
    raise InputError(
        f"{rejected['count']} of {rejected['of']} solutions are too long to be scored, more than the share of "
        f"{max_share:g} allowed (max_reject_share); all others are scored, these are in {rejected['file']}:\n{shown}"
    )


def _score_what_fits(
    scorer: StepScorer, solutions: Sequence[Solution], rejects: dict[str, dict[str, Any]]
) -> list[tuple[Solution, StepScores]]:
    """Score; solutions that are too long go to `rejects` one by one, so that the others are not held up by them."""
    from prm_kit.encode import TooLongError

    left = list(solutions)
    while left:
        try:
            return list(zip(left, scorer.score(left), strict=True))
        except TooLongError as error:
            rejects[error.solution_id] = {
                "solution_id": error.solution_id,
                "step": error.step,
                "tokens": error.tokens,
                "limit": error.limit,
                "reason": str(error),
            }
            fitting = [solution for solution in left if solution.id != error.solution_id]
            if len(fitting) == len(left):
                raise
            left = fitting
    return []


def _scores_of(row: dict[str, Any]) -> tuple[str, StepScores]:
    """A line of scores.jsonl: the solution's id and its scores."""
    from prm_kit.score import StepScores

    more = {key: tuple(row[key]) for key in ("unbounded", "uncertainty") if key in row}
    return row["solution_id"], StepScores(tuple(tuple(p) if p else None for p in row["probabilities"]), **more)
