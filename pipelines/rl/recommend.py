"""`prm-kit rl recommend`: the handbook's table of scenarios."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.output import Output


def recommend(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print which algorithms the handbook takes for which situation, and what was measured of that here."""
    from rl.scenarios import SCENARIOS

    if as_json:
        sys.stdout.write(json.dumps([asdict(scenario) for scenario in SCENARIOS], indent=2) + "\n")
        return
    from rich.table import Table

    table = Table("situation", "stages", "why", "measured here", box=None)
    for scenario in SCENARIOS:
        table.add_row(scenario.situation, " -> ".join(scenario.stages), scenario.why, scenario.measured)
    output = Output()
    output.console.print(table)
    output.say("Whatever the choice: run the outcome-only algorithm beside it (prm-kit rl show rloo, grpo).")
