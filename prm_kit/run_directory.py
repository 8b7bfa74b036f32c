"""The directory that a run leaves: what was asked, with what, what was measured, and the summary.

DIR/
  recipe.yaml      the resolved recipe or settings
  versions.json    python, packages, device, git commit or null
  metrics.jsonl    what was measured, no clocks: same seed, same bytes
  timings.jsonl    wall and CPU seconds
  summary.json     the result, printed verbatim by --json
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from prm_kit import __version__
from prm_kit.files import whole_file, write_json

_PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "polars",
    "pyarrow",
    "numpy",
    "scikit-learn",
    "math-verify",
    "peft",
)


class RunDirectory:
    """Writes the files of one run. Metrics and timings are appended and flushed line by line.

    Args:
        path: The directory; made if needed.
        writes: Whether anything is written: of the processes of a run only the first one does.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        path.mkdir(parents=True, exist_ok=True)

    def start(self, recipe: Mapping[str, Any]) -> None:
        """Record what is about to run: the resolved recipe and the versions."""
        if not self.writes:
            return
        with whole_file(self.path / "recipe.yaml") as file:
            yaml.safe_dump(dict(recipe), file, sort_keys=False, allow_unicode=True)
        write_json(self.path / "versions.json", versions())

    def log(self, **values: Any) -> None:
        """Append one line to metrics.jsonl. No clock goes in here: the same seed gives the same bytes."""
        self._append("metrics.jsonl", values)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Append the wall and CPU seconds of a block to timings.jsonl, also when it fails."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.time(stage, time.perf_counter() - wall, time.process_time() - cpu)

    def time(self, stage: str, wall: float, cpu: float, **more: Any) -> None:
        """Append the wall and CPU seconds of a stage to timings.jsonl."""
        seconds = {"wall_seconds": round(wall, 3), "cpu_seconds": round(cpu, 3)}
        self._append("timings.jsonl", {"stage": stage, **more, **seconds})

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, the sign that the run is complete."""
        if self.writes:
            write_json(self.path / "summary.json", summary)

    def truncate_metrics(self, keep: int) -> None:
        """Keep the first `keep` lines of metrics.jsonl: what a resumed run had logged when it was saved."""
        if not self.writes:
            return
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        with whole_file(path) as file:
            file.writelines(lines[:keep])

    def metrics_lines(self) -> int:
        """Number of complete lines in metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def _append(self, name: str, values: Mapping[str, Any]) -> None:
        line = json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"
        if not self.writes:
            return
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(line)


def versions() -> dict[str, Any]:
    """Versions of python, prm-kit and the packages it stands on, and the git commit of the working folder or null."""
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return {
        "prm_kit": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": found,
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """Commit of the git checkout that holds this code, with "+dirty" if it was changed; None outside one."""
    folder = Path(__file__).resolve().parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        dirty = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+dirty" if dirty else commit


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["git", "-C", str(folder), *words],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()
