"""Where the time of an update goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prm_kit.run_directory import RunDirectory


class Phases:
    """Adds up wall and CPU seconds under the names of phases.

    Phases that overlap each count the CPU time of both; on CUDA the wall time is the one to read.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float]] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Count a block, also when it fails."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            before = self.seconds.get(name, (0.0, 0.0))
            self.seconds[name] = (before[0] + time.perf_counter() - wall, before[1] + time.process_time() - cpu)

    def tell(self, directory: RunDirectory, update: int) -> None:
        """Append a line for every phase to timings.jsonl, and start again at 0."""
        for name, (wall, cpu) in self.seconds.items():
            directory.time(name, wall, cpu, update=update)
        self.seconds = {}


class Timed:
    """Stands for another object, one method of which counts as a phase; a scorer or an engine, say."""

    def __init__(self, one: Any, method: str, phase: str, phases: Phases) -> None:
        self._one, self._method, self._phase, self._phases = one, method, phase, phases

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._one, name)
        return self._timed if name == self._method else found

    def _timed(self, *args: Any, **kwargs: Any) -> Any:
        with self._phases.of(self._phase):
            return getattr(self._one, self._method)(*args, **kwargs)
