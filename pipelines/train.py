"""`prm-kit train`: labelled solutions become a PRM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Out, Output

if TYPE_CHECKING:
    from prm_kit.records import Labelled
    from prm_kit.train_settings import TrainSettings

Progress = Callable[[str, int, int | None, str], None]


def command(
    out: Out,
    data: Annotated[list[Path], typer.Option("--data", help="Snapshot or importable file; repeatable.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value of the settings.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML with the settings.")] = None,
    dev: Annotated[list[Path] | None, typer.Option(help="Development data; default: held-out problems.")] = None,
    dev_fraction: Annotated[float, typer.Option(min=0.001, max=0.9, help="Share of problems held out.")] = 0.1,
    ledger: Annotated[Path | None, typer.Option(help="Ledger with annotations made here.")] = None,
    rater_kind: Annotated[list[str] | None, typer.Option(help="Only raters of this kind; repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Train a PRM on labelled steps; run the same command again to resume.

    On several devices: torchrun --nproc-per-node 8 --no-python prm-kit train ...
    """
    from prm_kit.settings import load_settings
    from prm_kit.train_settings import TrainSettings

    settings = load_settings(TrainSettings, config, overrides or ())
    from pipelines.data import hold_out, labelled_solutions, snapshots_of
    from prm_kit.distributed import world_of_torchrun
    from prm_kit.train import train

    output = Output(as_json)
    with world_of_torchrun() as world, output.progress() as progress:
        imported, told = out / "imported", progress if world.is_first else None
        with world.in_turn():
            snapshots = snapshots_of(data, imported, told)
            dev_snapshots = snapshots_of(dev or (), imported, told)
        rows = labelled_solutions(snapshots, ledger, rater_kind or ())
        if dev:
            dev_rows = labelled_solutions(dev_snapshots, ledger, rater_kind or ())
        else:
            rows, dev_rows = hold_out(rows, dev_fraction, settings.seed)
        train(settings, rows, dev_rows, out, progress=shown("train", progress))
    if world.is_first:
        output.summary(out / "summary.json")


def train_prm_and_orm(
    settings: TrainSettings,
    rows: Sequence[Labelled],
    dev_rows: Sequence[Labelled],
    orm_rows: Sequence[Labelled],
    orm_dev_rows: Sequence[Labelled],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Train the PRM, and the ORM baseline of the same backbone and settings on `orm_rows` (none: no ORM).

    The ORM has a development set of its own: outcomes are not step labels.

    Returns:
        Summaries by name: "prm" and, if trained, "orm". Checkpoints lie in `folder/NAME/checkpoint`.
    """
    from prm_kit.train import train

    summaries = {"prm": train(settings, rows, dev_rows, folder / "prm", progress=shown("train prm", progress))}
    if orm_rows:
        summaries["orm"] = train(
            orm_settings(settings), orm_rows, orm_dev_rows, folder / "orm", progress=shown("train orm", progress)
        )
    return summaries


def orm_settings(settings: TrainSettings) -> TrainSettings:
    """The same run on final correctness alone."""
    from prm_kit.train_settings import TrainSettings

    changed = {"target": "outcome", "neutral_policy": "keep", "mask_after_first_error": False}
    return TrainSettings.model_validate(settings.model_dump() | changed)


def shown(stage: str, progress: Progress) -> Callable[[int, int, dict[str, Any]], None]:
    """Show the lines of a training run in the progress display."""

    def show(done: int, total: int, line: dict[str, Any]) -> None:
        progress(stage, done, total, f"{line['part']} loss {line['loss']:.4f}")

    return show
