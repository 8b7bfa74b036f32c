"""`prm-kit search`: a policy writes solutions, a step scorer says which beginnings are worth going on with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Out, Output

if TYPE_CHECKING:
    from prm_kit.records import Problem
    from prm_kit.search import Candidate, Found, Search
    from prm_kit.tasks.task import Task

TOGETHER = 32
"""Problems that are searched side by side: what a killed run does again, at most."""


def command(
    task: Annotated[str, typer.Argument(help="arithmetic, file:PATH (problems with answers), reasoning-gym:NAME.")],
    policy: Annotated[Path, typer.Option(help="Directory of the policy: a Hugging Face causal model.")],
    prm: Annotated[str, typer.Option(help="Who scores the steps: a checkpoint, a released PRM, or a server's URL.")],
    out: Out,
    method: Annotated[str, typer.Option(help="best-of-n, beam or dvts.")] = "beam",
    n: Annotated[int, typer.Option(help="Solutions sampled, or prefixes side by side after every step.")] = 16,
    width: Annotated[int, typer.Option(help="Next steps sampled of each kept prefix; n / width are kept.")] = 4,
    step: Annotated[str, typer.Option(help="Where a step ends: newline or blank_line.")] = "newline",
    aggregation: Annotated[str, typer.Option(help="Of step scores: last, min, product or mean.")] = "last",
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of a solution.")] = 1024,
    max_steps: Annotated[int, typer.Option(help="Most steps of a solution.")] = 40,
    temperature: Annotated[float, typer.Option(help="Of the sampling.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Of the sampling and of which problems are drawn.")] = 0,
    split: Annotated[str, typer.Option(help="Problems of which split: train, dev or test.")] = "test",
    problems: Annotated[int | None, typer.Option(help="How many problems; default: all there are.")] = None,
    together: Annotated[int, typer.Option(min=1, help="Problems searched side by side.")] = TOGETHER,
    rows: Annotated[int, typer.Option(min=1, help="Rollouts decoded at once; bounds the memory.")] = 256,
    as_json: Json = False,
) -> None:
    """Write OUT/found.jsonl, a problem a line with its solutions, best first; run the same command again to resume."""
    from pipelines.scorers import fingerprint_of
    from prm_kit.run_directory import RunDirectory
    from prm_kit.search_settings import SearchSettings
    from prm_kit.settings import validated
    from prm_kit.training_state import check_same_inputs

    asked = {
        "method": method,
        "n": n,
        "width": width,
        "step": step,
        "aggregation": aggregation,
        "max_new_tokens": max_new_tokens,
        "max_steps": max_steps,
        "temperature": temperature,
        "seed": seed,
    }
    settings = validated(SearchSettings, asked, "command line")
    about = {"task": task, "split": split, "problems": problems, "policy": str(policy), "prm": prm, **asked}
    about["sha256"] = {name: found for name in (str(policy), prm) if (found := fingerprint_of(name))}
    output, run = Output(as_json), RunDirectory(out)
    with output.progress() as progress, run.timed("search"):
        from pipelines.scorers import scorer_of
        from pipelines.task import opened
        from prm_kit.engines.transformers_engine import TransformersEngine
        from prm_kit.policy import Policy
        from prm_kit.search import Search
        from prm_kit.train_start import chosen_device

        loaded = Policy.load(policy, chosen_device("auto"))
        searching = Search(loaded, TransformersEngine(loaded.model, max_rows=rows), scorer_of(prm, "prm"), settings)
        with opened(task) as its_task:
            drawn = its_task.problems(split, problems, seed)  # type: ignore[arg-type]
            searching.check(drawn)
            # Not before all else is in order: what is refused leaves no trace.
            check_same_inputs(out / "inputs.json", about)
            run.start({"search": about})
            search_into(out / "found.jsonl", searching, drawn, its_task, together, progress)
        counts = snapshot_of(out / "found.jsonl", out / "solutions", task)
    run.finish({**about, **counts, "picked": picked(out / "found.jsonl", aggregation, seed)})
    output.figures(json.loads((out / "summary.json").read_text(encoding="utf-8")))
    output.summary(out / "summary.json")


def search_into(
    path: Path,
    searching: Search,
    problems: Sequence[Problem],
    task: Task,
    together: int,
    progress: Callable[[str, int, int | None, str], None],
) -> None:
    """Search for the problems that `path` does not hold yet, and append a line of each."""
    from prm_kit.files import complete_lines

    with path.open("a+", encoding="utf-8") as file:
        done = len(list(complete_lines(file, path, lambda line: line["problem"], "problem")))
        todo = problems[done:]
        for start in range(0, len(todo), together):
            progress("search", done + start, len(problems), "")
            before = vars(searching.spent).copy()
            found = searching.run(todo[start : start + together])
            spent = {key: value - before[key] for key, value in vars(searching.spent).items()}
            for number, item in enumerate(found):
                # What a batch cost stands on its first line: the sum over lines is what the run cost.
                line = _line(item, task) | ({"spent": spent} if number == 0 else {})
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
        progress("search", len(problems), len(problems), "")


def _line(item: Found, task: Task) -> dict[str, Any]:
    def values(one: Candidate) -> dict[str, Any]:
        solution = one.solution
        return {
            "completion": solution.completion,
            "spans": solution.spans,
            "final_answer": solution.final_answer,
            "is_correct": False if one.ended == "length" else task.verify(item.problem, solution.completion),
            "ended": one.ended,
            "tokens": len(one.ids),
            "score": one.score,
            "values": one.scores and one.scores.values,
        }

    return {
        "problem": item.problem.text,
        "reference_answer": item.problem.reference_answer,
        "candidates": [values(one) for one in item.candidates],
    }


def snapshot_of(path: Path, folder: Path, name: str) -> dict[str, Any]:
    """Make a snapshot of every solution found, each different one once, and count: what other verbs read.

    Returns:
        problems, solutions, different_solutions, right, undecided (nobody could judge the answer), ended {how: number},
        spent {what: number}.
    """
    import shutil

    from prm_kit.records import Solution
    from prm_kit.snapshot import SnapshotWriter

    shutil.rmtree(folder, ignore_errors=True)
    counts: Counter[str] = Counter(problems=0, solutions=0, different_solutions=0, right=0, undecided=0)
    ended: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    with SnapshotWriter(folder, name=name, format="searched") as writer:
        for line in _lines(path):
            counts["problems"] += 1
            spent.update(line.get("spent", {}))
            ranks: dict[str, list[int]] = {}
            for rank, one in enumerate(line["candidates"]):
                ranks.setdefault(one["completion"], []).append(rank)
                ended[one["ended"]] += 1
                counts.update(solutions=1, right=one["is_correct"] is True, undecided=one["is_correct"] is None)
            for numbers in ranks.values():
                one = line["candidates"][numbers[0]]
                counts["different_solutions"] += 1
                writer.add(
                    Solution(
                        line["problem"],
                        one["completion"],
                        tuple((start, end) for start, end in one["spans"]),
                        final_answer=one["final_answer"],
                        reference_answer=line["reference_answer"],
                        is_correct=one["is_correct"],
                        source=name,
                        # `samples`: its places, best first
                        meta={"samples": numbers, "ended": one["ended"]},
                    )
                )
    return {**counts, "ended": dict(ended), "spent": dict(spent)}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def picked(path: Path, aggregation: str, seed: int) -> dict[str, Any]:
    """Share of problems answered rightly by the solution that the search likes best, and by other ways to pick one.

    An answer that nobody could judge counts as wrong.
    """
    from prm_kit.evaluate.best_of_n import Candidate, picks

    candidates = [
        Candidate(line["problem"], one["final_answer"], one["is_correct"] is True, {aggregation: _rank(one)})
        for line in _lines(path)
        for one in line["candidates"]
    ]
    return picks(candidates, seed=seed) if candidates else {}


def _rank(one: dict[str, Any]) -> float | None:
    """The score that solutions are picked by: one that was cut off is picked only where nothing else is."""
    return None if one["ended"] == "length" else one["score"]
