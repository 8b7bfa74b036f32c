"""`prm-kit rl ...`: step rewards become a better policy. One module per verb."""

from __future__ import annotations

import typer

from pipelines.rl.algorithms import algorithms
from pipelines.rl.compare import compare
from pipelines.rl.recommend import recommend
from pipelines.rl.sft import sft
from pipelines.rl.show import show
from pipelines.rl.train import train

app = typer.Typer(no_args_is_help=True, help="Reinforcement learning with step rewards.")


@app.callback()
def _root() -> None:
    """Algorithms are compositions of parts; any part can be replaced by name."""


app.command("algorithms")(algorithms)
app.command("show")(show)
app.command("recommend")(recommend)
app.command("train")(train)
app.command("sft")(sft)
app.command("compare")(compare)
