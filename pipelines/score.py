"""`prm-kit score`: a PRM scores every step of a data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Out, Output
from pipelines.scorers import Family, Reference

if TYPE_CHECKING:
    from prm_kit.records import Solution
    from prm_kit.score import StepScorer, StepScores

BATCH = 128
"""Solutions per write: what a killed run scores again, at most."""


def command(
    checkpoint: Annotated[str, typer.Argument(help="Folder or hub id of a PRM, or the address of a server.")],
    inputs: Annotated[list[Path], typer.Argument(help="Snapshot directories, or files that `prm-kit import` reads.")],
    out: Out,
    aggregation: Annotated[str | None, typer.Option(help="min, last, product or mean; default: the card's.")] = None,
    family: Family = None,
    reference: Reference = None,
    as_json: Json = False,
) -> None:
    """Write OUT/scores.jsonl, one line per solution; run the same command again to resume."""
    from pipelines.data import snapshots_of, solutions
    from pipelines.scorers import aggregation_of, scorer_of
    from prm_kit.aggregate import AGGREGATIONS
    from prm_kit.errors import UsageError, unknown_name
    from prm_kit.run_directory import RunDirectory

    if aggregation is not None and aggregation not in AGGREGATIONS:
        raise unknown_name("aggregation", aggregation, AGGREGATIONS)
    output = Output(as_json)
    run = RunDirectory(out)
    recipe = {"checkpoint": checkpoint, "inputs": [str(path) for path in inputs], "aggregation": aggregation}
    recipe |= {key: value for key, value in (("family", family), ("reference", reference)) if value}
    asked = out / "recipe.yaml"
    if (out / "scores.jsonl").exists() and asked.exists():
        import yaml

        if yaml.safe_load(asked.read_text(encoding="utf-8")) != recipe:
            raise UsageError(f"{out} holds the scores of another command; choose another --out")
    run.start(recipe)
    scorer = scorer_of(checkpoint, "prm", family=family, reference=reference)
    rule = aggregation or aggregation_of(scorer)
    with output.progress() as progress, run.timed("score"):
        every = solutions(snapshots_of(inputs, out / "imported", progress))
        scored = score_into(out / "scores.jsonl", scorer, every, rule, lambda n: progress("score", n, None, ""))
    run.finish({"solutions": len(scored), "aggregation": rule, "scores": "scores.jsonl", "checkpoint": checkpoint})
    output.summary(out / "summary.json")


def score_into(
    path: Path,
    scorer: StepScorer,
    solutions: Iterable[Solution],
    aggregation: str,
    progress: Callable[[int], None],
) -> dict[str, StepScores]:
    """Score what `path` does not hold yet, append batch by batch, and return every score by solution id.

    Each line: solution_id, score (the steps' p_ok aggregated; of unbounded scores the values), values and
    probabilities per step, and `unbounded` and `uncertainty` where the scorer gives them.
    """
    from prm_kit.aggregate import solution_score

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        found = _complete_lines(file)
        todo = (solution for solution in solutions if solution.id not in found)
        while batch := list(islice(todo, BATCH)):
            unique = list({solution.id: solution for solution in batch}.values())
            for solution, scores in zip(unique, scorer.score(unique), strict=True):
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
            progress(len(found))
    return found


def _complete_lines(file: Any) -> dict[str, StepScores]:
    """Read the complete lines; a half-written last one is cut off."""
    from prm_kit.score import StepScores

    file.seek(0)
    found = {}
    end = 0
    while (line := file.readline()).endswith("\n"):
        row = json.loads(line)
        more = {key: tuple(row[key]) for key in ("unbounded", "uncertainty") if key in row}
        found[row["solution_id"]] = StepScores(tuple(tuple(p) if p else None for p in row["probabilities"]), **more)
        end = file.tell()
    file.truncate(end)
    return found
