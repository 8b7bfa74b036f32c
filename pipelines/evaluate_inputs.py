"""What `prm-kit eval` is given, read: data, development and training rows, and whoever is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pipelines.progress import Progress
    from prm_kit.evaluate.benchmarks import Benchmark
    from prm_kit.records import Annotation, Labelled
    from prm_kit.score import StepScorer

RATER = "rater:"
"""What the name of a rater begins with, where a model is asked for."""


class Inputs(NamedTuple):
    """Rows of each role, and the scorers by name."""

    rows: list[Labelled]
    dev: list[Labelled]
    train: list[Labelled]
    scorers: dict[str, StepScorer]


def read_inputs(
    inputs: Sequence[Sequence[str]],
    models: Mapping[str, str],
    benchmark: Benchmark | None,
    ledger: Path | None,
    rater_kinds: Sequence[str],
    imported: Path,
    progress: Progress,
    **how: Any,
) -> Inputs:
    """Import what must be, read the rows, and load the models.

    Args:
        inputs: Evaluated, development and training data.
        models: Where each scorer comes from, by name: see `pipelines.scorers.scorer_of`, or rater:KIND/NAME.
        benchmark: How its native files are read.
        ledger: Further annotations.
        rater_kinds: Only these kinds of raters; none: all.
        imported: Where imports go.
        progress: See `pipelines.progress`.
        how: Handed on to `scorer_of`.
    """
    from pipelines.data import evaluated_rows, labelled_solutions, snapshots_of

    options = benchmark.options if benchmark else None
    data, dev, train = (snapshots_of(paths, imported, progress, options) for paths in inputs)

    def labelled(paths: Sequence[Path]) -> list[Labelled]:
        return labelled_solutions(paths, ledger, rater_kinds) if paths else []

    asked = set(models.values())
    return Inputs(
        _not_by(evaluated_rows(data, ledger, rater_kinds), asked),
        _not_by(labelled(dev), asked),
        labelled(train),
        {name: _scorer(source, name, [*data, *dev], ledger, how) for name, source in models.items()},
    )


def identity(models: Mapping[str, str], *settings: str | None, scorers: Mapping[str, StepScorer] | None = None) -> str:
    """Tells scores of these models from those of others, or of one that has changed since.

    A checkpoint (a reference model too) changes when its files do, a rater when it has labelled again.
    """
    from pipelines.scorers import fingerprint_of
    from prm_kit.files import value_sha256

    files = {
        source: [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(Path(source).iterdir())]
        for source in [*models.values(), *filter(None, settings)]
        if Path(source).is_dir()
    }
    said = [str(fingerprint_of(source)) for source in models.values() if "://" in source]
    if scorers:
        from prm_kit.evaluate.raters import RaterScorer

        said += [repr(sorted(one.labels.items())) for one in scorers.values() if isinstance(one, RaterScorer)]
    return value_sha256([dict(models), files, settings, said])[:8]


def _not_by(rows: Sequence[Labelled], sources: set[str]) -> list[Labelled]:
    """The rows without those that an evaluated rater labelled: nobody is right by definition."""
    return [row for row in rows if _source_of(row.annotation) not in sources]


def _source_of(annotation: Annotation) -> str:
    return f"{RATER}{annotation.rater.kind}/{annotation.rater.name}"


def _scorer(
    source: str, name: str, snapshots: Sequence[Path], ledger: Path | None, how: Mapping[str, Any]
) -> StepScorer:
    if not source.startswith(RATER):
        from pipelines.scorers import scorer_of

        return scorer_of(source, name, **how)
    from prm_kit.evaluate.raters import RaterScorer
    from prm_kit.view import View

    annotations = (row.annotation for row in View(snapshots, ledger).labelled())
    return RaterScorer.of(source, [one for one in annotations if _source_of(one) == source])
