"""The handbook's scenario table: which algorithms, one after another, for which situation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """One row.

    Attributes:
        situation: When.
        stages: Algorithms in order; "sft" is supervised fine-tuning.
        why: What the handbook says for it.
        measured: What was found here.
    """

    situation: str
    stages: tuple[str, ...]
    why: str
    measured: str = "not yet"


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "the whole pipeline",
        ("sft", "dapo", "gfpo-anchored", "srpo"),
        "DAPO (or VAPO) warms up, GFPO works on the reasoning, SRPO steadies",
    ),
    Scenario(
        "a cold start", ("srpo", "gfpo-anchored"), "the reference keeps a weak policy in place, then pairs refine it"
    ),
    Scenario("SFT and RL mixed", ("dapo", "gfpo-anchored"), "fast gains by the group mean, then fine-grained pairs"),
    Scenario("a noisy reward", ("vapo",), "the value model averages over the noise"),
)
