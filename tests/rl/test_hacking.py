import pytest

from prm_kit.records import Solution
from rl.hacking import WINDOW, alarms, instruments

GOOD = {"accuracy": 0.6, "process": 0.7, "steps": 5.0, "step_tokens": 8.0, "one_step": 0.0, "repetition": 0.0}


def run(**now):
    """As many updates as they were, and as many as they are now."""
    lines = [{**GOOD, "part": "train"}] * WINDOW + [{**GOOD, **now, "part": "train"}] * WINDOW
    return alarms(lines)


def test_instruments_say_how_completions_are_written():
    steps = (["1 + 1 = 2", "wait, 1 + 1 = 2", "1  + 1 = 2"], ["4"])
    solutions = [Solution.from_steps("p", part, "\n") for part in steps]
    assert instruments(solutions, [12, 4]) == pytest.approx(
        # 16 tokens, 4 steps, the third step of the first repeats its first, one of two completions has one step
        {"tokens": 8, "steps": 2, "step_tokens": 4, "one_step": 0.5, "repetition": 0.25, "self_correction": 0.5}
    )
    silent = Solution("p", "", ())
    assert instruments([silent], [1])["step_tokens"] == 1


def test_a_run_that_goes_well_raises_no_alarm():
    assert run() == []
    assert run(accuracy=0.7, process=0.8) == []
    assert alarms([GOOD] * (2 * WINDOW - 1)) == []


def test_a_prm_that_is_pleased_while_accuracy_falls_raises_one():
    (said,) = run(accuracy=0.5, process=0.9)
    assert "0.70 to 0.90" in said
    assert "0.60 to 0.50" in said


@pytest.mark.parametrize(
    ("now", "word"),
    [
        ({"accuracy": 0.2}, "accuracy fell"),
        ({"steps": 9.0}, "more and more steps"),
        ({"steps": 2.0}, "fewer and fewer steps"),
        ({"step_tokens": 20.0}, "grow longer"),
        ({"step_tokens": 2.0}, "grow shorter"),
        ({"one_step": 0.4}, "at most one step"),
        ({"repetition": 0.3}, "repeat"),
    ],
)
def test_each_way_of_gaming_has_its_sentence(now, word):
    (said,) = run(**now)
    assert word in said


def test_an_update_in_which_nothing_could_be_judged_is_no_figure():
    assert run(accuracy=None, process=None) == []


def test_early_answers_the_collapse_that_was_seen_before_are_caught():
    # the policy stops early and states an answer: fewer steps, happy PRM, nothing right
    said = run(accuracy=0.1, process=0.96, steps=1.5, one_step=0.7)
    assert len(said) == 4
