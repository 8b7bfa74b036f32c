"""What a run will ask and cost, told before the first request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from labeling.judge.batch import requests_for, unanswered
from labeling.judge.budget import Price, cost_of
from labeling.judge.labeler import JudgeLabeler
from labeling.judge.reply import Usage, estimated_tokens
from labeling.judge.settings import most_tokens
from labeling.judge.store import AnswerStore
from prm_kit.records import Solution

TOKENS_PER_STEP = 80
"""Tokens that an answer has per step, by estimate: id, quote, reason and three words, as JSON."""

CRITIC_TOKENS = 600
"""Tokens that a critic writes about a solution, by estimate."""


@dataclass(frozen=True)
class Estimate:
    """What is to come, besides requests that are asked again because an answer could not be used.

    Attributes:
        solutions: Solutions to label.
        expected: Calls and tokens, by estimate: 3 bytes a token read, 80 tokens written a step.
        at_most: The same if every answer is as long as it may be, and every token read is only 2 bytes long.
        in_store: Answers that are there already and cost nothing.
    """

    solutions: int
    expected: Usage
    at_most: Usage
    in_store: int

    def summary(self, price: Price | None, currency: str) -> dict[str, Any]:
        """As JSON data."""
        return {
            "solutions": self.solutions,
            "calls": self.expected.calls,
            "answers_in_store": self.in_store,
            "prompt_tokens": self.expected.prompt_tokens,
            "completion_tokens": self.expected.completion_tokens,
            "completion_tokens_at_most": self.at_most.completion_tokens,
            "cost": cost_of(self.expected, price),
            "cost_at_most": cost_of(self.at_most, price),
            "currency": currency or None,
        }


def estimate(labeler: JudgeLabeler, solutions: Iterable[Solution]) -> Estimate:
    """Count the requests that labelling these solutions takes, without asking anything."""
    calls = read = read_most = written = written_most = in_store = 0
    count = 0

    def counted() -> Iterable[Solution]:
        nonlocal count
        for solution in solutions:
            count += 1
            yield solution

    store = AnswerStore(labeler.connection.store)
    try:
        for first in requests_for(labeler, counted()):
            request = unanswered(labeler, first, store)
            if request is None:
                in_store += 1
                continue
            calls += 1
            read += estimated_tokens(request.size)
            read_most += request.size // 2
            steps = len(request.asked.ids)
            usual = CRITIC_TOKENS if labeler.prompt.file.asks == "first_error" else TOKENS_PER_STEP * steps
            written += min(usual, most_tokens(request.body))
            written_most += most_tokens(request.body)
    finally:
        store.close()
    expected = Usage(calls, read, written, estimated=True)
    return Estimate(count, expected, Usage(calls, read_most, written_most, estimated=True), in_store)
