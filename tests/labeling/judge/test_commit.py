import asyncio
import threading
import time

import pytest

from labeling.judge.commit import GroupCommit


class Written:
    def __init__(self, seconds=0.0, fail_at=None):
        self.groups, self.threads, self.closed = [], set(), False
        self._seconds, self._fail_at = seconds, fail_at

    def write(self, records):
        self.threads.add(threading.get_ident())
        time.sleep(self._seconds)
        if self._fail_at is not None and len(self.groups) >= self._fail_at:
            raise OSError("disk full")
        self.groups.append(list(records))

    def close(self):
        self.closed = True


def test_everything_is_written_once_in_order_by_one_thread():
    written = Written()

    async def run():
        async with GroupCommit(written, most=8, seconds=0.01) as commit:
            for number in range(100):
                await commit.add(number)

    asyncio.run(run())
    assert [record for group in written.groups for record in group] == list(range(100))
    assert max(map(len, written.groups)) <= 8
    assert len(written.threads) == 1
    assert threading.get_ident() not in written.threads
    assert written.closed


def test_no_more_records_are_accepted_than_may_be_lost():
    written = Written(seconds=0.02)
    accepted = 0
    most = 0

    async def run():
        nonlocal accepted, most
        async with GroupCommit(written, most=6, seconds=0.01) as commit:

            async def add(number):
                nonlocal accepted, most
                await commit.add(number)
                accepted += 1
                most = max(most, accepted - sum(map(len, written.groups)))

            await asyncio.gather(*(add(number) for number in range(60)))

    asyncio.run(run())
    assert accepted == 60
    assert most <= 6


def test_a_lone_record_is_written_after_the_time():
    written = Written()

    async def run():
        async with GroupCommit(written, most=64, seconds=0.02) as commit:
            await commit.add("a")
            while not written.groups:
                await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(run(), 10))
    assert written.groups == [["a"]]


def test_what_is_held_is_written_also_after_an_error():
    written = Written()

    async def run():
        async with GroupCommit(written, most=64, seconds=60) as commit:
            await commit.add("a")
            raise KeyError("elsewhere")

    with pytest.raises(KeyError):
        asyncio.run(run())
    assert written.groups == [["a"]]


def test_a_failed_write_is_told_to_whoever_adds_next():
    async def run():
        async with GroupCommit(Written(fail_at=1), most=2, seconds=0.001) as commit:
            for number in range(100):
                await commit.add(number)

    with pytest.raises(OSError, match="disk full"):
        asyncio.run(asyncio.wait_for(run(), 10))
