"""Which evaluated problems and solutions stand, whole or in part, in the training rows.

A text counts as seen in part where it shares a run of `WORDS` = 13 words with a training text of the same kind: the
length that GPT-3 (arXiv 2005.14165, appendix C) and Qwen2.5 (arXiv 2412.15115) look for. Words are runs of letters or
digits after NFKC and case folding (a CJK character is a word); marks and LaTeX's signs are no words. A text of fewer
words can only be found as a whole, by equality after folding case and white space, with its signs kept.

Runs are compared as 64-bit hashes of word hashes, so that 10^5 training rows take seconds and no run is stored. A
chance collision of two different runs has a probability of about (runs evaluated) * (runs trained on) / 2^64.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prm_kit.records import Solution

WORDS = 13

_WORD = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+")
_BASE = np.uint64(0x9E3779B97F4A7C15)
_CHUNK = 20_000

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Overlap:
    """An evaluated text that training texts hold.

    Attributes:
        key: Of the evaluated text.
        exact: Whether a training text is the same after folding.
        share: Share of its runs of words that training texts hold, in [0, 1]; 1 where it is the same.
        words: The first run that is shared, as words; "" where the text is too short to have one.
        training: Key of a training text that holds it.
    """

    key: str
    exact: bool
    share: float
    words: str
    training: str


def contamination(evaluated: Sequence[Solution], train: Iterable[Solution], words: int = WORDS) -> dict[str, Any]:
    """Compare problems with training problems, and completions with training completions.

    Args:
        evaluated: The evaluated solutions.
        train: The training solutions, read once.
        words: Length of a run.

    Returns:
        words; for "problems" and "solutions" each: evaluated, trained_on (different texts), exact, sharing (counts
        of evaluated texts; "exact" ones share), too_short (found as a whole only), and listed [{key, exact, share,
        words, training}], the largest share first. Keys are the texts of problems and the ids of solutions.
    """
    problems = {solution.problem: solution.problem for solution in evaluated}
    solutions = {solution.id: solution.completion for solution in evaluated}
    trained_problems: dict[str, str] = {}
    trained_solutions: dict[str, str] = {}
    for solution in train:
        trained_problems.setdefault(solution.problem, solution.problem)
        trained_solutions.setdefault(solution.id, solution.completion)
    return {
        "words": words,
        "problems": _compared(problems, trained_problems, words),
        "solutions": _compared(solutions, trained_solutions, words),
    }


def overlaps(texts: Mapping[str, str], trained_on: Mapping[str, str], words: int = WORDS) -> list[Overlap]:
    """The texts that share something, the largest share first.

    Args:
        texts: Evaluated texts by key.
        trained_on: Training texts by key.
        words: Length of a run.
    """
    keys = list(texts)
    spoken = [_words(texts[key]) for key in keys]
    run_R, text_R, start_R = runs(spoken, words)
    known, inverse = np.unique(run_R, return_inverse=True)
    holder = np.full(len(known), -1, dtype=np.int64)  # number of the first training text with that run
    folded: dict[str, str | None] = dict.fromkeys(map(_folded, texts.values()))
    trained_keys: list[str] = []
    for chunk in _chunks(trained_on.items()):
        for key, text in chunk:
            same = _folded(text)
            if same in folded and folded[same] is None:
                folded[same] = key
        found, number, _ = runs([_words(text) for _, text in chunk], words)
        at = np.searchsorted(known, found)
        hit = at < len(known)
        hit[hit] = known[at[hit]] == found[hit]
        at, number = at[hit], number[hit] + len(trained_keys)
        new = holder[at] < 0
        holder[at[new][::-1]] = number[new][::-1]  # backwards, so that the first one stays
        trained_keys += [key for key, _ in chunk]
    shared_R = holder[inverse] >= 0
    total = np.bincount(text_R, minlength=len(keys))
    shared = np.bincount(text_R, weights=shared_R, minlength=len(keys))
    first = {int(text_R[at]): int(at) for at in np.flatnonzero(shared_R)[::-1]}
    listed = []
    for at_key, key in enumerate(keys):
        whole, at_first = folded[_folded(texts[key])], first.get(at_key)
        if whole is None and at_first is None:
            continue
        start = 0 if at_first is None else int(start_R[at_first])
        run = "" if at_first is None else " ".join(spoken[at_key][start : start + words])
        training = trained_keys[int(holder[inverse[at_first]])] if whole is None else whole
        share = float(shared[at_key] / total[at_key]) if whole is None else 1.0
        listed.append(Overlap(key, whole is not None, share, run, training))
    return sorted(listed, key=lambda one: -one.share)


def runs(texts: Sequence[Sequence[str]], words: int) -> tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]:
    """Hashes [R] of all runs of words, the number of the text of each, and the index of its first word there."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    ids = np.array([_word_hash(word) for text in texts for word in text], dtype=np.uint64)
    text_of = np.repeat(np.arange(len(texts)), lengths)
    within = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    starts = np.flatnonzero(within + words <= np.repeat(lengths, lengths))
    found = np.zeros(len(starts), dtype=np.uint64)
    for offset in range(words):  # wraps around 2^64, which is meant
        found = found * _BASE + ids[starts + offset]
    return found, text_of[starts], within[starts]


def _compared(texts: Mapping[str, str], trained_on: Mapping[str, str], words: int) -> dict[str, Any]:
    found = overlaps(texts, trained_on, words)
    return {
        "evaluated": len(texts),
        "trained_on": len(trained_on),
        "exact": sum(one.exact for one in found),
        "sharing": len(found),
        "too_short": sum(len(_words(text)) < words for text in texts.values()),
        "listed": [vars(one) for one in found],
    }


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@lru_cache(maxsize=1_000_000)
def _word_hash(word: str) -> int:
    """64 well-mixed bits of a word, the same in every process."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


def _chunks(items: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    rest = iter(items)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk
