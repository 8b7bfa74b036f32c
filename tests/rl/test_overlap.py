import threading

import pytest

from rl.overlap import overlapped


def test_the_next_part_is_made_while_the_work_on_the_one_before_is_done():
    begun, made = threading.Event(), threading.Event()

    def parts():
        yield 1
        assert begun.wait(10)  # the work on 1 has begun, and waits for 2 to be made
        made.set()
        yield 2

    def work(part):
        if part == 1:
            begun.set()
            assert made.wait(10)
        return part * 10

    assert overlapped(parts(), work) == [10, 20]


def test_the_work_is_done_in_order_and_alone():
    now, order = [], []

    def work(part):
        now.append(part)
        order.append((part, len(now)))
        now.remove(part)
        return part

    assert overlapped(iter(range(50)), work) == list(range(50))
    assert order == [(part, 1) for part in range(50)]


def test_work_that_fails_ends_the_making_of_parts():
    failed, made = threading.Event(), []

    def parts():
        for part in range(9):
            made.append(part)
            yield part
            assert failed.wait(10)

    def work(part):
        failed.set()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        overlapped(parts(), work)
    assert len(made) < 9


def test_where_making_a_part_fails_what_was_begun_ends_and_what_was_not_is_left():
    begun, go_on, done = threading.Event(), threading.Event(), []

    def parts():
        yield 1
        yield 2
        assert begun.wait(10)
        threading.Timer(0.01, go_on.set).start()
        raise KeyboardInterrupt

    def work(part):
        begun.set()
        assert go_on.wait(10)
        done.append(part)

    with pytest.raises(KeyboardInterrupt):
        overlapped(parts(), work)
    assert done == [1]
