"""`prm-kit score`: a PRM scores every step of a data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.output import Json, Out, Output

BATCH = 256
"""Solutions per write: what a killed run scores again, at most."""


def command(
    checkpoint: Annotated[Path, typer.Argument(help="Directory of a trained PRM.")],
    inputs: Annotated[list[Path], typer.Argument(help="Snapshot directories, or files that `prm-kit import` reads.")],
    out: Out,
    aggregation: Annotated[str | None, typer.Option(help="min, last, product or mean; default: the card's.")] = None,
    as_json: Json = False,
) -> None:
    """Write OUT/scores.jsonl, one line per solution; run the same command again to resume."""
    from pipelines.data import snapshots_of, solutions
    from prm_kit.aggregate import solution_score
    from prm_kit.errors import UsageError
    from prm_kit.files import write_json
    from prm_kit.prm_scorer import PrmScorer
    from prm_kit.run_directory import RunDirectory

    output = Output(as_json)
    run = RunDirectory(out)
    recipe = {"checkpoint": str(checkpoint), "inputs": [str(path) for path in inputs], "aggregation": aggregation}
    if (out / "asked.json").exists() and json.loads((out / "asked.json").read_text()) != recipe:
        raise UsageError(f"{out} holds the scores of another command; choose another --out")
    write_json(out / "asked.json", recipe)
    run.start(recipe)
    scorer = PrmScorer.load(checkpoint)
    rule = aggregation or scorer.prm.card.aggregation
    with output.progress() as progress, run.timed("score"), (out / "scores.jsonl").open("a+", encoding="utf-8") as file:
        done = _already_scored(file)
        every = solutions(snapshots_of(inputs, out / "imported", progress))
        todo: Iterator[Any] = (solution for solution in every if solution.id not in done)
        while batch := list(islice(todo, BATCH)):
            for solution, scores in zip(batch, scorer.score(batch), strict=True):
                line = {
                    "solution_id": solution.id,
                    "score": solution_score(scores, rule),
                    "values": scores.values,
                    "probabilities": scores.probabilities,
                }
                file.write(json.dumps(line, allow_nan=False) + "\n")
                done.add(solution.id)
            file.flush()
            progress("score", len(done), None, "")
    run.finish({"solutions": len(done), "aggregation": rule, "scores": "scores.jsonl", "scorer": scorer.name})
    output.summary(out / "summary.json")


def _already_scored(file: Any) -> set[str]:
    """Ids of the complete lines; a half-written last line is cut off."""
    file.seek(0)
    done = set()
    end = 0
    for line in iter(file.readline, ""):
        if not line.endswith("\n"):
            break
        done.add(json.loads(line)["solution_id"])
        end = file.tell()
    file.truncate(end)
    return done
