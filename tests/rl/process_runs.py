"""The runs that `test_train_processes` compares: what one process and several are asked to do alike."""

import math

from prm_kit.score import StepScores
from prm_kit.tasks.arithmetic import ArithmeticTask
from rl.train import train

TASK = ArithmeticTask()
PROBLEMS = TASK.problems("train", 12, 0)
HELD_OUT = TASK.problems("dev", 3, 0)


class LikesShortSteps:
    """A scorer: the shorter a step, the better."""

    name = "short"

    def score(self, solutions):
        return [StepScores(tuple(self._one(step) for step in one.steps)) for one in solutions]

    def _one(self, step):
        right = 1 / (1 + len(step) / 20)
        return (1 - right, 0.0, right)


def verdict(problem, completion):
    """Right and wrong in the same group: the untrained policy never solves a sum."""
    return len(completion) % 2 == 0


def spoilt(rollouts):
    """Not finite for the longest completion of all: one process alone finds it."""
    longest = max(len(one.solution.completion) for one in rollouts)
    return [math.nan if longest > 20 and len(one.solution.completion) == longest else 0.0 for one in rollouts]


def run(settings, out, spoils=False):
    """One run."""
    rewards = {"spoilt": (1.0, spoilt)} if spoils else None
    held_out = HELD_OUT if settings.eval_every else ()
    return train(settings, PROBLEMS, verdict, out, scorer=LikesShortSteps(), held_out=held_out, rewards=rewards)
