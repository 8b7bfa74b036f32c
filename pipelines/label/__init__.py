"""`prm-kit label ...`: whoever labels, writes to one ledger. One module per verb."""

from __future__ import annotations

import typer

from pipelines.label.rules import rules

app = typer.Typer(no_args_is_help=True, help="Label steps: rules.")


@app.callback()
def _root() -> None:
    """Every labeller writes its annotations to a ledger."""


app.command("rules")(rules)
