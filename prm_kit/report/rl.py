"""A run of reinforcement learning as one offline HTML page without any script.

Curves with the alarms in them, the composition of the algorithm, and the rollouts on which PRM and verifier disagree
most, step by step. As in the evaluation's page all text of the data goes through jinja2's autoescape, and the content
security policy allows nothing but our own style.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from markupsafe import Markup

from prm_kit import __version__
from prm_kit.files import whole_file
from prm_kit.report.html import asset, content_security_policy, shade, templates
from prm_kit.report.rl_figures import run_figures
from prm_kit.report.tables import DASH, Cell, signed

_SHOWN = 12
"""Rollouts of each kind."""


def write_rl_report(path: Path, data: Mapping[str, Any]) -> None:
    """Write the page, whole or not at all.

    Args:
        path: The HTML file.
        data: See `render_rl`.
    """
    page = render_rl(data)
    with whole_file(path) as file:
        file.write(page)


def render_rl(data: Mapping[str, Any]) -> str:
    """The page as text; a pure function of the data.

    Args:
        data: name; about (facts by name); parts (of the algorithm, in words); train and held_out (lines of
            metrics.jsonl, those of updates without anything to learn from too); alarms (the first of each name: update,
            name, kind, began, text); rollouts (update, problem, steps, step_values in [-1, 1] or None, correct, reward,
            parts); asked (updates of the whole run); before and after (by figure the numbers of each held-out problem;
            empty where the run has not ended).
    """
    style = asset("page.css")
    environment = templates()
    environment.filters |= {"shade": shade, "signed": signed}
    liked, disliked = disagreements(data["rollouts"])
    return environment.get_template("rl.html.j2").render(
        data=data,
        headline=_headline(data),
        tiles=_tiles(data),
        figures=run_figures(data["train"], data["held_out"], data["alarms"]),
        rollouts=[
            ("Wrong answers that the PRM likes", "How a PRM is gamed shows here first.", liked),
            (
                "Right answers that the PRM dislikes",
                "A right answer by a wrong step, or a PRM that is mistaken.",
                disliked,
            ),
        ],
        scale=[x / 5 for x in range(-5, 6)],
        style=Markup(style),  # noqa: S704 - our own file
        policy=content_security_policy(style, ""),
        version=__version__,
    )


def disagreements(rollouts: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Wrong rollouts by the value of their worst step, best first, and right ones, worst first; none twice."""
    judged = {
        (one["problem"], tuple(one["steps"])): one
        for one in rollouts
        if one["correct"] is not None and any(value is not None for value in one["step_values"])
    }

    def worst(one: Mapping[str, Any]) -> float:
        return min(float(value) for value in one["step_values"] if value is not None)

    wrong = sorted((one for one in judged.values() if not one["correct"]), key=worst, reverse=True)
    right = sorted((one for one in judged.values() if one["correct"]), key=worst)
    return [one for one in wrong if worst(one) > 0][:_SHOWN], [one for one in right if worst(one) < 0][:_SHOWN]


def _headline(data: Mapping[str, Any]) -> str:
    done = len(data["train"])
    rollouts = sum(line.get("sampled", 0) for line in data["train"])
    of = f" of {data['asked']:,}" if data["asked"] > done else ""
    skipped = sum("skipped" in line for line in data["train"])
    without = f", {skipped:,} updates without anything to learn from" if skipped else ""
    return f"{done:,}{of} updates, {rollouts:,} rollouts{without}"


def _tiles(data: Mapping[str, Any]) -> list[tuple[str, Cell, str]]:
    """What a run comes to: title, figure, what it is beside."""
    tiles = []
    for key, title in (("sampled", "Held out, sampled"), ("greedy", "Held out, greedy"), ("process", "Process reward")):
        lines = [line for line in data["held_out"] if line.get(key) is not None]
        if not lines:
            continue
        before, after = data["before"].get(key), data["after"].get(key)
        gain = ""
        if len(lines) > 1:
            pairs = [(a, b) for a, b in zip(before or (), after or (), strict=True) if None not in (a, b)]
            moved = [b - a for a, b in pairs] or [lines[-1][key] - lines[0][key]]
            error = f" ± {1.96 * stdev(moved) / len(moved) ** 0.5:.3f}" if len(moved) > 1 else ""
            gain = f"{signed(fmean(moved), 3)}{error}, paired" if error else signed(fmean(moved), 3)
        tiles.append((title, Cell(f"{lines[-1][key]:.3f}", gain), f"{lines[0][key]:.3f} at the start"))
    accuracy = [line["accuracy"] for line in data["train"] if line.get("accuracy") is not None]
    if accuracy:
        width = max(1, min(10, len(accuracy) // 3))
        tiles.append(("Training accuracy", Cell(f"{fmean(accuracy[-width:]):.3f}", f"last {width} updates"),
                      f"{fmean(accuracy[:width]):.3f} in the first {width}"))  # fmt: skip
    names = ", ".join(f"{alarm['name']} ({alarm['update']})" for alarm in data["alarms"])
    return [*tiles, ("Alarms", Cell(f"{len(data['alarms'])}" if data["train"] else DASH, names), "")]
