"""`prm-kit rl recommend`: the handbook's table of scenarios."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.output import Output


def recommend(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print which algorithms the handbook takes for which situation, and what was measured of those here."""
    from rl.scenarios import BEFORE, MEASURED, MEASURED_BY, SCENARIOS, measured

    if as_json:
        rows = [
            asdict(scenario)
            | {"measured": {name: MEASURED[name]._asdict() for name in scenario.stages if name in MEASURED}}
            for scenario in SCENARIOS
        ]
        answer = {"scenarios": rows, "before": BEFORE, "measured_by": MEASURED_BY}
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return
    from rich.table import Table

    table = Table("situation", "stages", "why, says the handbook", "measured here, each alone", box=None)
    for scenario in SCENARIOS:
        table.add_row(scenario.situation, " -> ".join(scenario.stages), scenario.why, measured(scenario))
    output = Output()
    output.console.print(table)
    ranked = sorted(MEASURED.items(), key=lambda item: -item[1].mean)
    best = ", ".join(f"{name} {one.mean:.3f}" for name, one in ranked[:2])
    output.say(
        f"Measured: sampled accuracy on held-out problems of the embedded task, from {BEFORE:.3f}, after 20 updates; "
        f"mean and standard error over three seeds. The most there: {best}. No sequence of stages was measured, no "
        "noisy reward and no cold start."
    )
    output.say(f"By: {MEASURED_BY}")
    output.say("Stages run by: prm-kit run rl-stages policy=MODEL task=TASK prm=PRM")
    output.say("Whatever the choice: run the outcome-only algorithm beside it (prm-kit rl show rloo, grpo).")
