"""When a run ends before its last update: rules over metrics.jsonl, so that a resumed run ends where it would have.

The rules are looked at between updates. What a stage of a schedule is for is said by them: warm up until the held-out
accuracy is so and so high, go on while there is signal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import Field

from prm_kit.settings import Settings

WINDOW = 5
"""Updates over which shares and divergences are averaged; no sooner does such a rule end a run."""

Positive = Annotated[int, Field(gt=0)]


class StopRules(Settings):
    """What ends a run early; the first rule that holds does, null never. The last update is `updates`.

    Attributes:
        accuracy: The sampled accuracy on held-out problems is this much at least.
        patience: So many evaluations in a row were no better, in sampled accuracy, than the best before them.
        alarm: An alarm of this kind was raised.
        no_signal: More than this share of the groups of the last 5 updates had nothing to learn from. Updates for
            which nothing was left count as 1.
        kl: The divergence from the reference policy, per token, was above this in the mean of the last 5 updates.
    """

    accuracy: float | None = Field(None, gt=0, le=1)
    patience: Positive | None = None
    alarm: Literal["any", "prm", "policy", "signal"] | None = None
    no_signal: float | None = Field(None, ge=0, lt=1)
    kl: float | None = Field(None, gt=0, allow_inf_nan=False)

    @property
    def evaluates(self) -> list[str]:
        """The rules that look at held-out accuracy."""
        return [f"stop.{name}" for name in ("accuracy", "patience") if getattr(self, name) is not None]


def stop_reason(rules: StopRules, lines: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a run ends here, in a sentence; None: it goes on.

    Args:
        rules: What ends it.
        lines: The lines of metrics.jsonl so far, in order.
    """
    reached = [line["sampled"] for line in lines if line["part"] == "held_out"]
    if rules.accuracy is not None and reached and reached[-1] >= rules.accuracy:
        return f"held-out accuracy is {reached[-1]:.3f}, and {rules.accuracy:g} was asked for"
    if rules.patience is not None and reached:
        since = len(reached) - 1 - reached.index(max(reached))
        if since >= rules.patience:
            return f"held-out accuracy has not risen above {max(reached):.3f} for {since} evaluations"
    updates = [place for place, line in enumerate(lines) if line["part"] == "train"]
    for line in lines[updates[-1] :] if updates and rules.alarm is not None else ():  # the update and what it led to
        for alarm in line.get("alarms", ()):
            if rules.alarm in ("any", alarm["kind"]):
                return f"alarm: {alarm['text']}"
    last = [lines[place] for place in updates[-WINDOW:]]
    if len(last) < WINDOW:
        return None
    if rules.no_signal is not None:
        silent = fmean(line.get("no_signal", 1.0) for line in last)
        if silent > rules.no_signal:
            return f"{silent:.0%} of the groups of {WINDOW} updates had nothing to learn from"
    moved = [line["kl"] for line in last if "kl" in line]
    if rules.kl is not None and moved and fmean(moved) > rules.kl:
        return f"the policy is {fmean(moved):.3g} nats per token away from the reference"
    return None
