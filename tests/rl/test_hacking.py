import pytest

from prm_kit.records import Solution
from rl.hacking import instruments


def test_instruments_say_how_completions_are_written():
    steps = (["1 + 1 = 2", "wait, 1 + 1 = 2", "1  + 1 = 2"], ["4"])
    solutions = [Solution.from_steps("p", part, "\n") for part in steps]
    assert instruments(solutions, [12, 4]) == pytest.approx(
        # 16 tokens, 4 steps, the third step of the first repeats its first, one of two completions has one step
        {"tokens": 8, "steps": 2, "step_tokens": 4, "one_step": 0.5, "repetition": 0.25, "self_correction": 0.5}
    )
    silent = Solution("p", "", ())
    assert instruments([silent], [1])["step_tokens"] == 1


def test_a_waiter_corrects_nothing():
    solutions = [Solution.from_steps("p", [step], "\n") for step in ("The waiter has 3 plates", "Wait, 4")]
    assert instruments(solutions, [6, 3])["self_correction"] == 0.5
