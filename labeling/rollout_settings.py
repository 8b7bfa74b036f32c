"""What a rollout labeller is asked. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from prm_kit.files import value_sha256
from prm_kit.settings import Settings

VERSION = "1"
"""Goes up whenever a label would come out differently under the same settings."""

Method = Literal["hard", "soft", "omega"]
Truncated = Literal["missed", "left_out"]


class RolloutSettings(Settings):
    """Everything that the labels depend on beside the policy.

    Attributes:
        method: "hard": every step, -1 or +1. "soft": every step, the share alone. "omega": the first error by binary
            search, nothing after it.
        samples: Rollouts of each prefix.
        max_new_tokens: Longest rollout.
        temperature: Of the sampling.
        seed: Of the sampling.
        threshold: A prefix counts as one that can reach the answer if more than this share of its rollouts did;
            0: if any did, as Math-Shepherd has it.
        explore: For "omega", how many wrong rollouts of each problem are searched beside the solutions given.
        truncated: What a rollout is that `max_new_tokens` ended: one that did not reach the answer, or none at all.
    """

    method: Method = "hard"
    samples: Annotated[int, Field(ge=1)] = 8
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    truncated: Truncated = "missed"
    explore: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.method == "soft" and self.threshold:
            raise ValueError("soft labels are shares and have no threshold")
        if self.method != "omega" and self.explore:
            raise ValueError("only the method omega explores")
        return self

    def version(self, policy: str, judge: str) -> str:
        """Version of a rater with these settings.

        Args:
            policy: What tells the policy's weights and tokenizer from others.
            judge: What decides whether an answer is right.
        """
        about: dict[str, Any] = {"version": VERSION, "policy": policy, "judge": judge, **self.model_dump()}
        return value_sha256(about)[:16]
