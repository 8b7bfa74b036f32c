"""Kill a labelling command with SIGKILL at random moments, let it go on, and check that nothing is lost or doubled.

    python benchmarks/kill.py --scripted-judge [--kills 50]
    python benchmarks/kill.py --ledger OUT/ledger.sqlite [--kills 50] [--longest 20] -- prm-kit label rollouts ...

The command is started again and again and killed at a random moment: between 0 and --longest seconds after it first
asked or wrote something, and every fifth time between 0 and --longest seconds after its start, whatever it does then.
Once it was killed --kills times it runs to its end. If it ends before, its ledger must not grow any more. Checked
after every life:

- every annotation that was in the ledger is in it still, and no rater has labelled a solution twice;
- with --asked (one request id a line, in the order of arrival) and --answers (the judge's store): no request whose
  answer was on the disk when the command was killed is sent again, and no more are sent again than were in flight or
  not yet committed (--window).
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "tests" / "labeling" / "judge" / "scripted_server.py"


class Watch:
    """What is on the disk after each life, and whether it may be so."""

    def __init__(self, ledger: Path, asked: Path | None, answers: Path | None, window: int | None) -> None:
        self.ledger, self.asked, self.answers, self.window = ledger, asked, answers, window
        self.annotations: dict[str, tuple] = {}
        self.committed: set[str] = set()
        self.lines = 0
        self.again: list[int] = []
        self.violations: list[str] = []
        self._open: set[str] = set()

    def state(self) -> tuple:
        """Changes as soon as the command asks or writes something."""
        paths = [self.asked] if self.asked else [self.ledger, self.ledger.with_name(f"{self.ledger.name}-wal")]
        return tuple(path.stat().st_size for path in paths if path.exists())

    def look(self, life: int) -> None:
        now = {
            row[0]: row[1:]
            for row in rows(
                self.ledger, "SELECT id, solution_id, rater_kind, rater_name, rater_version FROM annotations"
            )
        }
        if lost := self.annotations.keys() - now.keys():
            self.violations.append(f"life {life}: {len(lost)} annotations are gone")
        if twice := [about for about, n in Counter(now.values()).items() if n > 1]:
            self.violations.append(
                f"life {life}: {len(twice)} solutions labelled twice by one rater, such as {twice[0]}"
            )
        self.annotations = now
        if self.asked is not None:
            self._look_at_requests(life)

    def _look_at_requests(self, life: int) -> None:
        ids = self.asked.read_text().split() if self.asked.exists() else []
        new = ids[self.lines :]
        self.lines = len(ids)
        if paid_twice := self.committed.intersection(new):
            self.violations.append(
                f"life {life}: {len(paid_twice)} requests were asked again though answered and on disk"
            )
        if doubled := [key for key, n in Counter(new).items() if n > 1]:
            self.violations.append(f"life {life}: {len(doubled)} requests were asked twice in one life")
        again = len(self._open.intersection(new))
        self.again.append(again)
        if self.window is not None and again > self.window:
            self.violations.append(
                f"life {life}: {again} requests were asked again, more than the window of {self.window}"
            )
        self.committed = {row[0] for row in rows(self.answers, "SELECT key FROM answers WHERE usable")}
        self._open = set(ids) - self.committed


def rows(path: Path | None, query: str) -> list[tuple]:
    if path is None or not path.exists():
        return []
    with sqlite3.connect(path, timeout=60) as db:
        try:
            found = db.execute(query).fetchall()
        except sqlite3.OperationalError:  # killed before the tables were there
            found = []
    db.close()
    return found


def live(command: list[str], seconds: float | None, started: Callable[[], bool]) -> int | None:
    """Run the command until so many seconds after it started working; its exit code, or None if it was killed."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        while process.poll() is None and not started():
            time.sleep(0.02)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None
        if process.returncode:
            errors.seek(0)
            sys.exit(f"the command failed with exit code {process.returncode}:\n{errors.read()[-3000:]}")
        return process.returncode


