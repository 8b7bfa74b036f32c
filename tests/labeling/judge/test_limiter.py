import asyncio

import pytest

from labeling.judge.limiter import AdaptiveLimit


def test_the_limit_doubles_per_round_trip_until_the_first_refusal():
    async def rounds():
        limit = AdaptiveLimit(start=10, most=1000)
        sizes = []
        for _ in range(4):
            sizes.append(int(limit.limit))
            await flight(limit, sizes[-1])
        return sizes

    assert asyncio.run(rounds()) == [10, 20, 40, 80]


async def flight(limit, number, refuse=0):
    """So many requests at once, of which some are refused."""
    together = asyncio.Barrier(number)

    async def one(index):
        async with limit.slot() as slot:
            await together.wait()
            limit.refused(slot) if index < refuse else limit.succeeded()

    await asyncio.gather(*(one(index) for index in range(number)))


def test_a_flight_with_many_refusals_halves_the_limit_once_and_then_it_grows_by_one():
    async def rounds():
        limit = AdaptiveLimit(start=64, most=1000)
        await flight(limit, 64, refuse=64)
        halved = limit.limit
        await flight(limit, 32)
        return halved, limit.limit, limit.cuts

    halved, later, cuts = asyncio.run(rounds())
    assert (halved, cuts) == (32.0, 1)
    assert later == pytest.approx(33.0, abs=0.1)  # each of 32 answers adds 1/32


def test_it_never_falls_below_one_nor_grows_beyond_the_most():
    async def rounds():
        limit = AdaptiveLimit(start=3, most=5)
        for _ in range(5):
            await flight(limit, 1, refuse=1)
        low = limit.limit
        for _ in range(40):
            await flight(limit, int(limit.limit))
        return low, limit.limit

    assert asyncio.run(rounds()) == (1.0, 5.0)


def test_no_more_than_the_limit_are_in_flight_and_nobody_is_forgotten():
    async def many():
        limit = AdaptiveLimit(start=7, most=7)
        done = 0

        async def one():
            nonlocal done
            async with limit.slot():
                assert limit.in_flight <= 7
                await asyncio.sleep(0)
            done += 1

        await asyncio.gather(*(one() for _ in range(500)))
        return done, limit.peak, limit.in_flight

    assert asyncio.run(many()) == (500, 7, 0)


def test_who_is_cancelled_while_waiting_leaves_the_slot_to_the_next():
    async def scene():
        limit = AdaptiveLimit(start=1, most=1)
        order = []

        async def one(name):
            async with limit.slot():
                order.append(name)
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(one(name)) for name in "abc"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return order, limit.in_flight

    assert asyncio.run(scene()) == (["a", "c"], 0)


def test_a_pause_holds_everybody_up():
    async def scene():
        limit = AdaptiveLimit(start=10, most=10)
        async with limit.slot() as slot:
            limit.refused(slot, pause=0.1)
        start = asyncio.get_running_loop().time()
        await asyncio.gather(*(flight(limit, 1) for _ in range(5)))
        return asyncio.get_running_loop().time() - start

    assert asyncio.run(scene()) >= 0.09
