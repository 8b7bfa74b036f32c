"""Final answers: finding the one that a completion states, and checking it against a reference.

Equal strings and literal quantities are compared here, exactly. Everything else goes to math-verify, and only ever in
a process that can be killed, because its parser ends in `eval` and its algebra has no bound. A check that failed has
no verdict (`equal` is None) and is counted; it is never a silent False.
"""

from __future__ import annotations

import queue
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from prm_kit.answer_process import REASONS, AnswerProcess, Reason, Verdict
from prm_kit.answer_refusal import refusal
from prm_kit.answer_text import extract_final_answer
from prm_kit.errors import UsageError
from prm_kit.quantities import parse_quantity, plain_text, same_quantity

__all__ = ["REASONS", "AnswerChecker", "Reason", "Verdict", "extract_final_answer", "refusal"]

MAX_CHARACTERS = 2000
"""An answer longer than this is not looked at."""

_CACHE_SIZE = 10_000

_WORDS = re.compile(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*|\([^\W\d_]\)")
_SPELT = re.compile(  # words that may say a number, and letters that may stand for one
    r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|\w+ty|hundred|thousand|million|half"
    r"|third|quarter|zero|none|no|nothing|infinit\w*|pi|e|i)\b|^\w$|[\u4e00-\u9fff]",
    re.IGNORECASE,
)
_FREE_WORD = re.compile(
    r"(?<![\\A-Za-z])(?!(?:a?(?:sin|cos|tan|sec|csc|cot)h?|arc(?:sin|cos|tan)|sqrt|log|exp|mod|max|min|gcd|lcm|det|and)"
    r"(?![A-Za-z]))[^\W\d_]{3,}"
)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-z*]+\}(?:\{[lcr|]*\})?")
_BASE = re.compile(r"[0-9]\s*_\s*\{?\s*([0-9]+|\w+)")
_ASSIGNED = re.compile(r"^[A-Za-z]\w?\s*=\s*(?=[^=]+$)")


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
        self._idle: queue.LifoQueue[AnswerProcess] = (
            queue.LifoQueue()
        )  # last in, first out: a warm worker is used first
        self._workers = [AnswerProcess(memory_mb) for _ in range(workers)]
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
        verdict = _cheap_verdict(answer, reference) or self._ask(
            plain_text(answer).replace("°", r"^{\circ}"), plain_text(reference).replace("°", r"^{\circ}")
        )
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
    words_a, words_b = _WORDS.fullmatch(a), _WORDS.fullmatch(b)
    if words_a and words_b:
        same = a.strip("()").casefold() == b.strip("()").casefold()
        return Verdict(True, "exact") if same else Verdict(False, "different")
    if (words_a and quantity_b and not _SPELT.search(a)) or (words_b and quantity_a and not _SPELT.search(b)):
        return Verdict(False, "different")
    if _BASE.findall(a) != _BASE.findall(b) and _BASE.search(a) and _BASE.search(b):
        return Verdict(False, "different")  # math-verify drops the base of a number
    if any(_FREE_WORD.search(_ENVIRONMENT.sub("", text)) for text in (a, b)):
        # math-verify would read a word as the product of its letters, and call "listen" and "silent" equal
        return Verdict(True, "exact") if a.casefold() == b.casefold() else Verdict(None, "unparsed")
    # what NFKC and LaTeX clean-up brought to light is looked at again
    return Verdict(None, "refused") if refusal(a) or refusal(b) else None
