"""A schedule: stages one after another, each with an algorithm, settings and rules of its own to stop by.

Every stage is a run of its own (`prm_kit.sft`, `rl.train`) that starts from what the one before it left. Here is only
what a schedule says and what settings each stage gets from it; `pipelines` runs them.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from prm_kit.errors import UsageError
from prm_kit.settings import Settings, validated
from prm_kit.sft_settings import SftSettings
from rl.train_settings import RlSettings

Positive = Annotated[int, Field(gt=0)]

FIRST = "first"
"""The reference policy of a stage that is what the first stage left."""


class SftStage(SftSettings):
    """Supervised fine-tuning before all other stages; see `SftSettings` for the rest.

    Attributes:
        policy: Not to be given: that of the schedule.
        task: Whose demonstrations; null: the schedule's task.
        demonstrations: How many; null: all there are.
        held_out: Demonstrations to measure the loss on.
    """

    policy: str = ""
    task: str | None = None
    demonstrations: Positive | None = None
    held_out: int = Field(200, ge=0)

    _no_policy = field_validator("policy")(lambda value: _refused(value))


class RlStage(RlSettings):
    """One stage of reinforcement learning; see `RlSettings` for the rest.

    Attributes:
        policy: Not to be given: what the stage before left, and of the first the schedule's.
        task: Whose problems; null: the schedule's task.
        train_on: How many problems; null: as many as the schedule says.
        prm: Who rewards steps; null: the schedule's PRM.
        reference: Null: the policy that the stage starts from; "first": what the first stage left; or a folder or hub
            id.
    """

    policy: str = ""
    task: str | None = None
    train_on: Positive | None = None
    prm: str | None = None

    _no_policy = field_validator("policy")(lambda value: _refused(value))

    @model_validator(mode="after")
    def _minibatches_hold_a_problem(self) -> RlStage:
        return self  # what a stage does not say it has from the schedule: the whole is checked


class Schedule(Settings):
    """Stages one after another.

    Attributes:
        task: Problems: arithmetic, file:PATH, reasoning-gym:NAME.
        policy: Folder or hub id of the model that the first stage starts from.
        prm: Who rewards steps: a checkpoint, a published PRM, or the address of a server.
        train_on: How many problems to train on; null: all there are.
        held_out: Development problems to measure accuracy on.
        algorithm: Of the stages that name none.
        sft: Supervised fine-tuning before all stages; null: none.
        settings: What all stages have in common. What a stage says itself goes before it; of `parts` and `stop` single
            keys do.
        stages: By name, in order.
    """

    task: str
    policy: str
    prm: str | None = None
    train_on: Positive | None = None
    held_out: int = Field(200, ge=0)
    algorithm: str = "grpo"
    sft: SftStage | None = None
    settings: RlStage = RlStage()
    stages: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")], RlStage] = Field(
        default_factory=lambda: {"rl": RlStage()}, min_length=1
    )

    @field_validator("settings")
    @classmethod
    def _said_once(cls, settings: RlStage) -> RlStage:
        for key in ("algorithm", "task", "prm", "train_on"):
            if key in settings.model_fields_set:
                raise ValueError(f"{key} stands beside settings, not in them")
        return settings

    @property
    def folders(self) -> list[str]:
        """Where each stage runs, in order: 1-sft, 2-dapo and so on."""
        names = [*(["sft"] if self.sft is not None else []), *self.stages]
        return [f"{number}-{name}" for number, name in enumerate(names, start=1)]


def sft_settings(schedule: Schedule) -> SftSettings:
    """What the supervised stage is asked; device, precision and seed are those that all stages have in common.

    Raises:
        UsageError: There is no such stage.
    """
    if schedule.sft is None:
        raise UsageError("this schedule has no supervised stage")
    shared = {"device", "precision", "seed"} & schedule.settings.model_fields_set
    common = schedule.settings.model_dump(include=shared)
    return validated(SftSettings, {**common, **_asked(schedule.sft, SftSettings), "policy": schedule.policy}, "sft")


def stage_settings(schedule: Schedule, name: str, policy: str, first: str) -> RlSettings:
    """What one stage is asked.

    Unless a stage has a seed of its own, it is that of the schedule plus its number: no two stages see the problems in
    the same order, and all of them are drawn from the same ones.

    Args:
        schedule: The schedule.
        name: Of the stage.
        policy: What the stage before left.
        first: What the first stage left; that of the schedule for the first one.

    Raises:
        UsageError: The stage's and the common settings do not go together.
    """
    common, own = (_asked(said, RlSettings) for said in (schedule.settings, schedule.stages[name]))
    together: dict[str, Any] = {"algorithm": schedule.algorithm, **common}
    for key, value in own.items():
        together[key] = {**together.get(key, {}), **value} if key in ("parts", "stop") else value
    together["policy"] = policy
    if together.get("reference") == FIRST:
        together["reference"] = first
    if "seed" not in own:
        together["seed"] = together.get("seed", 0) + list(schedule.stages).index(name)
    return validated(RlSettings, together, f"stage {name}")


def _asked(stage: Settings, kind: type[Settings]) -> dict[str, Any]:
    """What was said of the settings of a class, without its defaults."""
    said = stage.model_dump(exclude_unset=True)
    return {key: value for key, value in said.items() if key in kind.model_fields}


def _refused(policy: str) -> str:
    raise ValueError("a stage goes on with what the one before it left; the schedule names the first policy")
