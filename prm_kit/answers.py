"""Final answers: finding the one that a completion states, and checking it against a reference.

Equal strings and literal quantities are compared here, exactly. Everything else goes to math-verify, and only ever in
a process that can be killed, because its parser ends in `eval` and its algebra has no bound. A check that failed has
no verdict (`equal` is None) and is counted; it is never a silent False.
"""

from __future__ import annotations

import os
import queue
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from json import dumps, loads
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

from prm_kit.answer_text import extract_final_answer
from prm_kit.errors import PrmKitError, UsageError
from prm_kit.quantities import parse_quantity, plain_text, same_quantity

__all__ = ["REASONS", "AnswerChecker", "Reason", "Verdict", "extract_final_answer", "refusal"]

Reason = Literal["exact", "numeric", "symbolic", "different", "timeout", "too_long", "refused", "unparsed", "crashed"]
REASONS: tuple[str, ...] = get_args(Reason)

MAX_CHARACTERS = 2000
"""An answer longer than this is not looked at."""

_START_SECONDS = 60.0
_CACHE_SIZE = 10_000
_KEPT_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT")

_REFUSED = tuple(
    (re.compile(pattern), why)
    for pattern, why in (
        (r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", "control character or surrogate"),
        (r"__|\"|'\s*[\w.]+[^']*'|\b(?:lambda|import)\b|\b(?:exec|eval|open|getattr|compile|globals)\s*\(", "code"),
        (r"[)\]A-Za-z_]\s*\.\s*[A-Za-z_]{2,}\s*[(\[.]", "attribute access"),
        (r"[0-9]{101,}", "more than 100 digits"),
        (r"[eE][-+]?[0-9]{4,}", "exponent"),
        (r"(?:\^|\*\*)\s*[{(]*\s*[-+]?\s*[0-9]{4,}", "exponent"),
        (r"(?:(?:\^|\*\*)[^+\-=,]{1,12}){2}(?:\^|\*\*)|[0-9]\s*[)}]*\s*(?:\^|\*\*)\s*[{(]*[0-9.]+\s*[)}]*\s*(?:\^|\*\*)",
         "tower of powers"),
        (r"[0-9]{4,}\s*[)}]*\s*!|[0-9)}]\s*[)}]*!\s*[)}]*!|factorial|[Gg]amma\s*[({]|!\s*\)\s*!", "factorial"),
        (r"\\[dt]?binom(?=.*(?:\^|[0-9]{4}))", "binomial"),
        (r"\\(?:sum|prod|o?i*int|lim|def|newcommand|input|include)(?![a-z])", "unevaluated operator"),
        (r"(?:[-+*/^][^-+*/^]*){200}", "more than 200 operators"),
    )
)  # fmt: skip
_MAX_DEPTH = 25
_WORDS = re.compile(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*|\([^\W\d_]\)")
_FREE_WORD = re.compile(
    r"(?<![\\A-Za-z])(?!(?:a?(?:sin|cos|tan|sec|csc|cot)h?|arc(?:sin|cos|tan)|sqrt|log|exp|mod|max|min|gcd|lcm|det|and)"
    r"(?![A-Za-z]))[^\W\d_]{3,}"
)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-z*]+\}(?:\{[lcr|]*\})?")
_BASE = re.compile(r"[0-9]\s*_\s*\{?\s*([0-9]+|\w+)")
_ASSIGNED = re.compile(r"^[A-Za-z]\w?\s*=\s*(?=[^=]+$)")


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        equal: Whether the two answers are equivalent; None where no verdict could be reached.
        reason: How it was reached, or why not.
    """

    equal: bool | None
    reason: Reason


class AnswerChecker:
    """Checks answers against references; use it as a context manager. Safe to call from any thread.

    Attributes:
        counts: Checks answered so far, by reason. Failed ones (timeout, crashed, refused, ...) are in here too.
        restarts: Worker processes that had to be killed or had died.
    """

    def __init__(self, workers: int = 1, seconds: float = 5.0, memory_mb: int = 1024) -> None:
        """Make a checker. Processes start with the first answer that needs one.

        Args:
            workers: Processes at most.
            seconds: Wall and CPU limit of one check.
            memory_mb: Address space of one process, so `workers * memory_mb` bounds the whole.

        Raises:
            UsageError: A limit is not positive.
        """
        if workers < 1 or seconds <= 0 or memory_mb < 1:
            raise UsageError(f"workers {workers}, seconds {seconds} and memory_mb {memory_mb} must be positive")
        self.counts: Counter[str] = Counter()
        self.restarts = 0
        self._seconds = seconds
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()  # last in, first out: a warm worker is used first
        self._workers = [_Worker(memory_mb) for _ in range(workers)]
        for worker in self._workers:
            self._idle.put(worker)
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[str, str], Verdict] = OrderedDict()
        self._closed = False

    def equal(self, answer: str | None, reference: str | None) -> Verdict:
        """Check one answer.

        Args:
            answer: The answer to judge; None (none was found) has no verdict.
            reference: The right answer.

        Raises:
            UsageError: The checker is closed.
            PrmKitError: The worker process cannot start at all.
        """
        verdict = self._check(answer, reference)
        with self._lock:
            self.counts[verdict.reason] += 1
        return verdict

    def equal_many(self, pairs: Iterable[tuple[str | None, str | None]]) -> list[Verdict]:
        """Check (answer, reference) pairs with all workers; verdicts come in the order of the pairs."""
        pairs = list(pairs)
        if len(self._workers) == 1:
            return [self.equal(answer, reference) for answer, reference in pairs]
        with ThreadPoolExecutor(len(self._workers)) as threads:
            return list(threads.map(lambda pair: self.equal(*pair), pairs))

    def close(self) -> None:
        """Kill the processes. Checks after this are refused."""
        self._closed = True
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> AnswerChecker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, answer: str | None, reference: str | None) -> Verdict:
        if self._closed:
            raise UsageError("this answer checker is closed")
        if answer is None or reference is None:
            return Verdict(None, "unparsed")
        if max(len(answer), len(reference)) > MAX_CHARACTERS:
            return Verdict(None, "too_long")
        key = (answer, reference)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        verdict = _cheap_verdict(answer, reference) or self._ask(plain_text(answer), plain_text(reference))
        if verdict.reason not in ("timeout", "crashed"):  # those may go otherwise on a less busy machine
            with self._lock:
                self._cache[key] = verdict
                while len(self._cache) > _CACHE_SIZE:
                    self._cache.popitem(last=False)
        return verdict

    def _ask(self, answer: str, reference: str) -> Verdict:
        worker = self._idle.get()
        try:
            verdict = worker.ask(answer, reference, self._seconds)
        finally:
            self._idle.put(worker)
        if verdict.reason in ("timeout", "crashed"):
            with self._lock:
                self.restarts += 1
        return verdict


def refusal(text: str) -> str | None:
    """Why a text is not let near a symbolic checker, or None if it may pass."""
    for pattern, why in _REFUSED:
        if pattern.search(text):
            return why
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return "nested too deeply" if deepest > _MAX_DEPTH else None


def _cheap_verdict(answer: str, reference: str) -> Verdict | None:
    """The verdict that needs no algebra, or None."""
    if refusal(answer) or refusal(reference):
        return Verdict(True, "exact") if answer == reference else Verdict(None, "refused")
    a, b = plain_text(answer), plain_text(reference)
    if not a or not b:
        return Verdict(None, "unparsed")
    if a == b:
        return Verdict(True, "exact")
    if ("=" in a) != ("=" in b):
        a, b = _ASSIGNED.sub("", a), _ASSIGNED.sub("", b)  # "x = 5" states 5
    quantity_a, quantity_b = parse_quantity(a), parse_quantity(b)
    if quantity_a and quantity_b:
        same = same_quantity(quantity_a, quantity_b)
        if same is None:
            return Verdict(None, "unparsed")
        return Verdict(True, "numeric") if same else Verdict(False, "different")
    if _WORDS.fullmatch(a) and _WORDS.fullmatch(b):
        same = a.strip("()").casefold() == b.strip("()").casefold()
        return Verdict(True, "exact") if same else Verdict(False, "different")
    if _BASE.findall(a) != _BASE.findall(b) and _BASE.search(a) and _BASE.search(b):
        return Verdict(False, "different")  # math-verify drops the base of a number
    if any(_FREE_WORD.search(_ENVIRONMENT.sub("", text)) for text in (a, b)):
        # math-verify would read a word as the product of its letters, and call "listen" and "silent" equal
        return Verdict(True, "exact") if a.casefold() == b.casefold() else Verdict(None, "unparsed")
    # what NFKC and LaTeX clean-up brought to light is looked at again
    return Verdict(None, "refused") if refusal(a) or refusal(b) else None


class _Worker:
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
