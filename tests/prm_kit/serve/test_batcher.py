import threading
import time

import pytest

from prm_kit.errors import InputError
from prm_kit.records import Solution
from prm_kit.score import StepScores
from prm_kit.serve.batcher import Batcher, ClosingError, QueueFullError

RIGHT = (0.0, 0.0, 1.0)


def one(problem: str, step: str = "so") -> Solution:
    return Solution.from_steps(problem, [step])


class Held:
    """Scores everything right, one call at a time, each only after `go` was released; fails on the step "bad"."""

    name = "held"

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.go = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)

    def score(self, solutions):
        self.calls.append([solution.problem for solution in solutions])
        self.entered.release()
        assert self.go.acquire(timeout=10)
        if any(solution.steps == ("bad",) for solution in solutions):
            raise RuntimeError("broken")
        if any(solution.steps == ("long",) for solution in solutions):
            raise InputError("too long")
        return [StepScores((RIGHT,)) for _ in solutions]


@pytest.fixture
def held():
    return Held()


def started(held, batch_tokens=4, queue_items=100):
    """A batcher whose thread is busy with one item, so that what is submitted next waits."""
    batcher = Batcher(held, batch_tokens, queue_items)
    batcher.start()
    first = batcher.submit([one("first")], [1])
    assert held.entered.acquire(timeout=10)
    return batcher, first


def finish(batcher, held):
    held.go.release(1000)
    batcher.close()
    return held.calls[1:]


def test_items_of_several_requests_are_scored_in_one_call(held):
    batcher, first = started(held)
    jobs = [batcher.submit([one(f"p{n}")], [1]) for n in range(3)]
    assert finish(batcher, held) == [["p0", "p1", "p2"]]
    assert [job.future.result() for job in [first, *jobs]] == [[StepScores((RIGHT,))]] * 4


def test_a_batch_stays_within_its_tokens_and_a_longer_item_goes_alone(held):
    batcher, _ = started(held, batch_tokens=4)
    batcher.submit([one("a")], [3])
    batcher.submit([one("b")], [2])  # 3 + 2 > 4
    batcher.submit([one("c")], [9])
    assert finish(batcher, held) == [["a"], ["b"], ["c"]]


def test_everybody_gets_one_item_before_anybody_gets_two(held):
    batcher, _ = started(held, batch_tokens=3)
    batcher.submit([one(f"long list {n}") for n in range(5)], [1] * 5)
    batcher.submit([one("x")], [1])
    batcher.submit([one("y")], [1])
    calls = finish(batcher, held)
    assert calls[0] == ["long list 0", "x", "y"]
    assert calls[1] == ["long list 1", "long list 2", "long list 3"]


def test_items_of_one_problem_are_put_together(held):
    batcher, _ = started(held, batch_tokens=4)
    batcher.submit([one("q"), one("other"), one("p", "1"), one("p", "2")], [1] * 4)
    batcher.submit([one("p", "3")], [1])
    # One each: q and p; then what shares a problem with these: p, p. The other waits.
    assert finish(batcher, held) == [["q", "p", "p", "p"], ["other"]]


def test_requests_about_one_problem_go_together_before_later_ones_about_others(held):
    batcher, _ = started(held, batch_tokens=3)
    for problem in ("a", "b", "c", "a", "b", "a"):
        batcher.submit([one(problem)], [1])
    # The longest waiting asks about a, so all three about a; then b and its other; c fits beside them.
    assert finish(batcher, held) == [["a", "a", "a"], ["b", "b", "c"]]


def test_a_long_item_is_not_overtaken_for_ever_by_short_ones(held):
    batcher, _ = started(held, batch_tokens=4)
    batcher.submit([one("short 0"), one("short 1"), one("short 2")], [2] * 3)
    batcher.submit([one("long")], [4])
    batcher.submit([one("late")], [1])
    calls = finish(batcher, held)
    assert [call for call in calls if "long" in call] == [["long"]]
    assert calls.index(["long"]) == 1


def test_a_request_of_many_items_is_answered_in_order_though_scored_in_parts(held):
    class Numbered(Held):
        def score(self, solutions):
            super().score(solutions)
            return [StepScores(((1 - n / 10, 0.0, n / 10),)) for n in (int(s.problem) for s in solutions)]

    numbered = Numbered()
    batcher = Batcher(numbered, 3, 100)
    batcher.start()
    numbered.go.release(100)
    job = batcher.submit([one(str(n)) for n in (3, 1, 4, 1, 5, 9, 2)], [1] * 7)
    batcher.close()
    values = [round(10 * answer.probabilities[0][2]) for answer in job.future.result()]
    assert values == [3, 1, 4, 1, 5, 9, 2]
    assert all(len(call) <= 3 for call in numbered.calls)


def test_an_item_that_breaks_the_scorer_fails_alone(held, caplog):
    batcher, _ = started(held, batch_tokens=100)
    good = batcher.submit([one("p"), one("q")], [1, 1])
    bad = batcher.submit([one("r"), one("SECRET", "bad"), one("s", "long")], [1, 1, 1])
    held.go.release(1000)
    batcher.close()
    assert good.future.result() == [StepScores((RIGHT,))] * 2
    right, broken, refused = bad.future.result()
    assert right == StepScores((RIGHT,))
    assert isinstance(broken, RuntimeError)
    assert isinstance(refused, InputError)
    assert "broken" in caplog.text  # what broke is in the log, what was sent is not
    assert "SECRET" not in caplog.text


def test_answers_that_cannot_be_right_are_errors():
    class Short:
        name = "short"

        def score(self, solutions):
            return [StepScores(()) for _ in solutions]

    batcher = Batcher(Short(), 10, 10)
    batcher.start()
    (answer,) = batcher.submit([one("p")], [1]).future.result(timeout=10)
    batcher.close()
    assert isinstance(answer, InputError)


def test_what_was_cancelled_is_not_scored(held):
    batcher, _ = started(held)
    gone = batcher.submit([one("gone")], [1])
    batcher.submit([one("kept")], [1])
    batcher.cancel(gone)
    assert batcher.queued_items == 1
    assert finish(batcher, held) == [["kept"]]
    assert not gone.future.done()


def test_a_full_queue_says_when_to_come_back_and_takes_what_fits(held):
    batcher, _ = started(held, queue_items=3)
    batcher.submit([one("a"), one("b")], [1, 1])
    with pytest.raises(QueueFullError, match="2 items are waiting and 2 more would exceed 3") as refused:
        batcher.submit([one("c"), one("d")], [1, 1])
    assert 1 <= refused.value.retry_after <= 60
    batcher.submit([one("e")], [1])
    assert finish(batcher, held) == [["a", "e", "b"]]


def test_closing_finishes_what_was_accepted_and_takes_nothing_new(held):
    batcher, first = started(held, batch_tokens=1)
    job = batcher.submit([one("a"), one("b")], [1, 1])
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while batcher.ready:
        time.sleep(0.001)
    with pytest.raises(ClosingError):
        batcher.submit([one("late")], [1])
    assert not job.future.done()
    held.go.release(100)
    closing.join(timeout=10)
    assert first.future.done()
    assert job.future.done()


def test_nothing_to_score_is_answered_at_once(held):
    batcher = Batcher(held, 1, 1)
    with pytest.raises(ClosingError):
        batcher.submit([], [])
    batcher.start()
    assert batcher.submit([], []).future.result(timeout=1) == []
    batcher.close()
