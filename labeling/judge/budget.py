"""What a run may cost, in calls, tokens and money: estimated before, counted during.

Before every attempt the most that it can cost is set aside; what was not used goes back when the response is there.
So the ceiling holds even with hundreds of requests in flight.

Counted are, of this run, every answer, as the server counts its tokens (by estimate where it does not), and with all
that was set aside every attempt that may have been charged without bringing an answer: too late, unreadable, broken
off within the response, or given up. Of earlier runs the stored answers are counted, usable or not, and nothing else:
their attempts without an answer, and answers that a kill lost before they were stored, are not. Never counted is an
attempt that the server turned down with an error, or whose connection broke before a response began.

Prices come from a file of the user's: none are shipped, they would be wrong tomorrow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labeling.judge.reply import Usage
from prm_kit.errors import LimitReachedError, UsageError, nearest
from prm_kit.settings import Settings, load_settings


class Price(Settings):
    """Price of a model per million tokens."""

    input: float
    output: float


class Prices(Settings):
    """A price file.

    models:
      gpt-x: {input: 0.15, output: 0.60}     # per million tokens
    currency: USD
    """

    models: dict[str, Price]
    currency: str = "USD"


@dataclass(frozen=True)
class Ceilings:
    """The most that may be used, the stored answers of earlier runs in the same directory included; None: no limit.

    Attempts of earlier runs that brought no answer are not included.
    """

    calls: int | None = None
    tokens: int | None = None
    cost: float | None = None

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return (self.calls, self.tokens, self.cost) != (None, None, None)


@dataclass(frozen=True)
class Need:
    """The most that one attempt can use."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def usage(self) -> Usage:
        """As a usage of one call."""
        return Usage(1, self.prompt_tokens, self.completion_tokens)


def load_price(file: Path | None, model: str) -> tuple[Price | None, str]:
    """The price of `model` and the currency; no price without a file.

    Raises:
        UsageError: The file is malformed, has no price for the model, or a negative one.
    """
    if file is None:
        return None, ""
    prices = load_settings(Prices, file)
    price = prices.models.get(model)
    if price is None:
        near = nearest(model, prices.models)
        raise UsageError(f"{file}: no price for model {model!r}." + (f" Did you mean {near!r}?" if near else ""))
    if price.input < 0 or price.output < 0:
        raise UsageError(f"{file}: model {model!r}: a price is negative")
    return price, prices.currency


def cost_of(usage: Usage, price: Price | None) -> float | None:
    """What the tokens cost, in the price file's currency; None without a price."""
    if price is None:
        return None
    return (usage.prompt_tokens * price.input + usage.completion_tokens * price.output) / 1e6


class Budget:
    """Counts what is used and what is set aside for attempts in flight. One object belongs to one event loop.

    Args:
        ceilings: The limits.
        price: Price of the model, needed for a limit of cost.
        spent: What the stored answers of earlier runs used.

    Raises:
        UsageError: A limit of cost without a price, or a limit that is negative.
    """

    def __init__(self, ceilings: Ceilings, price: Price | None = None, spent: Usage = Usage()) -> None:  # noqa: B008
        if ceilings.cost is not None and price is None:
            raise UsageError("a limit of cost needs the model's price: give --prices FILE")
        if any(limit is not None and limit < 0 for limit in (ceilings.calls, ceilings.tokens, ceilings.cost)):
            raise UsageError("a limit of calls, tokens or cost is negative")
        self.ceilings = ceilings
        self.price = price
        self.spent = spent
        self._aside: dict[int, Usage] = {}
        self._sum_aside = Usage()
        self._number = 0
        self._freed = asyncio.Event()

    async def reserve(self, need: Need) -> int:
        """Set aside what an attempt can use at most; waits for attempts in flight if they hold what is missing.

        Returns:
            A number for `settle`.

        Raises:
            LimitReachedError: Even with nothing in flight it would go beyond a limit.
        """
        while (over := self._over(need.usage, self._sum_aside)) is not None:
            if not self._aside or self._over(need.usage, Usage()) is not None:
                raise LimitReachedError(f"{over}; raise it and run the same command to go on")
            self._freed.clear()
            await self._freed.wait()
        self._number += 1
        self._aside[self._number] = need.usage
        self._sum_aside += need.usage
        return self._number

    def settle(self, number: int, used: Usage) -> None:
        """Put back what was set aside and count what was used."""
        aside = self._aside.pop(number)
        self._sum_aside += Usage(-aside.calls, -aside.prompt_tokens, -aside.completion_tokens)
        self.spent += used
        self._freed.set()

    @property
    def cost(self) -> float | None:
        """What was spent, in currency; None without a price."""
        return cost_of(self.spent, self.price)

    def _over(self, need: Usage, aside: Usage) -> str | None:
        """Which limit would be exceeded, in words."""
        if not self.ceilings.any:
            return None
        then = self.spent + aside + need
        cost, most = cost_of(then, self.price), self.ceilings
        if most.calls is not None and then.calls > most.calls:
            return f"limit of {most.calls} calls reached ({self.spent.calls} made)"
        if most.tokens is not None and then.tokens > most.tokens:
            return f"limit of {most.tokens} tokens reached ({self.spent.tokens} used)"
        if most.cost is not None and cost is not None and cost > most.cost:
            return f"limit of cost {most.cost:g} reached ({self.cost or 0:.4f} spent)"
        return None


def summary(used: Usage, price: Price | None, currency: str) -> Mapping[str, float | int | str | bool | None]:
    """A usage as JSON data for reports."""
    cost = cost_of(used, price)
    return {
        "calls": used.calls,
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "tokens_are_estimated": used.estimated,
        "cost": None if cost is None else round(cost, 6),
        "currency": currency or None,
    }
