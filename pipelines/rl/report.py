"""`prm-kit rl report`: what a run of reinforcement learning has come to, finished or not, as one offline page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.output import Json, Output


def report(
    out: Annotated[Path, typer.Argument(help="Directory of `prm-kit rl train`, running or done.")],
    as_json: Json = False,
) -> None:
    """Write OUT/report.html anew."""
    output = Output(as_json)
    data = write_report(out)
    if as_json:
        typer.echo(json.dumps({"report": str(out / "report.html"), "alarms": data["alarms"]}))
    else:
        for alarm in data["alarms"]:
            output.say(f"update {alarm['update']}: {alarm['text']}")
        output.say(f"report: {out / 'report.html'}")


def write_report(out: Path) -> dict[str, Any]:
    """Write the report of the run in `out`, and return what it was made of."""
    from prm_kit.report.rl import write_rl_report

    data = run_data(out)
    write_rl_report(out / "report.html", data)
    return data


def run_data(out: Path) -> dict[str, Any]:
    """What the report shows of a run, from its files; see `prm_kit.report.rl.render_rl`.

    Raises:
        UsageError: There is no run.
        InputError: A line is no JSON.
    """
    import yaml

    from prm_kit.errors import UsageError
    from prm_kit.split import split
    from rl.alarms import first_alarms, raised

    if not (out / "metrics.jsonl").exists() or not (out / "recipe.yaml").exists():
        raise UsageError(f"{out}: no run of `prm-kit rl train`: it has no metrics.jsonl and recipe.yaml")
    recipe = yaml.safe_load((out / "recipe.yaml").read_text(encoding="utf-8"))
    if "algorithm" not in recipe.get("rl", {}):
        raise UsageError(f"{out}: a run, but none of `prm-kit rl train`: its recipe.yaml has {', '.join(recipe)}")
    settings = recipe["rl"]
    lines = json_lines(out / "metrics.jsonl")
    summary = json.loads((out / "summary.json").read_text("utf-8")) if (out / "summary.json").exists() else {}
    rollouts = []
    for one in json_lines(out / "rollouts.jsonl"):
        spans = split(one["completion"], settings["split"]).spans
        if len(spans) == len(one["step_values"]):
            rollouts.append({**one, "steps": [one["completion"][start:end] for start, end in spans]})
    held_out = summary.get("held_out", {})
    asked = {"group_size": settings["group_size"]} if settings.get("group_size") else {}
    about = {key: recipe[key] for key in ("task", "prm") if recipe.get(key)}
    return {
        "name": f"{settings['algorithm']}, seed {settings['seed']}",
        "about": {**about, "policy": settings["policy"]},
        "parts": recipe["algorithm"] | asked,
        "asked": settings["updates"],
        "train": [line for line in lines if line["part"] == "train"],
        "held_out": [line for line in lines if line["part"] == "held_out"],
        # A run from before alarms had names, or figures errors, is read with today's rules.
        "alarms": first_alarms(lines) if any("errors" in line for line in lines) else raised(lines),
        "rollouts": rollouts,
        "before": held_out.get("before", {}),
        "after": held_out.get("after", {}),
    }


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSONL file that may be being written right now; none where it is not there."""
    from prm_kit.errors import InputError

    found = []
    # As bytes: what is being written may end within a character.
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.exists() else (), 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"{path}:{number}: no JSON: {error}") from None
    return found
