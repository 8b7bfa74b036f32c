"""What a recipe may say. A recipe is one YAML file that fully describes a run.

There are two kinds: data, split, label, train, evaluate, and after them reinforcement learning with the PRM if asked;
and reinforcement learning alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from prm_kit.errors import UsageError, unknown_name
from prm_kit.records import RaterKind
from prm_kit.settings import Settings, apply_override, read_yaml, validated
from prm_kit.train_settings import TrainSettings
from rl.stages import Schedule


class Source(Settings):
    """One data set: where it lies and how to read it.

    Attributes:
        paths: Files, globs (below the recipe's `root` if relative), a snapshot directory, or hf://owner/name:split.
        format: A name of `prm-kit import`, or "auto": told from the first row.
        options: Options of the format's reader.
        limit: Read at most so many rows.
        max_reject_share: Stop if more than this share of the rows is malformed.
    """

    paths: list[str]
    format: str = "auto"
    options: dict[str, Any] = Field(default_factory=dict)
    limit: int | None = Field(default=None, gt=0)
    max_reject_share: float = Field(default=0.01, ge=0, le=1)


class SplitStage(Settings):
    """Cut the completions of these sources into steps (again)."""

    sources: list[str]
    method: str = "auto"
    max_step_tokens: int | None = Field(default=512, gt=0)


class LabelStage(Settings):
    """Labellers that run over sources; their annotations go to the run's ledger."""

    rules: list[str] = Field(default_factory=list)


class TrainStage(Settings):
    """Which labels train the PRM.

    Attributes:
        sources: Names of data sources.
        dev: "split": a share of the training problems is held out; otherwise names of sources.
        dev_fraction: The share, by problem.
        rater_kinds: Read only annotations of these kinds; empty means all.
        orm: Also train an outcome reward model on the same backbone and settings, as a baseline.
        orm_sources: What the ORM learns from; empty: the same sources. PRM800K phase 1, for one, keeps right solutions
            only, from which no outcome can be learnt.
        settings: The loop's settings.
    """

    sources: list[str]
    dev: Literal["split"] | list[str] = "split"
    dev_fraction: float = Field(default=0.1, gt=0, lt=1)
    rater_kinds: list[RaterKind] = Field(default_factory=list)
    orm: bool = True
    orm_sources: list[str] = Field(default_factory=list)
    settings: TrainSettings


class EvaluateStage(Settings):
    """What the PRM is measured on. Thresholds are always chosen on the training stage's development set.

    Attributes:
        sources: Names of data sources; their problems are removed from training and development data.
        rater_kinds: Read only annotations of these kinds; empty means all.
        subset_by: Key of `meta` that names the subset of a solution.
        per_subset: Measure at most so many solutions of each subset, drawn by their ids; null: all.
        dev_solutions: Choose thresholds on at most so many development solutions of each subset; null: all.
        resamples: Bootstrap resamples, by problem.
        examples: Solutions shown in the report, per reason to show them.
        max_reject_share: Fail at the end if more than this share of the solutions is too long for a model.
    """

    sources: list[str]
    rater_kinds: list[RaterKind] = Field(default_factory=list)
    subset_by: str = "subset"
    per_subset: int | None = Field(default=None, gt=0)
    dev_solutions: int | None = Field(default=None, gt=0)
    resamples: int = Field(default=1000, ge=100)
    examples: int = Field(default=20, ge=0)
    max_reject_share: float = Field(default=0.01, ge=0, le=1)


class Recipe(Settings):
    """A whole run.

    Attributes:
        name: What reports call it.
        description: One sentence for people.
        seed: Seed of everything that is drawn.
        root: Folder below which relative paths of `data` lie; the working folder if null.
        data: Sources by name.
        split: Optional re-splitting.
        label: Optional labelling.
        train: The training stage.
        evaluate: The evaluation stage.
        rl: Reinforcement learning with the trained PRM, unless it names another; null: none.
    """

    name: str
    description: str = ""
    seed: int = 0
    root: Path | None = None
    data: dict[str, Source]
    split: SplitStage | None = None
    label: LabelStage = LabelStage()
    train: TrainStage
    evaluate: EvaluateStage
    rl: Schedule | None = None

    @model_validator(mode="after")
    def _names_exist(self) -> Recipe:
        dev = [] if self.train.dev == "split" else self.train.dev
        asked = [*self.train.sources, *self.train.orm_sources, *dev, *self.evaluate.sources, *self.label.rules]
        asked += self.split.sources if self.split else []
        for name in asked:
            if name not in self.data:
                raise ValueError(str(unknown_name("data source", name, self.data)))
        return self


class RlRecipe(Schedule):
    """A run that is reinforcement learning alone.

    Attributes:
        name: What reports call it.
        description: One sentence for people.
    """

    name: str
    description: str = ""


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe | RlRecipe:
    """A recipe, shipped or in a file, with `key.sub=value` overrides.

    Raises:
        UsageError: No such recipe, or a wrong key or value, with file, line and the nearest key.
    """
    path = recipe_path(name_or_path)
    values, lines = read_yaml(path)
    for override in overrides:
        apply_override(values, override)
    if values.keys() & {"data", "train", "evaluate"}:
        return validated(Recipe, values, str(path), lines)
    return validated(RlRecipe, values, str(path), lines)


def recipe_path(name_or_path: str) -> Path:
    """A shipped recipe by name, or a file.

    Raises:
        UsageError: Neither a recipe of ours nor a file.
    """
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        path = Path(name_or_path)
        if not path.is_file():
            raise UsageError(f"{path}: no such recipe file")
        return path
    names = shipped_recipes()
    if name_or_path not in names:
        raise unknown_name("recipe", name_or_path, names)
    return names[name_or_path]


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("pipelines") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
