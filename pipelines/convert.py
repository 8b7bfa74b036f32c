"""`prm-kit convert`: a published PRM becomes a checkpoint of ours with the same scores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.output import Json, Output
from pipelines.scorers import Family, Reference


def command(
    source: Annotated[str, typer.Argument(help="Folder or hub id of a published PRM, or of a causal PRM of ours.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint folder to write.")],
    family: Family = None,
    reference: Reference = None,
    target: Annotated[
        str | None, typer.Option(help="Export a checkpoint of ours instead: vllm, vllm-qwen-prm or sglang.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a token-classification checkpoint; three solutions are scored before and after, and must agree."""
    from rich.table import Table

    from prm_kit.errors import UsageError
    from prm_kit.files import json_text
    from prm_kit.released.convert import SAMPLES, convert_prm

    output = Output(as_json)
    if target is not None:
        if family or reference:
            raise UsageError("--target exports a checkpoint of ours: --family and --reference are not for it")
        _export(target, Path(source), out, output)
        return
    done = convert_prm(source, out, family=family, reference=reference)
    if as_json:
        scores = [
            {"problem": solution.problem, "before": one.values, "after": other.values}
            for solution, one, other in zip(SAMPLES, done.before, done.after, strict=True)
        ]
        found = {"family": done.family, "readout": done.readout, "difference": done.difference, "scores": scores}
        sys.stdout.write(json_text({"checkpoint": str(out), **found}))
        return
    table = Table("problem", "step", "before", "after", box=None)
    for solution, one, other in zip(SAMPLES, done.before, done.after, strict=True):
        for step, (text, value, again) in enumerate(zip(solution.steps, one.values, other.values, strict=True)):
            problem = solution.problem if step == 0 else ""
            table.add_row(problem, " ".join(text.split()), f"{value:+.6f}", f"{again:+.6f}")
    output.console.print(table)
    output.say(f"{done.family} ({done.readout}): values differ by {done.difference:.1g} at most")
    output.say(f"checkpoint: {out}")


def _export(target: str, checkpoint: Path, out: Path, output: Output) -> None:
    from prm_kit.files import json_text
    from prm_kit.serve.exports import export

    done = export(target, checkpoint, out)
    if output.as_json:
        found = {"checkpoint": str(out), "target": target, "command": done.command, "golden": done.golden}
        sys.stdout.write(json_text({**found, "notes": list(done.notes)}))
        return
    for note in done.notes:
        output.say(f"note: {note}")
    output.say(f"serve:  {done.command}")
    output.say(f"check:  prm-kit serve-check URL --golden {out} --engine {target.partition('-')[0]}")
