"""`prm-kit eval`: PRMs, an outcome model, raters and the trivial baselines against labelled solutions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.evaluate_inputs import identity, read_inputs
from pipelines.output import Json, Out, Output
from pipelines.score import MaxRejectShare, check_rejected
from pipelines.scorers import Family, Precision, Reference

if TYPE_CHECKING:
    from pipelines.recipe import EvaluateStage
    from prm_kit.records import Labelled, Solution
    from prm_kit.run_directory import RunDirectory
    from prm_kit.score import StepScorer, StepScores

Progress = Callable[[str, int, int | None, str], None]

ORM = "orm"
"""Name of the outcome model, which is reported as a baseline."""

Data = Annotated[
    list[str] | None, typer.Option("--data", help="Snapshot, importable file or hf://OWNER/NAME:SPLIT; repeatable.")
]
BenchmarkName = Annotated[
    str | None, typer.Option("--benchmark", help="processbench or prmbench; without --data it is read from the hub.")
]
Dev = Annotated[
    list[str] | None,
    typer.Option("--dev", help="Where threshold and temperature are chosen; default: the threshold is fixed at 0."),
]
Train = Annotated[
    list[str] | None,
    typer.Option("--train", help="Training data: for the fitted baselines and to look for contamination."),
]
Calibrated = Annotated[
    Path | None,
    typer.Option("--calibrated", help="Copy the checkpoint here, with the temperature that --dev asks for."),
]


def command(
    checkpoint: Annotated[str, typer.Argument(help="Folder or hub id of a PRM, address of a server, rater:KIND/NAME.")],
    out: Out,
    data: Data = None,
    benchmark: BenchmarkName = None,
    dev: Dev = None,
    train: Train = None,
    orm: Annotated[str | None, typer.Option(help="An outcome model, as a baseline.")] = None,
    ledger: Annotated[Path | None, typer.Option(help="Ledger with annotations made here.")] = None,
    rater_kind: Annotated[list[str] | None, typer.Option(help="Only raters of this kind; repeatable.")] = None,
    subset_by: Annotated[str, typer.Option(help="Key of meta that names a solution's subset.")] = "subset",
    per_subset: Annotated[int | None, typer.Option(min=1, help="At most so many solutions of each subset.")] = None,
    calibrated: Calibrated = None,
    seed: int = 0,
    family: Family = None,
    reference: Reference = None,
    precision: Precision = "auto",
    max_reject_share: MaxRejectShare = 0.01,
    as_json: Json = False,
) -> None:
    """Step metrics, ProcessBench and PRMBench, best-of-N, calibration, contamination: tables, JSON and a report."""
    from pipelines.recipe import EvaluateStage
    from prm_kit.errors import UsageError
    from prm_kit.evaluate.benchmarks import benchmark_named, coverage
    from prm_kit.run_directory import RunDirectory

    output = Output(as_json)
    known = benchmark_named(benchmark) if benchmark else None
    inputs = data or (known.hub if known else None)
    if not inputs:
        raise UsageError("name what to evaluate on: --data, --benchmark, or both")
    if calibrated and not dev:
        raise UsageError("--calibrated needs --dev: a temperature is never fitted on the data that is evaluated")
    run = RunDirectory(out)
    settings = EvaluateStage(
        sources=list(inputs), subset_by=subset_by, per_subset=per_subset, max_reject_share=max_reject_share
    )
    models = {"prm": checkpoint} | ({ORM: orm} if orm else {})
    run.start({"models": models, "precision": precision, **settings.model_dump(mode="json")})
    how = {"family": family, "reference": reference, "precision": precision}
    with output.progress() as progress, run.timed("evaluate"):
        given = [inputs, dev or (), train or ()]
        found = read_inputs(given, models, known, ledger, rater_kind or (), out / "imported", progress, **how)
        evaluation = evaluate_models(
            found.scorers,
            found.rows,
            dev=found.dev,
            dev_name=", ".join(dev or ()),
            train=found.train,
            settings=settings,
            seed=seed,
            name=known.title if known else ", ".join(Path(path).name for path in inputs),
            about={"checkpoint": checkpoint}
            | ({"benchmark": coverage(known, drawn_per_subset(found.rows, subset_by, per_subset))} if known else {}),
            folder=out / f"scores-{identity(models, *how.values(), scorers=found.scorers)}",
            progress=progress,
        )
    _leave(evaluation, run, output)
    if calibrated:
        temperature = write_calibrated(Path(checkpoint), calibrated, evaluation["calibration_after"].get("prm"))
        output.say(f"calibrated checkpoint: {calibrated} (temperature {temperature:.4g})")
    output.summary(out / "summary.json")
    check_scored(evaluation, max_reject_share)


def _leave(evaluation: Mapping[str, Any], run: RunDirectory, output: Output) -> None:
    from prm_kit.report import print_tables, write_report

    write_report(run.path / "report.html", evaluation)
    run.finish(evaluation)
    if not output.as_json:
        print_tables(evaluation, output.console)
        output.say(f"report: {run.path / 'report.html'}")


def check_scored(evaluation: Mapping[str, Any], max_share: float) -> None:
    """Fail if a model could not score more than `max_share` of the solutions."""
    for rejected in evaluation["rejected"].values():
        check_rejected(rejected, max_share)


def evaluate_models(
    scorers: Mapping[str, StepScorer],
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

    A solution that is too long for a model is one that the model abstains on. How many there were is under "rejected",
    and in the warnings.

    Args:
        scorers: By name; one called `ORM` counts as a baseline.
        rows: What is evaluated on; drawn from after the labels of trunks have reached their branches.
        dev: Where thresholds and temperatures are chosen; may be empty.
        dev_name: What reports call it.
        train: For the baselines that are fitted, and to look for contamination.
        settings: Subsets, intervals, examples.
        seed: Of everything drawn.
        name: What reports call the evaluated data.
        about: For the header of the report.
        folder: Where scores are kept.
        progress: See `pipelines.progress`.
    """
    from pipelines.score import score_into
    from pipelines.scorers import aggregation_of
    from prm_kit.evaluate import DevSplit, evaluate
    from prm_kit.prefix_labels import with_prefix_labels

    rows = drawn_per_subset(with_prefix_labels(rows), settings.subset_by, settings.per_subset)
    dev = drawn_per_subset(with_prefix_labels(dev), settings.subset_by, settings.dev_solutions)
    scores: dict[str, list[StepScores]] = {}
    dev_scores: dict[str, list[StepScores]] = {}
    rejected = {}
    everything = [pair.solution for pair in [*rows, *dev]]
    for model, scorer in scorers.items():
        found, rejected[model] = score_into(
            folder / f"scores-{model}.jsonl",
            scorer,
            sorted(everything, key=lambda solution: solution.problem),
            aggregation_of(scorer),
            lambda n, model=model: progress(f"score with {model}", n, len(everything), ""),  # type: ignore[misc]
        )
        abstained = _abstention(found)
        scores[model] = [found.get(pair.solution.id) or abstained(pair.solution) for pair in rows]
        dev_scores[model] = [found.get(pair.solution.id) or abstained(pair.solution) for pair in dev]
    progress("evaluate", 0, None, "")
    evaluation = evaluate(
        rows,
        scores,
        name=name,
        dev=DevSplit(dev_name, dev, dev_scores) if dev else None,
        train=train,
        baselines=[ORM] if ORM in scorers else [],
        subset_of=settings.subset_by,
        about=about,
        seed=seed,
        resamples=settings.resamples,
        shown=settings.examples,
    )
    too_long = {model: counted for model, counted in rejected.items() if counted["count"]}
    evaluation["warnings"] += [
        f"{model} abstains on {counted['count']} of {counted['of']} solutions, which are too long for it "
        f"({counted['file']}); they count against it"
        for model, counted in too_long.items()
    ]
    return evaluation | {"rejected": rejected}


