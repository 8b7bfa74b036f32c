import asyncio

import pytest

from labeling.judge.budget import Budget, Ceilings, Need, Price, cost_of, load_price
from labeling.judge.reply import Usage
from prm_kit.errors import LimitReachedError, UsageError

PRICE = Price(input=2.0, output=10.0)  # per million


def test_the_cost_is_tokens_times_price():
    # 1,000,000 read at 2 and 300,000 written at 10 per million
    assert cost_of(Usage(1, 1_000_000, 300_000), PRICE) == pytest.approx(5.0)
    assert cost_of(Usage(1, 1, 1), None) is None


def test_a_price_file_names_models_and_a_currency(tmp_path):
    file = tmp_path / "prices.yaml"
    file.write_text("currency: EUR\nmodels:\n  small-1: {input: 0.1, output: 0.4}\n")
    assert load_price(file, "small-1") == (Price(input=0.1, output=0.4), "EUR")
    assert load_price(None, "small-1") == (None, "")
    with pytest.raises(UsageError, match="Did you mean 'small-1'"):
        load_price(file, "small-2")
    file.write_text("models:\n  small-1: {input: 0.1, ouput: 0.4}\n")
    with pytest.raises(UsageError, match=r"prices\.yaml:2.*did you mean 'output'"):
        load_price(file, "small-1")


def test_a_limit_of_cost_needs_a_price():
    with pytest.raises(UsageError, match="--prices"):
        Budget(Ceilings(cost=1.0))
    with pytest.raises(UsageError, match="negative"):
        Budget(Ceilings(calls=-1))


@pytest.mark.parametrize(
    ("ceilings", "calls"),
    [
        (Ceilings(calls=7), 7),
        (Ceilings(tokens=1_000), 9),  # each call takes 50 + 50; the last may not set 200 aside beyond 1,000
        (Ceilings(cost=0.0055), 8),  # each costs 50 * 2e-6 + 50 * 10e-6 = 0.0006, and sets 0.0012 aside
    ],
)
def test_the_ceiling_holds_with_many_in_flight(ceilings, calls):
    async def spend():
        budget = Budget(ceilings, PRICE)
        answered = 0

        async def call():
            nonlocal answered
            reserved = await budget.reserve(Need(100, 100))
            await asyncio.sleep(0)
            budget.settle(reserved, Usage(1, 50, 50))
            answered += 1

        results = await asyncio.gather(*(call() for _ in range(50)), return_exceptions=True)
        return answered, results, budget.spent

    answered, results, spent = asyncio.run(spend())
    assert answered == calls == spent.calls
    assert {type(result) for result in results} == {type(None), LimitReachedError}
    assert spent.tokens <= (ceilings.tokens or 10**9)


def test_what_was_spent_before_counts():
    budget = Budget(Ceilings(calls=3), spent=Usage(3, 10, 10))
    with pytest.raises(LimitReachedError, match="limit of 3 calls reached"):
        asyncio.run(budget.reserve(Need(1, 1)))


def test_without_a_limit_nothing_is_refused():
    async def spend():
        budget = Budget(Ceilings())
        for _ in range(100):
            budget.settle(await budget.reserve(Need(10**6, 10**6)), Usage(1, 10**6, 10**6))
        return budget.spent.calls

    assert asyncio.run(spend()) == 100
