"""The process reward of a path is whether the most of its group end alike."""

import pytest

from prm_kit.engines.engine import Rollout
from prm_kit.errors import UsageError
from prm_kit.policy import Policy
from prm_kit.records import Problem, Solution
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from rl.presets import algorithm
from rl.rewarding import Rewarding, wants_scorer
from rl.rollouts import Sampled
from rl.train import train
from rl.train_settings import RlSettings

PROBLEM = Problem("1 + 1 ?", "2")


def sampled(group, answer, finish="stop"):
    solution = Solution.from_steps("1 + 1 ?", [f"Answer: {answer}"], separator="\n", final_answer=answer)
    return Sampled(group, PROBLEM, (1,), Rollout((3, 2), (-0.5, -0.5), finish), solution, (0, 0))


def rewarding(name="dapo", parts=None, **fields):
    fields = {
        "process": "self-consistency",
        "agree": lambda a, b: a == b,
        "format_checks": ("step_structure",),
    } | fields
    return Rewarding(algorithm(name, parts), lambda problem, text: text.endswith("2"), 8, **fields)


def test_members_of_the_largest_cluster_of_their_group_earn_one_and_nobody_scores_a_step():
    # group 0: 3 3 2, and one that was cut off and so has no answer; group 1 agrees with itself alone
    rollouts = [sampled(0, "3"), sampled(0, "3"), sampled(0, "2"), sampled(0, "2", "length"), sampled(1, "2")]
    found = rewarding().rewards(rollouts)
    assert found.composed.parts["process"] == (1.0, 1.0, 0.0, 0.0, 1.0)
    # final 1.0, process 0.5, format 0.2 x 0 (a single step): the right minority 1.0, the wrong majority 0.5
    assert found.composed.totals == pytest.approx((0.5, 0.5, 1.0, 0.0, 1.5))


def test_where_two_answers_cannot_be_compared_a_path_has_no_reward():
    rollouts = [sampled(0, "3"), sampled(0, "x")]
    found = rewarding(agree=lambda a, b: None).rewards(rollouts)
    assert found.composed.totals[1] is None
    assert found.composed.failed["process"] == 1


@pytest.mark.parametrize(
    ("name", "why"), [("rloo-min", "no reward of whole paths"), ("grpo", "no reward"), ("srpo", "has no siblings")]
)
def test_it_is_refused_where_it_says_nothing(name, why):
    with pytest.raises(UsageError, match=why):
        wants_scorer(algorithm(name), "self-consistency")


def test_it_needs_somebody_who_compares_answers():
    with pytest.raises(UsageError, match="needs `agree`"):
        rewarding(agree=None)


def test_a_run_learns_from_it_without_a_prm(tmp_path):
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(tmp_path / "policy")
    task = ArithmeticTask()
    asked = RlSettings(
        policy=str(tmp_path / "policy"), algorithm="dapo", process="self-consistency", updates=1, problems=2,
        group_size=3, max_new_tokens=8, split="newline", device="cpu",
    )  # fmt: skip
    summary = train(asked, task.problems("train", 4, 0), task.verify, tmp_path / "run", agree=lambda a, b: a == b)
    assert summary["last"]["process"] == 0.0  # an untrained policy says no answer in eight tokens
