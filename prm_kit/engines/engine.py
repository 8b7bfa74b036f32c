"""The one generation protocol: prefix ids and limits in; ids, log-probabilities and finish reason out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from prm_kit.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """How far and how to sample.

    Attributes:
        max_new_tokens: Most tokens of a rollout, the stop token included; at least 1.
        stop_ids: Token ids that end a rollout; the one that did is the last of its ids.
        temperature: 0 takes the likeliest token; 1 samples what the model says.
        seed: Together with the prefix and the sample's number it fixes a rollout, whatever is sampled beside it.
    """

    max_new_tokens: int
    stop_ids: tuple[int, ...]
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must not be negative")
        if not 0.0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature is {self.temperature}; it must be 0 or a positive number")


@dataclass(frozen=True)
class Rollout:
    """One sampled continuation of a prefix.

    Attributes:
        ids: The new tokens, with the stop token that ended them.
        log_probabilities: Per new token the model's own natural log-probability, at temperature 1 whatever the
            sampling temperature was.
        finish: "stop" when a stop token ended it, "length" when `max_new_tokens` did.
    """

    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    finish: Literal["stop", "length"]


class Engine(Protocol):
    """Continues prefixes."""

    def generate(self, prefixes: Sequence[Sequence[int]], n: int, limits: Limits) -> list[list[Rollout]]:
        """Sample `n` rollouts of every prefix; answers come in the order asked.

        Args:
            prefixes: Token ids, at least one each.
            n: Rollouts of each prefix.
            limits: How far and how to sample.

        Raises:
            UsageError: An empty prefix, or no rollout asked for.
        """
        ...


_NEXT_SEED = 2**40
"""Far from the seeds that callers count up."""


def generate_anew(
    engine: Engine, prefixes: Sequence[Sequence[int]], n: int, limits: Limits, turns: Sequence[int] | None = None
) -> list[list[Rollout]]:
    """`Engine.generate` where a prefix may stand several times: each time it is continued with other random numbers.

    Args:
        engine: Who continues them.
        prefixes: As for `Engine.generate`.
        n: Rollouts of each prefix.
        limits: How far and how to sample.
        turns: How often each prefix was asked for before; None: it is counted here, among the prefixes.
    """
    if turns is None:
        turns = occurrences([tuple(prefix) for prefix in prefixes])
    found: list[list[Rollout]] = [[] for _ in prefixes]
    for turn in sorted(set(turns)):
        places = [place for place, asked in enumerate(turns) if asked == turn]
        changed = replace(limits, seed=limits.seed + turn * _NEXT_SEED)
        for place, rollouts in zip(places, engine.generate([prefixes[i] for i in places], n, changed), strict=True):
            found[place] = rollouts
    return found


def occurrences(items: Sequence[Hashable]) -> list[int]:
    """How often each item stands before its place."""
    seen: Counter[Hashable] = Counter()
    found = []
    for item in items:
        found.append(seen[item])
        seen[item] += 1
    return found


def check_request(prefixes: Sequence[Sequence[int]], n: int) -> None:
    """Refuse what no engine can continue.

    Raises:
        UsageError: Naming the prefix.
    """
    if n < 1:
        raise UsageError(f"{n} rollouts of each prefix: at least 1 is needed")
    for number, prefix in enumerate(prefixes):
        if not prefix:
            raise UsageError(f"prefix {number} has no tokens")
