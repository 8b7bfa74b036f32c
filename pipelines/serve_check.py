"""`prm-kit serve-check`: does a server say what the checkpoint says?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.output import Json, Output
from pipelines.scorers import TOKEN_VARIABLE


def command(
    url: Annotated[str, typer.Argument(help="Such as http://127.0.0.1:8000.")],
    golden: Annotated[Path, typer.Option(help="golden.jsonl of the checkpoint, or the checkpoint's folder.")],
    engine: Annotated[str, typer.Option(help="prm-kit, vllm or sglang.")] = "prm-kit",
    token_file: Annotated[Path | None, typer.Option(help=f"Default: environment variable {TOKEN_VARIABLE}.")] = None,
    insecure: Annotated[bool, typer.Option(help="Allow http to another machine.")] = False,
    as_json: Json = False,
) -> None:
    """Ask a server for the golden solutions; exit 1 unless every probability is within 0.02."""
    from rich.table import Table

    from prm_kit.endpoint import read_key
    from prm_kit.files import json_text
    from prm_kit.serve.check import TOLERANCE, check_server
    from prm_kit.serve.golden import FILE_NAME, read_golden

    items = read_golden(golden / FILE_NAME if golden.is_dir() else golden)
    checked = check_server(url, items, engine, read_key(TOKEN_VARIABLE, token_file), insecure=insecure)
    passed = all(one.passed for one in checked)
    if as_json:
        rows = [{"item": one.item, "steps": one.steps, "difference": one.difference} for one in checked]
        reasons = sorted({one.reason for one in checked if one.reason})
        found = {"passed": passed, "engine": engine, "tolerance": TOLERANCE, "items": rows, "reasons": reasons}
        sys.stdout.write(json_text(found))
        raise SystemExit(int(not passed))
    output = Output()
    table = Table("item", "steps", "largest difference", "", box=None)
    for one in checked:
        difference = one.reason if one.difference is None else f"{one.difference:.5f}"
        table.add_row(str(one.item), str(one.steps), difference, "ok" if one.passed else "FAILED")
    output.console.print(table)
    number = sum(one.passed for one in checked)
    output.say(f"{engine}: {number} of {len(checked)} within {TOLERANCE}")
    raise SystemExit(int(not passed))
