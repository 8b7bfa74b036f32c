"""`prm-kit rl show`: one algorithm in full."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from pipelines.output import Output


def show(
    name: Annotated[str, typer.Argument(help="An algorithm; `prm-kit rl algorithms` lists them.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="PART=NAME or PART.NUMBER=VALUE, as in a recipe.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what an algorithm is made of, formula by formula, and what a run of it needs."""
    from pipelines.rl.algorithms import registries
    from prm_kit.settings import apply_override
    from rl.parts import name_of
    from rl.presets import CONTESTED, algorithm

    parts: dict[str, object] = {}
    for override in overrides or ():
        apply_override(parts, override)
    found = algorithm(name, parts)
    if as_json:
        answer = {
            "name": name,
            "what": found.what,
            "source": found.source,
            "contested": CONTESTED.get(name),
            "needs": sorted(found.needs),
            "parts": found.parts(),
        }
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return
    output = Output()
    output.say(f"{name}: {found.what} ({found.source})")
    if name in CONTESTED:
        output.say(CONTESTED[name])
    for kind, words in found.parts().items():
        if words in ("-", "0"):
            continue
        output.say(f"{kind:>18}  {words}")
        part = getattr(found, kind)
        for key, registry in registries().items():
            inner = getattr(part, key.partition(".")[2], None) if key.startswith(f"{kind}.") else part
            if key.partition(".")[0] == kind and name_of(inner) in registry:
                output.say(f"{'':>18}    {(registry[name_of(inner)].__doc__ or '').strip().splitlines()[0]}")
    output.say(f"{'needs':>18}  {', '.join(sorted(found.needs)) or 'nothing beside a verifier'}")
    if found.surrogate is not None and found.on_policy_only:
        output.say(f"{'':>18}  one optimiser step for each batch of rollouts: its loss has no importance ratio")
    if said := found.composed_weights.inversion(found.wrong):
        output.say(f"{'beware':>18}  {said}")
