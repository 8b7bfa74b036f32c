"""Push and pull of many solutions against a real Label Studio on this machine: seconds, CPU
seconds of the client and of the server, and how they grow (Linux).

    python benchmarks/label_studio.py 1000 3000 10000

Needs label-studio-sdk; the server is installed if it is not there. For the pull every page gets one annotation; those
are made by importing the tasks together with them, because single requests would take hours, and are not timed.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from labeling.label_studio import server
from labeling.label_studio.client import SdkStudio
from labeling.label_studio.interface import Page
from labeling.label_studio.projects import open_project
from labeling.label_studio.pull import pseudonym, pull
from labeling.label_studio.push import push
from labeling.label_studio.studio import NewTask
from prm_kit.ledger import Ledger
from prm_kit.records import Solution

STEPS = (5, 9, 12, 16, 24)
"""Steps per solution, in turn: on average 13 steps and 1.4 pages."""

PAGE = Page()


class Labelled(SdkStudio):
    """Imports every task with an annotation."""

    def import_tasks(self, project: int, tasks: Sequence[NewTask]) -> int:
        rows = [{"data": dict(task.data), "annotations": [{"result": labels(task)}]} for task in tasks]
        return int(self._sdk.projects.import_tasks(id=project, request=rows).task_count or 0)


def labels(task: NewTask) -> list[dict[str, object]]:
    return [
        {"from_name": f"label_{i}", "to_name": f"step_{i}", "type": "choices", "value": {"choices": ["1"]}}
        for i in range(len(task.data["steps"]))
    ]


def solutions(number: int, name: str) -> Iterator[Solution]:
    for n in range(number):
        steps = [
            f"Step {i} of {name} {n}: since $x_{{{i}}} = \\frac{{{i}}}{{{n + 2}}}$, we get ${i} + {n} = {i + n}$."
            for i in range(STEPS[n % len(STEPS)])
        ]
        yield Solution.from_steps(f"Problem {n} of {name}: find $\\sqrt{{{n}}}$.", steps, final_answer=str(n))


def server_cpu(pid: int) -> float:
    """CPU seconds that a process has used (Linux): what a busy machine does not change."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(studio: SdkStudio, labelled: Labelled, pid: int, folder: Path, number: int) -> dict[str, float]:
    row: dict[str, float] = {"solutions": number}

    @contextmanager
    def timed(row: dict[str, float], name: str) -> Iterator[None]:
        wall, client, there = time.perf_counter(), time.process_time(), server_cpu(pid)
        yield
        row[f"{name}_s"] = round(time.perf_counter() - wall, 1)
        row[f"{name}_client_cpu_s"] = round(time.process_time() - client, 2)
        row[f"{name}_server_cpu_s"] = round(server_cpu(pid) - there, 2)

    with Ledger(folder / f"{number}.sqlite") as ledger:
        project = open_project(studio, f"push {number}", PAGE)
        with timed(row, "push"):
            row["pages"] = push(studio, project, PAGE, solutions(number, "a"), ledger).added
        with timed(row, "push_again"):
            assert push(studio, project, PAGE, solutions(number, "a"), ledger).added == 0
        project = open_project(studio, f"pull {number}", PAGE)
        push(labelled, project, PAGE, solutions(number, "b"), ledger)
        for name in ("pull", "pull_again"):
            export = folder / f"{number}.json.gz"
            with timed(row, name):
                pulled, joined = pull(studio, project, PAGE, ledger, export, pseudonym)
            assert len(joined) == number
            assert pulled.stored == (number if name == "pull" else 0), (pulled.stored, pulled.refused[:3])
    row["export_mb"] = round(export.stat().st_size / 1e6, 1)
    row["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return row


def main(numbers: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        running, _ = server.up(folder / "server", lambda text: sys.stderr.write(text + "\n"))
        try:
            token = running.credentials.token
            with SdkStudio(running.url, token) as studio, Labelled(running.url, token) as labelled:
                rows = []
                for number in numbers:
                    rows.append(measure(studio, labelled, running.pid, folder, number))
                    print(json.dumps(rows[-1]), flush=True)
        finally:
            server.down(running.data)
    for before, after in pairwise(rows):
        for name in ("push", "push_again", "pull", "pull_again"):
            cpu = [row[f"{name}_client_cpu_s"] + row[f"{name}_server_cpu_s"] for row in (before, after)]
            exponent = math.log(cpu[1] / cpu[0]) / math.log(after["pages"] / before["pages"])
            pages = f"{before['pages']:.0f} -> {after['pages']:.0f} pages"
            print(f"{name}: {pages}: CPU time grows as pages ** {exponent:.2f}")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [1000, 3000, 10000])
