"""`prm-kit rl ...`: step rewards become a better policy. One module per verb."""

from __future__ import annotations

import os

import typer

from pipelines.rl.algorithms import algorithms
from pipelines.rl.compare import compare
from pipelines.rl.recommend import recommend
from pipelines.rl.report import report
from pipelines.rl.sft import sft
from pipelines.rl.show import show
from pipelines.rl.train import train
from prm_kit.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Reinforcement learning with step rewards.")


@app.callback()
def _root(ctx: typer.Context) -> None:
    """Algorithms are compositions of parts; any part can be replaced by name."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and ctx.invoked_subcommand != "train":
        raise UsageError(f"torchrun starts rl {ctx.invoked_subcommand} several times over: only rl train is for that")


app.command("algorithms")(algorithms)
app.command("show")(show)
app.command("recommend")(recommend)
app.command("train")(train)
app.command("sft")(sft)
app.command("report")(report)
app.command("compare")(compare)
