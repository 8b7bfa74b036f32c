import json
import math
from pathlib import Path
from random import Random

import pytest

from rl.alarms import FEWEST, SURE, WINDOW, alarms, enough, first_alarms, raised, raised_by
from rl.changes import REMEMBERED

FIXTURES = Path(__file__).parent / "fixtures"
GOOD = {
    "accuracy": 0.6, "process": 0.7, "process_gap": 0.1, "reward": 0.6, "entropy": 0.5, "kl": 0.01, "kl_update": 0.001,
    "steps": 5.0, "step_tokens": 8.0, "one_step": 0.0, "repetition": 0.0, "self_correction": 0.0, "no_signal": 0.1,
}  # fmt: skip


def run(before=GOOD, updates=2 * WINDOW, **now):
    """Ten updates as they were, and as many as they are now, each a little above or below the mean."""
    told = []
    for n in range(updates):
        line = before if n < WINDOW else {**before, **now}
        wiggle = 1 + 0.01 * (-1) ** n
        told.append({"update": n, **{key: None if x is None else x * wiggle for key, x in line.items()}})
    return told


def names(lines, held_out=()):
    return [alarm.name for alarm in alarms(lines, held_out)]


def test_a_run_that_goes_well_raises_no_alarm():
    assert alarms(run()) == []
    assert alarms(run(accuracy=0.8, process=0.9, process_gap=0.1, entropy=0.4, steps=9.0)) == []  # what is new helps
    assert alarms(run(accuracy=0.0)[-(FEWEST - 1) :]) == []


def test_a_difference_that_noise_explains_is_none():
    lines = [{"update": n, "accuracy": x} for n, x in enumerate([0.6, 0.4] * 5 + [0.5, 0.3] * 5)]
    assert alarms(lines) == []  # a tenth less, of a figure that jumps by a fifth every time
    quiet = [{"update": n, "accuracy": x} for n, x in enumerate([0.51, 0.49] * 5 + [0.41, 0.39] * 5)]
    (said,) = alarms(quiet)
    assert (said.name, said.began) == ("accuracy", 10)
    assert "0.50 in updates 0 to 5, 0.40 now" in said.text
    grouped = [{**line, "errors": {"accuracy": 0.2}} for line in quiet]
    assert alarms(grouped) == []


@pytest.mark.parametrize(
    ("now", "name", "kind"),
    [
        ({"accuracy": 0.4}, "accuracy", "policy"),
        ({"reward": 0.4}, "reward", "policy"),
        ({"process": 0.8, "accuracy": 0.57, "process_gap": 0.23}, "process against accuracy", "prm"),
        ({"entropy": 0.7}, "entropy rises", "policy"),
        ({"entropy": 0.1}, "entropy collapses", "policy"),
        ({"kl": 0.6}, "kl", "policy"),
        ({"kl_update": 0.6}, "kl_update", "policy"),
        ({"steps": 7.0}, "steps", "prm"),
        ({"steps": 3.0, "process": 0.5}, "steps", "policy"),  # the PRM does not like it: it is not what it is for
        ({"step_tokens": 20.0}, "step_tokens", "prm"),
        ({"step_tokens": 2.0}, "step_tokens", "prm"),
        ({"one_step": 0.4}, "one_step", "prm"),
        ({"repetition": 0.3}, "repetition", "prm"),
        ({"self_correction": 0.5}, "self_correction", "prm"),
        ({"no_signal": 0.95}, "no signal", "signal"),
    ],
)
def test_each_way_of_going_wrong_has_its_alarm(now, name, kind):
    (said,) = alarms(run(**now))
    assert (said.name, said.kind) == (name, kind)
    assert abs(said.began - WINDOW) <= 1


def test_what_breaks_late_in_a_long_run_is_seen_beside_the_window_before():
    lines = run(updates=40)
    risen = [{**line, "update": 40 + n, "accuracy": 0.9 + 0.01 * (-1) ** n} for n, line in enumerate(lines[:10])]
    fallen = [{**line, "update": 50 + n, "accuracy": 0.7 + 0.01 * (-1) ** n} for n, line in enumerate(lines[:10])]
    assert names([*lines, *risen]) == []
    assert names([*lines, *risen, *fallen]) == ["accuracy"]  # still above the start


def test_early_answers_the_collapse_that_was_seen_before_are_caught_at_once():
    # the policy stops early and states an answer: fewer steps, happy PRM, nothing right
    lines = run(updates=13, accuracy=0.1, process=0.96, process_gap=0.86, steps=1.5, one_step=0.7)
    assert {"process against accuracy", "steps", "one_step", "accuracy"} <= set(names(lines))


def test_figures_that_are_missing_or_none_raise_nothing():
    assert alarms(run(accuracy=None, process=None, process_gap=None)) == []
    assert alarms([{"update": n} for n in range(30)]) == []


