import os
import signal
import threading

import pytest

from prm_kit.interruption import InterruptedSafelyError, Interruption


@pytest.fixture(autouse=True)
def _python_handles_sigint():
    """A shell starts background jobs with SIGINT ignored, and the tests may run in one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_only_asks_and_the_second_acts():
    with Interruption() as interruption:
        interruption.check()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(InterruptedSafelyError):
            interruption.check()
        with pytest.raises(KeyboardInterrupt) as caught:
            os.kill(os.getpid(), signal.SIGINT)
        assert not isinstance(caught.value, InterruptedSafelyError)


def test_what_signals_did_before_is_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError, match="inside"), Interruption():
        raise ValueError("inside")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_it_does_nothing():
    said = []

    def run():
        with Interruption() as interruption:
            interruption.check()
            said.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert said == [True]
