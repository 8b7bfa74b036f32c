"""Where a verb speaks: its result on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.progress import Progress

Json = Annotated[bool, typer.Option("--json", help="Print summary.json verbatim on standard output; logs on stderr.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Directory that this command makes.")]


class Output:
    """One verb's output.

    Args:
        as_json: Print the summary verbatim and nothing else on standard output.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    @property
    def console(self) -> Console:
        """Console for people: standard output, or standard error when a program reads standard output."""
        from rich.console import Console

        console = Console(stderr=self.as_json, highlight=False)
        # A file or a pipe has no width; tables in it need not be squeezed into the default of 80.
        return console if console.is_terminal else Console(stderr=self.as_json, highlight=False, width=140)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A progress display on standard error that names the stage."""
        from pipelines.progress import Progress

        with Progress() as progress:
            yield progress

    def say(self, text: str) -> None:
        """Print one line for people."""
        self.console.print(text, markup=False, soft_wrap=True)

    def figures(self, summary: Mapping[str, Any]) -> None:
        """Print what a summary holds, a line each; with --json nothing, because the file itself follows."""
        for key, value in summary.items() if not self.as_json else ():
            self.say(f"{key}: {value}")

    def summary(self, path: Path) -> None:
        """End the verb: with --json the file's bytes, otherwise where they lie."""
        if self.as_json:
            sys.stdout.write(path.read_text(encoding="utf-8"))
        else:
            self.say(f"summary: {path}")
