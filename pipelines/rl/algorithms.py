"""`prm-kit rl algorithms`: the presets, the parts that they are made of, and which parts go together."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Output

if TYPE_CHECKING:
    from rl.algorithms import Algorithm


def algorithms(
    parts: Annotated[bool, typer.Option("--parts", help="List every part by kind, with its numbers.")] = False,
    compatibility: Annotated[
        bool, typer.Option("--compatibility", help="Credit rules against estimators, and what each cell is.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all three as JSON.")] = False,
) -> None:
    """Print the algorithms and their parts."""
    output = Output()
    if as_json:
        sys.stdout.write(json.dumps(everything(), indent=2, default=str) + "\n")
    elif compatibility:
        _print_compatibility(output)
    elif parts:
        _print_parts(output)
    else:
        _print_presets(output)


def everything() -> dict[str, Any]:
    """Presets, parts and compatibility as JSON values."""
    from rl import compatibility
    from rl.parts import numbers_of
    from rl.presets import ALGORITHMS, CONTESTED

    return {
        "algorithms": {
            name: {
                "what": preset.what,
                "source": preset.source,
                "contested": CONTESTED.get(name),
                "needs": sorted(preset.needs),
                "parts": preset.parts(),
            }
            for name, preset in ALGORITHMS.items()
        },
        "parts": {
            kind: {name: {"what": _summary(part), "numbers": numbers_of(part)} for name, part in named.items()}
            for kind, named in registries().items()
        },
        "compatibility": {
            "cells": compatibility.table(),
            "meaning": compatibility.MEANING,
            "refused": [
                {"credit": credit, "estimator": estimator, "why": why}
                for (credit, estimator), why in compatibility.REFUSED.items()
            ],
            "resists": {credit: sorted(attacks) for credit, attacks in compatibility.RESISTS.items()},
        },
    }


def registries() -> dict[str, Any]:
    """Every registry of parts by the key that a recipe gives it under."""
    from rl.algorithms import COMPOUNDS, PARTS

    compounds = {f"{key}.{name}": named for key, (_, inner) in COMPOUNDS.items() for name, named in inner.items()}
    return {**PARTS, **compounds}


def row_of(preset: Algorithm) -> tuple[str, str, str]:
    """How a preset gets advantages (or pairs), its loss, and what else it has, in words."""
    found = preset.parts()
    advantage = found["estimator"]
    if preset.credit is not None:
        advantage += f" + {preset.weights.process:g} x {found['process_estimator']} of {found['credit']}"
    loss = f"{found['surrogate']}, {found['reduction']}"
    if preset.surrogate is None:
        advantage, _, loss = found["pairs"].rpartition(", weight ")[0].partition(", ")
    told = {"estimator", "credit", "process_estimator", "surrogate", "reduction", "group_size", "weights"}
    told |= {"pairs"} if preset.surrogate is None else set()
    others = {key: words for key, words in found.items() if key not in told and words not in ("-", "0")}
    return advantage, loss, "; ".join(f"{key} {words}" for key, words in others.items())


def _print_presets(output: Output) -> None:
    from rich.table import Table

    from rl.presets import ALGORITHMS, CONTESTED

    table = Table("algorithm", "source", box=None, padding=(0, 1, 0, 0))
    for title in ("advantage (or pairs)", "loss", "else"):
        table.add_column(title, overflow="fold")
    for name, preset in ALGORITHMS.items():
        table.add_row(f"{name}{'*' if name in CONTESTED else ''}", preset.source, *row_of(preset))
    output.console.print(table)
    for sentence in CONTESTED.values():
        output.say(f"* {sentence}")
    output.say("One of them: prm-kit rl show NAME. All parts: --parts. Which go together: --compatibility.")


def _print_parts(output: Output) -> None:
    from rl.parts import numbers_of

    for kind, named in registries().items():
        output.say(f"{kind}")
        for name, part in named.items():
            numbers = ", ".join(f"{key}={value}" for key, value in numbers_of(part).items())
            output.say(f"  {name}{f' ({numbers})' if numbers else ''}: {_summary(part)}")


def _print_compatibility(output: Output) -> None:
    from rich.table import Table

    from rl import compatibility

    cells = compatibility.table()
    estimators = list(next(iter(cells.values())))
    table = Table("credit", *(str(number) for number in range(1, len(estimators) + 1)), "gains nothing by", box=None)
    for credit, row in cells.items():
        resists = ", ".join(sorted(compatibility.RESISTS[credit])) or "(no promise)"
        table.add_row(credit, *row.values(), resists)
    output.console.print(table)
    for number, estimator in enumerate(estimators, start=1):
        output.say(f"{number:>3} {estimator}")
    output.say("Where every solution has one step that is scored by its outcome r, a cell")
    for sign, meaning in compatibility.MEANING.items():
        output.say(f"  {sign} {meaning}")
    for (credit, estimator), why in compatibility.REFUSED.items():
        output.say(f"  - {credit} x {estimator}: {why}")
    output.say(
        "gains nothing by: cutting steps of the same score (split), or adding steps that score above the worst before "
        f"(prepend) or after (append); not by split under {', '.join(sorted(compatibility.SEES_STEPS))}"
    )


def _summary(part: Any) -> str:
    """First line of a part's docstring."""
    while hasattr(part, "func"):
        part = part.func
    return str(part.__doc__ or "").strip().split("\n")[0]
