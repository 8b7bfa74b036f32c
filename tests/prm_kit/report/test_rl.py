import re

import pytest

from prm_kit.report.rl import disagreements, render_rl
from prm_kit.report.rl_figures import run_figures


def train_line(update, **more):
    figures = {"accuracy": 0.4 + update / 100, "process": 0.7, "reward": 0.5, "steps": 4.0, "entropy": 0.1}
    return {"update": update, "part": "train", "sampled": 8, **figures, "errors": {"accuracy": 0.05}, **more}


def rollout(values, correct, update=0, text="x"):
    steps = [f"{text}{i}" for i in range(len(values))]
    told = {"step_values": values, "correct": correct, "reward": 1.0, "parts": {"final": 1.0, "mine": None}}
    return {"update": update, "problem": "<i>2 + 2</i>", "steps": steps, **told}


@pytest.fixture
def data():
    return {
        "name": "rloo-min, seed 0",
        "about": {"task": "<script>alert(1)</script>"},
        "parts": {"estimator": "leave_one_out", "credit": "-"},
        "asked": 20,
        "train": [train_line(update) for update in range(12)],
        "held_out": [
            {"update": 0, "part": "held_out", "sampled": 0.4, "greedy": 0.5, "process": 0.7, "sampled_error": 0.02},
            {"update": 10, "part": "held_out", "sampled": 0.5, "greedy": 0.5, "process": 0.6, "sampled_error": 0.02},
        ],
        "alarms": [{"update": 9, "name": "steps", "kind": "prm", "began": 8, "text": "steps <b>grow</b>"}],
        "rollouts": [rollout([0.9, None, 0.8], False), rollout([-0.9, 0.5], True, text="y")],
        "before": {"sampled": [0.25, 0.5, 0.0], "process": [0.5, None, 0.5]},
        "after": {"sampled": [0.5, 0.5, 0.5], "process": [0.25, 0.5, None]},
    }


def test_the_page_is_complete_and_nothing_in_it_is_live(data):
    page = render_rl(data)
    assert "<script" not in page
    assert "steps &lt;b&gt;grow&lt;/b&gt;" in page
    assert "&lt;i&gt;2 + 2&lt;/i&gt;" in page
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert "script-src &#39;none&#39;" in page or "script-src 'none'" in page
    assert "12 of 20 updates, 96 rollouts" in page


def test_the_tiles_say_what_was_gained_each_problem_against_itself(data):
    page = render_rl(data)
    # sampled: gains 0.25, 0, 0.5: mean 0.25, deviation 0.25, 1.96 x 0.25 / sqrt(3) = 0.283
    assert "+0.250 ± 0.283, paired" in page
    assert "0.400 at the start" in page
    assert "−0.250<" in page  # process: one problem was judged both times
    running = render_rl({**data, "before": {}, "after": {}})
    assert "+0.100<" in running  # the means are all that a running run has told


def test_figures_that_there_is_nothing_of_are_left_out(data):
    titles = {figure.title for figure in run_figures(data["train"], data["held_out"], data["alarms"])}
    assert {"Accuracy", "What the PRM says against what is right", "Steps of a solution", "Entropy"} <= titles
    assert not titles & {"KL", "Weight of the process reward", "Clipped tokens"}
    more = [{**line, "kl_update": 0.01, "process_weight": 0.5} for line in data["train"]]
    titles = {figure.title for figure in run_figures(more, [], [])}
    assert {"KL", "Weight of the process reward"} <= titles
    # without evaluations the training rollouts say what the PRM thinks of what is right
    assert "What the PRM says against what is right" in titles


def test_a_run_that_has_not_begun_has_a_page(data):
    page = render_rl({**data, "train": [], "held_out": [], "alarms": [], "rollouts": [], "before": {}, "after": {}})
    assert "0 of 20 updates" in page


def test_updates_without_anything_to_learn_from_are_counted(data):
    skipped = {"update": 12, "part": "train", "skipped": 1, "sampled": 8}
    page = render_rl({**data, "train": [*data["train"], skipped]})
    assert "13 of 20 updates, 104 rollouts, 1 updates without anything to learn from" in page


def test_disagreements_are_wrong_answers_that_are_liked_and_right_ones_that_are_not():
    liked, loved = rollout([0.5, 0.9], False), rollout([0.8, 0.9], False, text="b")
    others = [
        rollout([0.9, -0.1], False, text="c"),
        rollout([0.9, -0.2], True, text="d"),
        rollout([0.9, 0.2], True, text="e"),
        rollout([None], True, text="f"),
        rollout([0.9], None, text="g"),
    ]
    found = disagreements([liked, loved, {**loved, "update": 3}, *others])
    # by the worst step; the same rollout of a later update counts once; right ones that are liked are no disagreement
    assert [one["steps"] for one in found[0]] == [loved["steps"], liked["steps"]]
    assert [one["steps"][0] for one in found[1]] == ["d0"]
