"""`prm-kit label ...`: whoever labels, writes to one ledger. One module per verb."""

from __future__ import annotations

import typer

from pipelines.label.construct import construct
from pipelines.label.judge import judge
from pipelines.label.merge import merge
from pipelines.label.prm import prm
from pipelines.label.quality import quality
from pipelines.label.queue import queue
from pipelines.label.rollouts import rollouts
from pipelines.label.rules import rules
from pipelines.label.studio import app as studio_app

app = typer.Typer(
    no_args_is_help=True, help="Label steps (people, judges, rollouts, rules, PRMs), merge, measure, queue."
)


@app.callback()
def _root() -> None:
    """Every labeller writes its annotations to a ledger."""


app.command("construct")(construct)
app.command("judge")(judge)
app.command("merge")(merge)
app.command("quality")(quality)
app.command("queue")(queue)
app.command("prm")(prm)
app.command("rollouts")(rollouts)
app.command("rules")(rules)
app.add_typer(studio_app, name="studio")
