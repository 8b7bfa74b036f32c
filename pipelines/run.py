"""`prm-kit run NAME|PATH`: a whole recipe, stage by stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from pipelines.output import Json, Output
from prm_kit.files import write_json

if TYPE_CHECKING:
    from pipelines.progress import Progress
    from pipelines.recipe import Recipe, RlRecipe
    from pipelines.stage import Stages
    from prm_kit.records import Labelled
    from prm_kit.run_directory import RunDirectory
    from rl.stages import Schedule


def command(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value of the recipe.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run directory; default runs/NAME.")] = None,
    as_json: Json = False,
) -> None:
    """Import, split, label, train, evaluate, reinforce, report; the same command again goes on where it stopped."""
    from pipelines.evaluate import check_scored
    from pipelines.recipe import Recipe, load_recipe

    settings = load_recipe(recipe, overrides or ())
    folder = out or Path("runs") / settings.name
    output = Output(as_json)
    with output.progress() as progress:
        summary = run_recipe(settings, folder, output, progress)
    if not as_json:
        if "evaluation" in summary:
            from prm_kit.report.evaluation_tables import print_tables

            print_tables(summary["evaluation"], output.console)
            output.say(f"report: {folder / 'report.html'}")
        if "rl" in summary:
            from pipelines.rl.stages import table

            output.console.print(table(summary["rl"]["stages"]))
            output.say(f"policy: {summary['rl']['policy']}")
    output.summary(folder / "summary.json")
    if isinstance(settings, Recipe):
        check_scored(summary["evaluation"], settings.evaluate.max_reject_share)


def run_recipe(recipe: Recipe | RlRecipe, folder: Path, output: Output, progress: Progress) -> dict[str, Any]:
    """Run every stage of a recipe whose inputs or settings have changed; write and return the summary."""
    from pipelines.recipe import Recipe
    from pipelines.rl.stages import ScheduleRun, check_schedule
    from pipelines.stage import Stages
    from prm_kit.run_directory import RunDirectory

    schedule = recipe.rl if isinstance(recipe, Recipe) else recipe
    if schedule is not None:
        check_schedule(schedule, has_prm=isinstance(recipe, Recipe))
    run = RunDirectory(folder)
    run.start(recipe.model_dump(mode="json"))
    stages = Stages(run, output.say)
    if isinstance(recipe, Recipe):
        return _Run(recipe, run, stages, output, progress).all()
    summary = {"recipe": recipe.name, "rl": ScheduleRun(recipe, stages, output, progress).all()}
    run.finish(summary)
    return summary


class _Run:
    """The stages of one recipe, in order. What one stage hands to the next are folders and the names of stages."""

    def __init__(self, recipe: Recipe, run: RunDirectory, stages: Stages, output: Output, progress: Progress) -> None:
        self.recipe = recipe
        self.run = run
        self.stages = stages
        self.output = output
        self.progress = progress
        self.snapshots: dict[str, Path] = {}
        self.stands_on: list[str] = []
        self.ledger: Path | None = None

    def all(self) -> dict[str, Any]:
        """Run what must be run; return the summary."""
        from prm_kit.report import write_report

        imports = {name: self._import(name) for name in self.recipe.data}
        for name in self.recipe.split.sources if self.recipe.split else ():
            self._split(name)
        if self.recipe.label.rules:
            self._label()
        training = self._train()
        evaluated = self._evaluate()
        evaluation = json.loads((self.stages.folder("evaluate") / evaluated["evaluation"]).read_text(encoding="utf-8"))
        write_report(self.run.path / "report.html", evaluation)
        summary: dict[str, Any] = {
            "recipe": self.recipe.name,
            "checkpoint": str(self.stages.folder("train") / "prm" / "checkpoint"),
            "imports": imports,
            "training": training,
            "evaluation": evaluation,
            "report": "report.html",
        }
        if self.recipe.rl is not None:
            summary["rl"] = self._reinforced(self.recipe.rl)
        self.run.finish(summary)
        return summary

    def _reinforced(self, schedule: Schedule) -> dict[str, Any]:
        from pipelines.rl.stages import ScheduleRun

        prm = self.stages.folder("train") / "prm" / "checkpoint"
        return ScheduleRun(schedule, self.stages, self.output, self.progress, prm, ("train",)).all()

    def _import(self, name: str) -> dict[str, Any]:
        from pipelines.data import import_source, is_snapshot, source_files

        source = self.recipe.data[name]
        files = source_files(source, self.recipe.root)
        stage = f"import-{name}"
        self.stands_on.append(stage)
        if len(files) == 1 and is_snapshot(files[0]):
            self.snapshots[name] = Path(files[0])
            return self.stages(stage, lambda _: {"snapshot": files[0]}, settings={}, files=[Path(files[0])])
        self.snapshots[name] = self.stages.folder(stage) / "snapshot"
        return self.stages(
            stage,
            lambda folder: import_source(source, self.recipe.root, folder / "snapshot", self.progress),
            settings=source.model_dump(mode="json"),
            files=[Path(file) for file in files if not file.startswith("hf://")],
        )

    def _split(self, name: str) -> None:
        from pipelines.split import split_snapshots

        settings = self.recipe.split
        if settings is None:
            return
        before = self.snapshots[name]
        stage = f"split-{name}"
        self.stages(
            stage,
            lambda folder: split_snapshots(
                [before],
                folder / "snapshot",
                method=settings.method,
                token=None,
                max_step_tokens=settings.max_step_tokens,
                count_tokens=None,
                progress=self.progress,
            ),
            settings=settings.model_dump(mode="json"),
            after=[f"import-{name}"],
        )
        self.snapshots[name] = self.stages.folder(stage) / "snapshot"
        self.stands_on.append(stage)

    def _label(self) -> None:
        from pipelines.data import solutions
        from pipelines.label.rules import label_by_rules
        from prm_kit.ledger import Ledger

        labelled = [self.snapshots[name] for name in self.recipe.label.rules]
        self.ledger = self.stages.folder("label") / "ledger.sqlite"
        self.stages(
            "label",
            lambda folder: label_by_rules(
                solutions(labelled), Ledger(folder / "ledger.sqlite"), labelled, self.progress
            ),
            settings=self.recipe.label.model_dump(mode="json"),
            after=list(self.stands_on),
            keeps_partial_work=True,
        )
        self.stands_on.append("label")

    def _rows(self, names: list[str], kinds: Sequence[str]) -> list[Labelled]:
        from pipelines.data import labelled_solutions

        return labelled_solutions([self.snapshots[name] for name in names], self.ledger, kinds)

    @cached_property
    def _evaluated(self) -> list[Labelled]:
        from pipelines.data import evaluated_rows

        stage = self.recipe.evaluate
        return evaluated_rows([self.snapshots[name] for name in stage.sources], self.ledger, stage.rater_kinds)

    @cached_property
    def _training_rows(self) -> _TrainingRows:
        """Training, development and ORM rows, none of whose problems is evaluated on; read after all labelling."""
        from pipelines.data import hold_out, outcome_rows, without_problems_of

        stage = self.recipe.train
        evaluated = self._evaluated
        rows, overlap = without_problems_of(self._rows(stage.sources, stage.rater_kinds), evaluated)
        if stage.dev == "split":
            rows, dev = hold_out(rows, stage.dev_fraction, self.recipe.seed)
            dev_name = f"{stage.dev_fraction:.0%} of the problems of {', '.join(stage.sources)}, held out"
        else:
            dev, dev_overlap = without_problems_of(self._rows(stage.dev, stage.rater_kinds), evaluated)
            overlap += dev_overlap
            dev_name = ", ".join(stage.dev)
        orm, orm_dev = ([], []) if not stage.orm else (rows, dev)
        if stage.orm and stage.orm_sources:
            outcomes = outcome_rows([self.snapshots[name] for name in stage.orm_sources])
            outcomes, orm_overlap = without_problems_of(outcomes, evaluated)
            orm, orm_dev = hold_out(outcomes, stage.dev_fraction, self.recipe.seed)
            overlap += orm_overlap
        return _TrainingRows(rows, dev, orm, orm_dev, dev_name, overlap)

    def _train(self) -> dict[str, Any]:
        from pipelines.train import train_prm_and_orm

        def work(folder: Path) -> dict[str, Any]:
            found = self._training_rows
            models = train_prm_and_orm(
                self.recipe.train.settings,
                found.train,
                found.dev,
                found.orm,
                found.orm_dev,
                folder,
                self.progress,
            )
            return {"rows_of_evaluated_problems_removed": found.overlap, "models": models}

        return self.stages(
            "train",
            work,
            settings={
                "train": self.recipe.train.model_dump(mode="json"),
                "evaluated": self.recipe.evaluate.sources,
                "seed": self.recipe.seed,
            },
            after=list(self.stands_on),
            keeps_partial_work=True,
        )

    def _evaluate(self) -> dict[str, Any]:
        from pipelines.evaluate import evaluate_models
        from pipelines.scorers import scorer_of

        def work(folder: Path) -> dict[str, Any]:
            found = self._training_rows
            trained = self.stages.folder("train")
            evaluation = evaluate_models(
                {
                    name: scorer_of(trained / name / "checkpoint", name)
                    for name in ("prm", "orm")
                    if (trained / name).exists()
                },
                self._evaluated,
                dev=found.dev,
                dev_name=found.dev_name,
                train=found.train,
                settings=self.recipe.evaluate,
                seed=self.recipe.seed,
                name=", ".join(self.recipe.evaluate.sources),
                about={"recipe": self.recipe.name, "description": self.recipe.description},
                folder=folder,
                progress=self.progress,
            )
            write_json(folder / "evaluation.json", evaluation)
            return {"evaluation": "evaluation.json"}

        return self.stages(
            "evaluate",
            work,
            settings={"evaluate": self.recipe.evaluate.model_dump(mode="json"), "seed": self.recipe.seed},
            after=[*self.stands_on, "train"],
            keeps_partial_work=True,
        )


class _TrainingRows(NamedTuple):
    train: list[Labelled]
    dev: list[Labelled]
    orm: list[Labelled]
    orm_dev: list[Labelled]
    dev_name: str
    overlap: int