def _abstention(found: Mapping[str, StepScores]) -> Callable[[Solution], StepScores]:
    """What a scorer says of a solution that it cannot score: nothing of any step, in the form of its other scores."""
    from prm_kit.score import StepScores

    bounded = all(scores.is_bounded for scores in found.values())

    def abstained(solution: Solution) -> StepScores:
        nothing = (None,) * len(solution.spans)
        return StepScores(nothing, None if bounded else nothing)

    return abstained


def drawn_per_subset(rows: Sequence[Labelled], subset_by: str, number: int | None) -> list[Labelled]:
    """At most `number` rows of each subset, drawn by the solutions' ids: the same ones every time."""
    if number is None:
        return list(rows)
    subsets: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(rows):
        subsets[str(pair.solution.meta.get(subset_by))].append(index)
    kept = sorted(
        index for subset in subsets.values() for index in sorted(subset, key=lambda i: rows[i].solution.id)[:number]
    )
    return [rows[index] for index in kept]


def write_calibrated(checkpoint: Path, out: Path, found: Mapping[str, Any] | None) -> float:
    """Copy a checkpoint of ours with a fitted temperature in its card; return the temperature.

    Args:
        checkpoint: The checkpoint, whose scores the temperature was fitted to.
        out: The copy; whole or not at all.
        found: Its part of `calibration_after`; None: it has none.

    Raises:
        UsageError: There is no temperature, or the head's outputs are not what its card's temperature divides.
    """
    import shutil

    from prm_kit.card import read_card
    from prm_kit.errors import UsageError
    from prm_kit.files import whole_directory, write_json

    if found is None:
        raise UsageError(f"{checkpoint}: its scores are no probabilities, so there is no temperature to write")
    card = read_card(checkpoint)
    if card.kind != "token-classification" or card.readout not in ("classes", "binary", "sigmoid"):
        raise UsageError(
            f"{checkpoint}: a temperature fitted to probabilities is not one of the {card.readout} outputs of a "
            f"{card.kind} checkpoint, which are no plain logits of a softmax"
        )
    temperature = card.temperature * float(found["temperature"]["value"])
    with whole_directory(out) as part:
        shutil.copytree(checkpoint, part, dirs_exist_ok=True)
        write_json(part / "prm.json", card.model_copy(update={"temperature": temperature}).model_dump(mode="json"))
    return temperature
