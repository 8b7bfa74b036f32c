from dataclasses import dataclass

import pytest

from prm_kit.records import Problem, Solution
from prm_kit.score import StepScores
from rl.alarms import alarms
from rl.held_out import better, held_out_figures, held_out_line
from rl.presets import algorithm
from rl.rewarding import Rewarding
from rl.rollouts import Rollout, Sampled


@dataclass(frozen=True)
class Scripted:
    """Says for every problem the same answers in turn; a greedy one is the first."""

    answers: dict
    seed: int = 0

    def groups(self, problems, n, *, round, greedy=False, turns=None):
        return [[self._sampled(group, one, self.answers[one.text][i]) for i in range(n)]
                for group, one in enumerate(problems)]  # fmt: skip

    def _sampled(self, group, problem, answer):
        text, finish = answer
        solution = Solution.from_steps(problem.text, [text], "\n")
        return Sampled(group, problem, (1,), Rollout((5,), (-1.0,), finish), solution, (0,))


class LikesLong:
    name = "long"

    def score(self, solutions):
        return [StepScores(((0.0, 0.0, 1.0) if len(one.steps[0]) > 2 else (1.0, 0.0, 0.0),)) for one in solutions]


PROBLEMS = [Problem("a", "1"), Problem("b", "2")]
ANSWERS = {"a": [("1", "stop"), ("one", "stop")], "b": [("2", "length"), ("2", "stop")]}


def rewarding(scorer=None):
    return Rewarding(algorithm("dr-grpo"), lambda problem, text: text.strip() == problem.reference_answer, 9, scorer)


def test_accuracy_is_told_by_problem_and_what_was_cut_off_is_wrong():
    found = held_out_figures(Scripted(ANSWERS), rewarding(), PROBLEMS, 2)
    # a: the greedy one is right, of two sampled "1" is right and "one" not; b: the first was cut off
    assert found == {"greedy": [1.0, 0.0], "sampled": [0.5, 0.5]}


def test_what_the_prm_says_of_held_out_rollouts_stands_beside_it():
    found = held_out_figures(Scripted(ANSWERS), rewarding(LikesLong()), PROBLEMS, 2)
    # values of a: -1 and 1, mapped to 0 and 1; of b: -1 twice
    assert found["process"] == [0.5, 0.0]


def test_a_fall_is_that_of_each_problem_against_itself_in_the_best_evaluation():
    best, now = (
        {"sampled": [1.0, 0.5, 0.75, 0.25]},
        {"sampled": [0.5, 0.5, 0.25, 0.25], "process": [0.5, None, 1.0, 0.9]},
    )
    line = held_out_line(now, best)
    # falls 0.5, 0, 0.5, 0: mean 0.25, squares 4 x 0.0625; with two of 0.5 beside them sqrt(0.75 / 5 / 4) = 0.1936
    assert (line["sampled"], line["process"]) == pytest.approx((0.375, 0.8))
    assert (line["sampled_fall"], line["sampled_fall_error"]) == pytest.approx((0.25, 0.1936), abs=1e-4)
    assert "sampled_fall" not in held_out_line(now, None)
    assert better(now, best) is best
    assert better(best, now) is best
    assert held_out_line({"sampled": [1.0]}, {"sampled": [0.0]})["sampled_fall_error"] is None


def test_a_few_problems_that_fall_alike_are_no_alarm():
    lines = []
    for update, figures in enumerate(([1.0, 0.5], [0.75, 0.25])):
        best = {"sampled": [1.0, 0.5]} if update else None
        lines.append({"update": update, **held_out_line({"sampled": figures}, best)})
    assert lines[1]["sampled_fall"] == 0.25
    assert alarms([], lines) == []
