"""The command line: `prm-kit VERB`. Thin: every verb lives in its own module and imports what it needs when run."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from pipelines import (
    convert,
    doctor,
    evaluate,
    export,
    importing,
    label,
    quickstart,
    rl,
    run,
    score,
    search,
    serve,
    serve_check,
    split,
    stress,
    train,
)
from prm_kit import __version__
from prm_kit.errors import PrmKitError, UsageError


class _Group(TyperGroup):
    """Turns our errors into one message and the documented exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PrmKitError as error:
            sys.stderr.write(f"prm-kit: {error}\n")
            raise SystemExit(error.exit_code) from None
        except KeyboardInterrupt:
            sys.stderr.write("prm-kit: interrupted; the same command goes on from here\n")
            raise SystemExit(130) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Process reward models end to end: steps, {-1, 0, +1} labels, training, evaluation.",
)


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"prm-kit {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Exit codes: 0 done, 1 failed, 2 wrong use, 3 stopped by a limit and resumable, 130 interrupted."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and ctx.invoked_subcommand not in ("train", "rl"):
        raise UsageError(
            f"torchrun starts {ctx.invoked_subcommand} several times over: only train and rl train are for that"
        )


app.command("import")(importing.command)
app.command("export")(export.command)
app.command("split")(split.command)
app.add_typer(label.app, name="label")
app.add_typer(rl.app, name="rl")
app.command("train")(train.command)
app.command("convert")(convert.command)
app.command("score")(score.command)
app.command("eval")(evaluate.command)
app.command("stress")(stress.command)
app.command("search")(search.command)
app.command("serve")(serve.command)
app.command("serve-check")(serve_check.command)
app.command("run")(run.command)
app.command("quickstart")(quickstart.command)
app.command("doctor")(doctor.command)


def main() -> None:
    """Console entry point."""
    app()
