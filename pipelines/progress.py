"""The progress display: one bar for the stage that runs, on standard error, plain lines where it is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Named stages with counts. Calling it is what the loops below see: `progress(stage, done, total, note)`."""

    def __init__(self, seconds_between_lines: float = 10.0) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._seconds_between_lines = seconds_between_lines
        self._stage = ""
        self._task: TaskID | None = None
        self._last_line = 0.0
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        """Show that `done` of `total` units of `stage` are finished."""
        changed = stage != self._stage
        if changed:
            self._stage = stage
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(stage, total=total, note=note)
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)
        if not sys.stderr.isatty() and (changed or time.monotonic() - self._last_line > self._seconds_between_lines):
            self._last_line = time.monotonic()
            of = f" {done}/{total}" if total else ""
            self._console.print(f"{stage}{of} {note}".rstrip(), markup=False, soft_wrap=True)
