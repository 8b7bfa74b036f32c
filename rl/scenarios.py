"""The handbook's scenario table: which algorithms, one after another, for which situation; and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Scenario:
    """One row.

    Attributes:
        situation: When.
        stages: Algorithms in order; "sft" is supervised fine-tuning.
        why: What the handbook says for it.
    """

    situation: str
    stages: tuple[str, ...]
    why: str


class Accuracy(NamedTuple):
    """Sampled accuracy on held-out problems after training: the mean over seeds, and its standard error."""

    mean: float
    standard_error: float


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

MEASURED_BY = """\
prm-kit rl compare arithmetic --policy runs/quickstart/policy/checkpoint --prm runs/quickstart/checkpoint \
--problems 2000 --held-out 300 --seeds 3 -a NAME updates=20 problems=32 group_size=8 minibatches=1 max_new_tokens=100 \
split=newline learning_rate=3e-4 warmup=0.1 device=cpu --out OUT"""
"""The command behind `MEASURED`: each algorithm alone, 20 updates, one tiny policy, one good PRM, three seeds, one
learning rate for all that was chosen for none. It says nothing of sequences of stages, of noise or of other tasks."""

BEFORE = 0.435

MEASURED: dict[str, Accuracy] = {
    "pure": Accuracy(0.606, 0.023),
    "rloo-min": Accuracy(0.600, 0.014),
    "vapo": Accuracy(0.591, 0.013),
    "prime": Accuracy(0.585, 0.024),
    "grpo-process": Accuracy(0.580, 0.010),
    "gfpo-gated": Accuracy(0.578, 0.011),
    "dapo": Accuracy(0.571, 0.013),
    "srpo": Accuracy(0.569, 0.015),
    "clip-cov": Accuracy(0.563, 0.007),
    "opo": Accuracy(0.562, 0.005),
    "gspo": Accuracy(0.561, 0.005),
    "dr-grpo": Accuracy(0.560, 0.006),
    "dapo-dynamic": Accuracy(0.557, 0.004),
    "grpo": Accuracy(0.551, 0.009),
    "gfpo-anchored": Accuracy(0.519, 0.001),
    "gfpo": Accuracy(0.275, 0.017),
}
"""Algorithm -> sampled accuracy after the 20 updates of `MEASURED_BY`, from `BEFORE`."""


def measured(scenario: Scenario) -> str:
    """What was measured of a row's algorithms, each alone."""
    said = [
        f"{name} {MEASURED[name].mean:.3f} +- {MEASURED[name].standard_error:.3f}" if name in MEASURED else f"{name} -"
        for name in scenario.stages
        if name != "sft"
    ]
    return ", ".join(said)
