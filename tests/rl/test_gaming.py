"""Completions that game steps gain nothing under any preset that rewards steps by a scorer."""

from dataclasses import replace

import pytest
import torch

from prm_kit.engines.engine import Rollout
from prm_kit.records import Problem
from prm_kit.score import StepScores
from prm_kit.split import split_solution
from rl.gathering import Gathered, batch_of
from rl.learning import pairs_of
from rl.objective import update_of
from rl.presets import ALGORITHMS
from rl.rewarding import Rewarding
from rl.rollouts import Sampled, steps_of_tokens

PROBLEM = Problem("Start with 37, subtract 7, times 3.", "90")
FIRST, SECOND, WRONG = "Step 1: 37 - 7 = 30\n", "Step 2: 30 * 3 = 90\n", "Step 2: 30 * 3 = 80\n"
RIGHT = FIRST + SECOND + "Answer: 90\n"
REWARDING_STEPS = [name for name, one in ALGORITHMS.items() if "step rewards" in one.needs]

WRONG_GAMES = {
    "ten thousand separators": "\n\n" * 10_000,
    "separators between dashes": "---\n\n" * 100,
    "one huge step": (FIRST + WRONG).replace("\n", " ") * 20 + "Answer: 80\n",
    "an answer and filler": FIRST
    + WRONG
    + "Answer: 80\n"
    + "".join(f"That is right, for reason {i}\n" for i in range(30)),
    "a repeated correct step": FIRST * 30 + WRONG + "Answer: 80\n",
}
TWINS = {  # the right completion, with what is not to pay put into it
    "separators": RIGHT.replace("\n", "\n\n\n\n"),
    "dashes": RIGHT.replace("\n", "\n---\n"),
    "an answer and filler": RIGHT + "".join(f"That is right, for reason {i}\n" for i in range(30)),
    "a repeated correct step": FIRST * 30 + SECOND + "Answer: 90\n",
    "a correct step repeated at the end": FIRST + SECOND + FIRST * 30 + "Answer: 90\n",
}


class Fooled:
    """A scorer that sees a wrong sum where it has a line of its own, and likes all that games better than real work."""

    name = "fooled"

    def score(self, solutions):
        return [StepScores(tuple(self._one(step) for step in one.steps)) for one in solutions]

    def _one(self, step):
        value = -0.5 if step.startswith(WRONG.strip()) else 0.7 if step.startswith(("Step 2", "Answer: 90")) else 0.95
        return ((1 - value) / 2, 0.0, (1 + value) / 2)


def sampled(text):
    """A rollout in which every character is a token."""
    solution = split_solution(PROBLEM.text, text, "newline", attached=False)
    steps = steps_of_tokens(solution, range(1, len(text) + 1))
    steps.append(steps[-1] if steps else 0)
    return Sampled(
        0, PROBLEM, (1,), Rollout((*map(ord, text), 2), (-0.5,) * (len(text) + 1), "stop"), solution, tuple(steps)
    )


def earned(name, *texts):
    """The rows of one group with what they earned, a rollout to compare with among them."""
    rewarding = Rewarding(
        ALGORITHMS[name], lambda _, text: "Answer: 90" in text, 30_000, Fooled(), format_checks=("step_structure",)
    )
    gathered, rollouts = Gathered(), [sampled(text) for text in texts]
    gathered.add([0], [rollouts], rewarding.rewards(rollouts))
    if ALGORITHMS[name].needs & {"reference rollout", "greedy rollout"}:
        gathered.add_references(rollouts[-1:], [0], rewarding.rewards(rollouts[-1:]))
    return gathered.rows


def advantages(name, rows):
    """Per row the mean advantage of its tokens, and the first token's."""
    batch = batch_of(rows, 30_000, torch.device("cpu"), scored=True)
    batch = replace(batch, values_BT=torch.full_like(batch.old_BT, 0.5), reference_BT=batch.old_BT)
    advantage_BT = update_of(ALGORITHMS[name], batch).advantage_BT
    return advantage_BT.sum(1) / batch.lengths_B, advantage_BT[:, 0]


FOOLED = {("grpo-process", "one huge step")}
"""Where the game pays after all: the PRM alone rewards, and what it is fooled by is the only step that there is."""


@pytest.mark.parametrize("name", REWARDING_STEPS)
@pytest.mark.parametrize("game", WRONG_GAMES)
def test_a_wrong_completion_that_games_steps_is_worth_less_than_honest_work(name, game):
    rows = earned(name, RIGHT, WRONG_GAMES[game], FIRST + WRONG + "Answer: 80\n")
    assert rows[0].reward >= rows[1].reward
    if ALGORITHMS[name].surrogate is None:
        pairs = pairs_of(ALGORITHMS[name], rows, 0)
        assert not [pair for pair in pairs if (pair.better, pair.worse) == (1, 0)]
        return
    gains = [bool(of_B[1] > of_B[0] + 1e-5) for of_B in advantages(name, rows)]
    assert any(gains) == ((name, game) in FOOLED)


@pytest.mark.parametrize("name", REWARDING_STEPS)
@pytest.mark.parametrize("game", TWINS)
def test_what_games_steps_adds_nothing_to_a_right_completion(name, game):
    played, honest = (earned(name, RIGHT, text, FIRST + WRONG + "Answer: 80\n") for text in (TWINS[game], RIGHT))
    assert played[1].reward <= honest[1].reward + 1e-9
    if ALGORITHMS[name].surrogate is not None:
        for with_game_B, without_B in zip(advantages(name, played), advantages(name, honest), strict=True):
            assert with_game_B[1] <= without_B[1] + 1e-5


def test_without_leaving_idle_steps_out_they_would_pay():
    # that the table above is not empty: the mean over the liked filler is above that over the work
    values = Fooled().score([sampled(TWINS["an answer and filler"]).solution])[0].values
    rows = earned("dapo", TWINS["an answer and filler"], RIGHT)
    assert sum(values) / len(values) > sum(values[:3]) / 3
    assert rows[0].reward <= rows[1].reward