def kill_often(command: list[str], watch: Watch, kills: int, shortest: float, longest: float, seed: int) -> None:
    rng = random.Random(seed)
    killed = life = ended = 0
    at_end = -1
    while killed < kills:
        life += 1
        seconds, blindly = rng.uniform(shortest, longest), life % 5 == 0
        before = watch.state()
        code = live(command, seconds, lambda: blindly or watch.state() != before)  # noqa: B023 - called at once
        watch.look(life)
        killed += code is None
        ended += code is not None
        how = f"{'killed after' if code is None else 'ended within'} {seconds:.1f} s{' of starting' if blindly else ''}"
        again = f", {watch.lines} requests, {watch.again[-1]} again" if watch.again else ""
        print(f"life {life}: {how}, {len(watch.annotations)} annotations{again}", flush=True)
        if code is not None:
            if at_end not in (-1, len(watch.annotations)):
                watch.violations.append(f"life {life}: the ledger grew after the end")
            at_end = len(watch.annotations)
    live(command, None, lambda: True)
    watch.look(life + 1)
    print(f"killed {killed} times ({ended} lives ended before), {len(watch.annotations)} annotations in the ledger")
    if watch.asked is not None:
        distinct = len(set(watch.asked.read_text().split()))
        print(
            f"{watch.lines} requests for {distinct} answers: {watch.lines - distinct} asked again in all, "
            f"at most {max(watch.again)} after one kill (window {watch.window})"
        )
    print("violations:", "\n".join(watch.violations) or "none")
    sys.exit(bool(watch.violations))


def scripted_judge(
    folder: Path, solutions: int, latency: float, concurrency: int
) -> tuple[list[str], Watch, subprocess.Popen]:
    """A judge run against the scripted server, with its requests logged by the server."""
    lines = (
        json.dumps({"problem": f"problem {n}", "steps": [f"First {n}.", f"Then {n + 1}."], "labels": [None, None]})
        for n in range(solutions)
    )
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    program = [sys.executable, "-c", "from pipelines.cli import main; main()"]
    data, asked, out = folder / "data", folder / "asked.log", folder / "out"
    subprocess.run([*program, "import", "steps", folder / "rows.jsonl", "--out", data], check=True, capture_output=True)
    server = subprocess.Popen(
        [sys.executable, str(SERVER), "--latency", str(latency), "--log", str(asked)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    url = server.stdout.readline().strip()
    command = [*program, "label", "judge", str(data), "--base-url", url, "--model", "m", "--out", str(out)]
    command += ["--concurrency", str(concurrency)]
    from labeling.judge.commit import MOST_UNCOMMITTED

    watch = Watch(out / "ledger.sqlite", asked, out / "answers.sqlite", MOST_UNCOMMITTED + concurrency)
    return command, watch, server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--shortest", type=float, default=0.0)
    parser.add_argument("--longest", type=float, default=5.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ledger", type=Path)
    parser.add_argument("--asked", type=Path, help="log with one request id a line")
    parser.add_argument("--answers", type=Path, help="the judge's answers.sqlite")
    parser.add_argument("--window", type=int, help="most requests that may be asked again after a kill")
    parser.add_argument("--scripted-judge", action="store_true", help="make command and server of our own")
    parser.add_argument("--solutions", type=int, default=2000, help="with --scripted-judge")
    parser.add_argument("--latency", type=float, default=0.5, help="with --scripted-judge")
    parser.add_argument("--concurrency", type=int, default=16, help="with --scripted-judge")
    parser.add_argument("command", nargs="*", help="after --")
    given = parser.parse_args()
    start = time.monotonic()
    if not given.scripted_judge:
        if given.ledger is None or not given.command:
            parser.error("give --ledger and a command after --, or --scripted-judge")
        watch = Watch(given.ledger, given.asked, given.answers, given.window)
        kill_often(given.command, watch, given.kills, given.shortest, given.longest, given.seed)
        return
    sys.path.insert(0, str(ROOT))
    os.environ["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        command, watch, server = scripted_judge(Path(folder), given.solutions, given.latency, given.concurrency)
        try:
            kill_often(command, watch, given.kills, given.shortest, given.longest, given.seed)
        finally:
            server.communicate("")
            print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
