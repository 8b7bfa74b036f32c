"""Stages that are skipped when nothing they stand on has changed.

A stage fills one folder. Beside its artefacts lies `stage.json`: the stage's key (a hash of its settings and of the
keys and files that it reads) and what made it. A folder whose key still fits is complete and is used as it is; without
`stage.json` the stage was interrupted and runs again (a training run finds its own checkpoint there and goes on).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prm_kit import __version__
from prm_kit.files import file_sha256, value_sha256, write_json
from prm_kit.run_directory import RunDirectory


class Stages:
    """Runs the stages of one recipe in `run.path/stages`.

    Args:
        run: The run directory; every stage's time goes to its timings.jsonl.
        say: Called with one line for people when a stage starts or is skipped.
    """

    def __init__(self, run: RunDirectory, say: Callable[[str], None]) -> None:
        self.run = run
        self.say = say
        self.keys: dict[str, str] = {}
        self.skipped: list[str] = []

    def folder(self, name: str) -> Path:
        """Where the stage's artefacts lie."""
        return self.run.path / "stages" / name

    def __call__(
        self,
        name: str,
        work: Callable[[Path], Mapping[str, Any]],
        *,
        settings: Any,
        after: Sequence[str] = (),
        files: Sequence[Path] = (),
        keeps_partial_work: bool = False,
    ) -> dict[str, Any]:
        """Run `work(folder)` unless the folder already holds the same work; return what it returned.

        Args:
            name: The stage's name, also its folder.
            work: Fills the folder and returns a JSON mapping, which is kept in stage.json.
            settings: JSON value that the result depends on.
            after: Names of stages that this one reads.
            files: Files or directories from outside that this one reads; their contents are hashed.
            keeps_partial_work: The folder of an interrupted attempt with the same key is handed to `work` as it was.
        """
        key = value_sha256(
            {
                "settings": settings,
                "after": {other: self.keys[other] for other in after},
                "files": {str(path): fingerprint(path) for path in files},
                "version": __version__,
            }
        )
        self.keys[name] = key
        folder = self.folder(name)
        done = _read(folder / "stage.json")
        if done is not None and done["key"] == key:
            self.skipped.append(name)
            self.say(f"{name}: unchanged, kept")
            result: dict[str, Any] = done["result"]
            return result
        started = _read(folder / "started.json")
        if folder.exists() and not (keeps_partial_work and started is not None and started["key"] == key):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "started.json", {"key": key})
        self.say(f"{name}: running")
        with self.run.timed(name):
            result = dict(work(folder))
        made_by = {"prm_kit": __version__, "settings": settings, "after": list(after), "files": [str(f) for f in files]}
        write_json(folder / "stage.json", {"name": name, "key": key, "made_by": made_by, "result": result})
        (folder / "started.json").unlink()
        return result


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files below a directory."""
    if path.is_dir():
        return value_sha256({str(p.relative_to(path)): file_sha256(p) for p in sorted(path.rglob("*")) if p.is_file()})
    return file_sha256(path)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
