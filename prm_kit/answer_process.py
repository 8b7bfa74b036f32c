"""The parent's side of the killable process in which math-verify runs."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from json import dumps, loads
from pathlib import Path
from typing import Literal, get_args

from prm_kit.errors import PrmKitError, UsageError

Reason = Literal["exact", "numeric", "symbolic", "different", "timeout", "too_long", "refused", "unparsed", "crashed"]
REASONS: tuple[str, ...] = get_args(Reason)

_START_SECONDS = 60.0
_KEPT_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT")


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        equal: Whether the two answers are equivalent; None where no verdict could be reached.
        reason: How it was reached, or why not.
    """

    equal: bool | None
    reason: Reason


class AnswerProcess:
    """One process at a time, started when needed, killed when late."""

    def __init__(self, memory_mb: int) -> None:
        self._memory_mb = memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = 0
        self._closed = False

    def ask(self, answer: str, reference: str, seconds: float) -> Verdict:
        """Put one question. The process is killed unless it answered in time, whatever else happens."""
        process = self._running()
        self._asked += 1
        task = {"id": self._asked, "answer": answer, "reference": reference, "cpu_seconds": seconds}
        done = False
        try:
            assert process.stdin is not None
            process.stdin.write(dumps(task).encode() + b"\n")
            process.stdin.flush()
            line = _read_line(process, seconds)
            if line is None:
                return Verdict(None, "timeout")
            reply = loads(line)
            if reply["id"] != self._asked or reply["reason"] not in REASONS:
                return Verdict(None, "crashed")
            done = reply["reason"] != "crashed"
            return Verdict(reply["equal"], reply["reason"])
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            # a process that RLIMIT_CPU ended was late, any other that is gone has crashed
            return Verdict(None, "timeout" if _ended_by_cpu_limit(process) else "crashed")
        finally:
            if not done:
                self.kill()

    def close(self) -> None:
        """End the process and start no other."""
        self._closed = True
        self.kill()

    def kill(self) -> None:
        """End the process, at once and for certain."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.kill()
        if self._closed:
            raise UsageError("this answer checker is closed")
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-B", str(Path(__file__).with_name("answer_worker.py")), str(self._memory_mb)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=os.sep,
                env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
                start_new_session=True,  # an interrupt from the keyboard is the parent's business
                bufsize=0,
            )
            self._process = process
            try:
                ready = _read_line(process, _START_SECONDS)
            except (OSError, EOFError):
                ready = None
            except BaseException:
                self.kill()
                raise
            if ready is None:
                self.kill()
                errors.seek(0)
                said = errors.read()[-400:].decode("utf-8", "replace").strip()
                raise PrmKitError(
                    f"the answer checking process does not start within {self._memory_mb} MB and {_START_SECONDS:.0f} s"
                    f"; raise memory_mb, or install math-verify: {said}"
                )
        return process


def _read_line(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """One line of the process's output; None when the time is over.

    Raises:
        EOFError: The process has ended, or it says more than an answer is long.
    """
    assert process.stdout is not None
    deadline = time.monotonic() + seconds
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not said.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                return None
            piece = os.read(process.stdout.fileno(), 4096)
            said += piece
            if not piece or len(said) > 4096:
                raise EOFError
    return said


def _ended_by_cpu_limit(process: subprocess.Popen[bytes]) -> bool:
    try:
        return process.wait(timeout=1.0) in (-signal.SIGXCPU, -signal.SIGKILL)
    except subprocess.TimeoutExpired:
        return False