def test_another_weight_of_the_process_reward_is_no_fall_of_the_reward():
    lines = run(before={**GOOD, "process_weight": 0.5}, reward=0.4)
    assert names(lines) == ["reward"]
    halved = [{**line, "process_weight": 0.25 if line["update"] >= WINDOW else 0.5} for line in lines]
    assert names(halved) == []


def evaluation(update, sampled, fall=None, error=0.02, process=None):
    line = {"update": update, "sampled": sampled, "process": process}
    return line if fall is None else {**line, "sampled_fall": fall, "sampled_fall_error": error}


def test_a_fall_on_held_out_problems_is_one_beside_the_best_evaluation():
    good = [evaluation(0, 0.4), evaluation(10, 0.6, -0.2)]
    assert alarms([], good) == []
    assert alarms([], [*good, evaluation(20, 0.53, 0.07)]) == []  # 3.5 standard errors, of the best of several
    (said,) = alarms([], [*good, evaluation(20, 0.5, 0.1)])
    assert (said.name, said.kind, said.began) == ("held-out accuracy", "policy", 10)
    assert "0.60 after update 10, 0.50 now, 5.0 standard errors" in said.text
    pleased = [evaluation(0, 0.6, process=0.7), evaluation(10, 0.4, 0.2, process=0.8)]
    assert [alarm.kind for alarm in alarms([], pleased)] == ["prm", "policy"]


def test_of_an_alarm_that_lasts_the_first_is_told():
    lines = [{"update": 3}, {"update": 4, "alarms": [{"name": "a", "text": "1"}]},
             {"update": 5, "alarms": [{"name": "a", "text": "2"}, {"name": "b", "text": "3"}]}]  # fmt: skip
    assert first_alarms(lines) == [{"update": 4, "name": "a", "text": "1"}, {"update": 5, "name": "b", "text": "3"}]


def replayed(name):
    """The alarms of a recorded run, by name the update that raised them first: 20 or 30 updates of 32 groups of 8."""
    lines = [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text().splitlines()]
    return {alarm["name"]: (alarm["update"], alarm["kind"]) for alarm in raised(lines)}


def test_a_pair_loss_that_destroyed_the_policy_is_seen_within_ten_updates():
    # recorded: held-out accuracy 0.40, 0.38 after ten updates, 0.26 after twenty; entropy 0.12 to 0.20 nats
    found = replayed("gfpo")
    assert found["entropy rises"] == (9, "policy")  # the tenth update: accuracy has not fallen yet
    assert found["held-out accuracy"] == (20, "policy")
    assert {"accuracy", "reward"} <= set(found)
    assert all(kind == "policy" for _, kind in found.values())


def test_a_policy_that_found_what_its_only_rewarder_likes_is_seen():
    # recorded: rewarded by a weak PRM alone, held-out accuracy 0.44 to 0.17, process reward 0.70 to 0.77
    found = replayed("prm-only")
    update, kind = found["process against accuracy"]
    assert (update <= 16, kind) == (True, "prm")
    assert found["held-out accuracy"] == (20, "policy")


def test_a_recorded_run_that_went_well_raises_nothing():
    assert replayed("rloo-min") == {}


def test_runs_in_which_nothing_moves_rarely_raise_anything():
    noise = {"accuracy": 0.055, "process": 0.015, "reward": 0.06, "entropy": 0.006, "steps": 0.12}
    random, alarmed = Random(0), 0
    for _ in range(30):
        told, raised_one = [], False
        for update in range(60):
            figures = {key: random.gauss(GOOD[key], error) for key, error in noise.items()}
            figures["process_gap"] = figures["process"] - figures["accuracy"]
            told.append({"update": update, **figures, "errors": noise})
            raised_one |= bool(alarms(told))
        alarmed += raised_one
    assert alarmed <= 3  # of thirty runs of sixty updates, each looked at after every update


def test_a_look_at_a_long_run_reads_as_much_as_one_at_a_short_run():
    class Counted(list):
        read = 0

        def __getitem__(self, place):
            Counted.read += 1
            return super().__getitem__(place)

    def reads(n):
        Counted.read = 0
        alarms(Counted({"update": update, **GOOD} for update in range(n)))
        return Counted.read

    assert reads(5 * REMEMBERED) <= 1.2 * reads(2 * REMEMBERED)


def test_a_figure_must_have_moved_further_the_more_often_a_run_was_looked_at():
    # a look that noise passes with a chance of about exp(-z^2 / 2): in ten times the updates it has a tenth of it
    assert enough(60) == SURE
    assert enough(600) == pytest.approx(math.sqrt(SURE**2 + 2 * math.log(10)))


def test_an_evaluation_says_once_what_it_shows():
    pleased = [evaluation(0, 0.6, process=0.7), evaluation(10, 0.4, 0.2, process=0.8)]
    lines = [{"part": "held_out", **one} for one in pleased]
    assert [alarm["kind"] for alarm in raised_by(lines[1], [], lines)] == ["prm", "policy"]
    assert raised_by({"part": "train", "update": 10}, run(), lines) == []
