import pytest

from labeling.continuations import Continuations
from labeling.omega import OmegaLabeler
from labeling.omega_tree import ALPHA, BETA, Tree
from labeling.rollout_settings import RolloutSettings
from prm_kit.engines.engine import Rollout
from prm_kit.errors import UsageError
from prm_kit.policy import Policy
from prm_kit.records import Problem, Rater, check_annotation
from prm_kit.settings import validated
from prm_kit.split import split_solution
from prm_kit.tasks.arithmetic import ArithmeticTask, final_answer
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer

PROBLEM = "Start with 37, subtract 7, times 3."
WRONG = "Step 1: 37 - 7 = 30\nStep 2: 30 * 3 = 80\nAnswer: 80\n"
RIGHT_REST = {
    "": "Step 1: 37 - 7 = 30\nStep 2: 30 * 3 = 90\nAnswer: 90\n",
    "Step 1: 37 - 7 = 30\n": "Step 2: 30 * 3 = 90\nAnswer: 90\n",
}
WRONG_REST = {
    "": ["Step 1: 37 - 7 = 20\nStep 2: 20 * 3 = 60\nAnswer: 60\n"] * 2,
    "Step 1: 37 - 7 = 30\n": ["Answer: 30\n", "Step 2: 30 * 3 = 70\nSo far 70\nAnswer: 70\n"],
}


@pytest.fixture(scope="module")
def policy():
    return Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer())


class Scripted:
    """Two right and two wrong rollouts from the problem and from step 1, none that is right from anywhere else."""

    def __init__(self, policy):
        self.policy = policy

    def generate(self, prefixes, n, limits):
        groups = []
        for prefix in prefixes:
            _, _, done = self.policy.tokenizer.decode(list(prefix)).partition("\n")
            rest = [*WRONG_REST.get(done, ["Answer: 1\n"] * 2), *[RIGHT_REST.get(done, "Answer: 2\n")] * 2]
            ids = self.policy.completion_ids(rest)
            groups.append([Rollout(tuple(one), (0.0,) * len(one), "stop") for one in ids])
        return groups


def setup(policy, explore):
    def judge(solution, completion):
        return ArithmeticTask().verify(Problem(solution.problem), completion)

    asked = RolloutSettings(method="omega", samples=4, max_new_tokens=40, explore=explore)
    found = Continuations(policy, Scripted(policy), judge, asked)
    return found, OmegaLabeler(found, Rater("rollout", "scripted", "1"))


def wrong_solution():
    return split_solution(
        PROBLEM, WRONG, "newline", attached=False, final_answer="80", reference_answer="90", is_correct=False
    )


def test_wrong_rollouts_are_searched_each_once_and_the_most_promising_first(policy):
    _, labeler = setup(policy, explore=5)
    (annotation,) = labeler.label([wrong_solution()])
    assert annotation.values(3) == (1, -1, None)
    explored = labeler.explored()
    # MC is 0.5 for both states, so that the shortest rollout comes first; then the state not visited yet; the two
    # rollouts of the problem say the same and count once; two of the five picks find nothing
    assert [pair.solution.completion.partition("\n")[2] for pair in explored] == [
        "Answer: 30\n",
        "Step 2: 20 * 3 = 60\nAnswer: 60\n",
        "Step 2: 30 * 3 = 70\nSo far 70\nAnswer: 70\n",
    ]
    assert [pair.annotation.values(len(pair.solution.spans)) for pair in explored] == [
        (1, -1),
        (-1, None, None),
        (1, -1, None, None),
    ]
    assert labeler.explored() == []


def test_what_was_explored_is_a_solution_with_its_parent_and_the_prefixs_steps(policy):
    _, labeler = setup(policy, explore=3)
    given = wrong_solution()
    list(labeler.label([given]))
    for solution, annotation in labeler.explored():
        check_annotation(solution, annotation)
        at = solution.meta["branch_step"]
        assert solution.meta["parent"] == given.id
        assert solution.steps[:at] == given.steps[:at]
        assert (solution.is_correct, solution.final_answer) == (False, final_answer(solution.completion))
        assert solution.generator == "scripted"
        assert all(text.strip() == text for text in solution.steps)


def test_exploring_changes_no_label_and_the_same_solutions_give_the_same_exploration(policy):
    _, plain = setup(policy, explore=0)
    _, first = setup(policy, explore=3)
    _, second = setup(policy, explore=3)
    given = [wrong_solution()]
    assert [a.id for a in plain.label(given)] == [a.id for a in first.label(given)]
    assert plain.explored() == []
    list(second.label(given))
    ids = [pair.annotation.id for pair in second.explored()]
    list(second.label(given))  # once more, with everything known
    assert ids == [pair.annotation.id for pair in first.explored()] == [p.annotation.id for p in second.explored()]


def test_q_is_higher_for_states_nearer_to_right_and_for_shorter_rollouts(policy):
    found, _ = setup(policy, explore=1)
    quality = Tree(found, "scripted")._quality
    # 0.5 ** (1 - 0.5) * 0.9 ** (20 / 40)
    assert quality(0.5, 20) == pytest.approx(ALPHA**0.5 * BETA**0.5)
    assert quality(0.75, 20) > quality(0.5, 20) > quality(0.5, 30)


def test_only_omega_explores():
    with pytest.raises(UsageError, match="only the method omega explores"):
        validated(RolloutSettings, {"method": "hard", "explore": 1}, "command line")
