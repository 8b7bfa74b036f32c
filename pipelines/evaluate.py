"""`prm-kit eval`: PRMs, an outcome model and the trivial baselines against labelled solutions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Out, Output

if TYPE_CHECKING:
    from pipelines.recipe import EvaluateStage
    from prm_kit.records import Labelled

Progress = Callable[[str, int, int | None, str], None]

ORM = "orm"
"""Name of the outcome model, which is reported as a baseline."""


def command(
    checkpoint: Annotated[Path, typer.Argument(help="Directory of a trained PRM.")],
    out: Out,
    data: Annotated[list[Path], typer.Option("--data", help="Labelled snapshot or importable file; repeatable.")],
    dev: Annotated[list[Path] | None, typer.Option(help="Where the threshold is chosen; default: fixed at 0.")] = None,
    train: Annotated[list[Path] | None, typer.Option(help="Training data, for the fitted baselines.")] = None,
    orm: Annotated[Path | None, typer.Option(help="Checkpoint of an outcome model, as a baseline.")] = None,
    ledger: Annotated[Path | None, typer.Option(help="Ledger with annotations made here.")] = None,
    rater_kind: Annotated[list[str] | None, typer.Option(help="Only raters of this kind; repeatable.")] = None,
    subset_by: Annotated[str, typer.Option(help="Key of meta that names a solution's subset.")] = "subset",
    per_subset: Annotated[int | None, typer.Option(min=1, help="At most so many solutions of each subset.")] = None,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Step metrics, the ProcessBench protocol, calibration and baselines, as a table, JSON and an HTML report."""
    from pipelines.data import labelled_solutions, snapshots_of
    from pipelines.recipe import EvaluateStage
    from prm_kit.report import print_tables, write_report
    from prm_kit.run_directory import RunDirectory

    output = Output(as_json)
    run = RunDirectory(out)
    settings = EvaluateStage(sources=[str(d) for d in data], subset_by=subset_by, per_subset=per_subset)
    models = {"prm": checkpoint} | ({ORM: orm} if orm else {})
    run.start({"models": {name: str(path) for name, path in models.items()}, **settings.model_dump(mode="json")})

    with output.progress() as progress, run.timed("evaluate"):

        def rows(paths: Sequence[Path] | None) -> list[Labelled]:
            if not paths:
                return []
            return labelled_solutions(snapshots_of(paths, out / "imported", progress), ledger, rater_kind or ())

        evaluation = evaluate_models(
            models,
            rows(data),
            dev=rows(dev),
            dev_name=", ".join(map(str, dev or ())),
            train=rows(train),
            settings=settings,
            seed=seed,
            name=", ".join(path.name for path in data),
            about={"checkpoint": str(checkpoint)},
            folder=out,
            progress=progress,
        )
    write_report(out / "report.html", evaluation)
    run.finish(evaluation)
    if not as_json:
        print_tables(evaluation, output.console)
        output.say(f"report: {out / 'report.html'}")
    output.summary(out / "summary.json")


def evaluate_models(
    models: Mapping[str, Path],
    rows: Sequence[Labelled],
    *,
    dev: Sequence[Labelled],
    dev_name: str,
    train: Sequence[Labelled],
    settings: EvaluateStage,
    seed: int,
    name: str,
    about: Mapping[str, Any],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Score with every model (what `folder` holds is not scored again) and evaluate.

    Args:
        models: Checkpoints by name; one called `ORM` counts as a baseline.
        rows: What is evaluated on.
        dev: Where thresholds are chosen; may be empty.
        dev_name: What reports call it.
        train: For the baselines that are fitted.
        settings: Subsets, intervals, examples.
        seed: Of everything drawn.
        name: What reports call the evaluated data.
        about: For the header of the report.
        folder: Where scores are kept.
        progress: See `pipelines.progress`.
    """
    from pipelines.data import load_scorer
    from pipelines.score import score_into
    from prm_kit.evaluate import DevSplit, evaluate
    from prm_kit.prefix_labels import with_prefix_labels

    rows = drawn_per_subset(with_prefix_labels(rows), settings.subset_by, settings.per_subset)
    dev = drawn_per_subset(with_prefix_labels(dev), settings.subset_by, settings.dev_solutions)
    scores = {}
    dev_scores = {}
    everything = [pair.solution for pair in [*rows, *dev]]
    for model, checkpoint in models.items():
        scorer = load_scorer(checkpoint, model)
        found = score_into(
            folder / f"scores-{model}.jsonl",
            scorer,
            sorted(everything, key=lambda solution: solution.problem),
            scorer.prm.card.aggregation,
            lambda n, model=model: progress(f"score with {model}", n, len(everything), ""),  # type: ignore[misc]
        )
        scores[model] = [found[pair.solution.id] for pair in rows]
        dev_scores[model] = [found[pair.solution.id] for pair in dev]
    progress("evaluate", 0, None, "")
    return evaluate(
        rows,
        scores,
        name=name,
        dev=DevSplit(dev_name, dev, dev_scores) if dev else None,
        train=train,
        baselines=[ORM] if ORM in models else [],
        subset_of=settings.subset_by,
        about=about,
        seed=seed,
        resamples=settings.resamples,
        shown=settings.examples,
    )


def drawn_per_subset(rows: Sequence[Labelled], subset_by: str, number: int | None) -> list[Labelled]:
    """At most `number` rows of each subset, drawn by the solutions' ids: the same ones every time."""
    if number is None:
        return list(rows)
    subsets: dict[Any, list[int]] = defaultdict(list)
    for index, pair in enumerate(rows):
        subsets[pair.solution.meta.get(subset_by)].append(index)
    kept = sorted(
        index for subset in subsets.values() for index in sorted(subset, key=lambda i: rows[i].solution.id)[:number]
    )
    return [rows[index] for index in kept]
