"""`prm-kit quickstart`: from nothing to a trained and evaluated PRM, offline, on the embedded arithmetic task."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.output import Json, Output


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory.")] = Path("runs/quickstart"),
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Teach a tiny policy sums, train a PRM on its labelled solutions, measure it, let it reward the policy."""
    # Nothing is downloaded here, and bars of a hundredth of a second only hide our own.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from pipelines.quickstart.run import run_quickstart

    output = Output(as_json)
    with output.progress() as progress:
        summary = run_quickstart(out, seed, progress)
    for line in () if as_json else told(summary):
        output.say(line)
    output.summary(out / "summary.json")


def told(summary: dict[str, Any]) -> list[str]:
    """The summary in a few lines; the whole evaluation is in the report."""
    figures = {"PRM after training": summary["prm"]["after"], "PRM before training": summary["prm"]["before"]}
    lines = [f"{figures['PRM after training']['metric']} on unseen problems:"]
    lines += [
        f"  {name:28} {figure['value']:.3f}   (95 %: {figure['low']:.3f} to {figure['high']:.3f})"
        for name, figure in (figures | summary["baselines"]).items()
    ]
    lines.append("Accuracy of the policy on unseen problems:")
    lines += [
        f"  {name:28} {figure['value']:.3f}   (95 %: {figure['low']:.3f} to {figure['high']:.3f})"
        for name, figure in summary["policy"]["accuracy"].items()
    ]
    lines += [f"warning: {text}" for text in summary["warnings"]]
    return [*lines, f"These are figures of {summary['figures_are_of']}.", "All tables and figures: report.html"]
