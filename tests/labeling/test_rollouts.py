import dataclasses
from collections import Counter
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.budgeted import Budgeted
from labeling.continuations import Continuations, Tally, judge_by, share_stderr
from labeling.omega import OmegaLabeler, first_error
from labeling.rollout_settings import RolloutSettings
from labeling.rollouts import NEVER_SOLVED, RolloutLabeler
from prm_kit.answers import AnswerChecker
from prm_kit.engines.engine import Rollout
from prm_kit.engines.transformers_engine import TransformersEngine
from prm_kit.errors import UsageError
from prm_kit.policy import Policy
from prm_kit.records import Problem, Rater, Solution
from prm_kit.settings import validated
from prm_kit.split import split_solution
from prm_kit.tasks.arithmetic import ArithmeticTask, final_answer, parse_problem
from prm_kit.tasks.arithmetic_labels import Chain, label_chain
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer

PROBLEM = "Start with 37, subtract 7, times 3, add 5."  # 30, 90, 95
RIGHT = "Step 1: 37 - 7 = 30\nStep 2: 30 * 3 = 90\nStep 3: 90 + 5 = 95\nAnswer: 95\n"
WRONG_AT_1 = "Step 1: 37 - 7 = 30\nStep 2: 30 * 3 = 80\nStep 3: 80 + 5 = 85\nAnswer: 85\n"
WRONG_AT_0 = "Step 1: 37 - 7 = 20\nStep 2: 20 * 3 = 60\nStep 3: 60 + 5 = 65\nAnswer: 65\n"
RATER = Rater("rollout", "scripted", "1")


@pytest.fixture(scope="module")
def policy():
    return Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer())


class FaultlessEngine:
    """Goes on without a mistake from what a prefix says: it reaches the answer from right prefixes and no others.

    Every `slips`-th sample states a wrong answer, so that shares differ from 0 and 1.
    """

    def __init__(self, policy, slips=0, truncates=0):
        self.policy, self.slips, self.truncates = policy, slips, truncates
        self.asked = []

    def generate(self, prefixes, n, limits):
        self.asked.append(len(prefixes))
        groups = []
        for prefix in prefixes:
            problem, _, done = self.policy.tokenizer.decode(list(prefix)).partition("\n")
            chain, value, after = parse_problem(problem), None, 0
            for line in done.splitlines():
                if line.startswith("Step"):
                    value, after = int(line.rpartition("= ")[2]), after + 1
            rest = Chain(chain.start if value is None else value, chain.operations[after:])
            groups.append([self._rollout(rest.value, sample) for sample in range(n)])
        return groups

    def _rollout(self, value, sample):
        slipped = self.slips and sample % self.slips == self.slips - 1
        ids = self.policy.completion_ids([f"Answer: {value + slipped}\n"])[0]
        if self.truncates and sample % self.truncates == self.truncates - 1:
            return Rollout(tuple(ids[:1]), (0.0,), "length")
        return Rollout(tuple(ids), (0.0,) * len(ids), "stop")


def continuations(policy, engine, context=None, **asked):
    return Continuations(policy, engine, judge, RolloutSettings(max_new_tokens=20, **asked), context)


def judge(asked, completion):
    return ArithmeticTask().verify(Problem(asked.problem), completion)


def solution(completion, problem=PROBLEM, judged=True):
    found = split_solution(
        problem,
        completion,
        "newline",
        attached=False,
        final_answer=final_answer(completion),
        reference_answer=str(parse_problem(problem).value),
    )
    return dataclasses.replace(found, is_correct=judge(found, completion) if judged else None)


def labelled(policy, completions, kind=RolloutLabeler, engine=None, **asked):
    found = continuations(policy, engine or FaultlessEngine(policy), **asked)
    return list(kind(found, RATER).label([solution(text) for text in completions]))


def test_a_step_is_right_as_long_as_a_faultless_policy_reaches_the_answer(policy):
    right, at_1, at_0 = labelled(policy, [RIGHT, WRONG_AT_1, WRONG_AT_0])
    assert right.values(4) == (1, 1, 1, 1)
    assert at_1.values(4) == (1, -1, -1, -1)  # nothing comes back after the error
    assert at_0.values(4) == (-1, -1, -1, -1)
    assert at_0.meta["steps"] == 4
    assert right.meta["prefixes"] == 4  # the problem and three steps; the fourth states the answer


def test_the_share_its_count_and_its_error_are_kept(policy):
    (found,) = labelled(policy, [WRONG_AT_1], engine=FaultlessEngine(policy, slips=4), samples=8)
    first, second, _, last = found.labels
    assert first.shares == (0.25, 0.0, 0.75)  # samples 3 and 7 of 8 slip
    assert first.count == 8
    # Beta(7, 3): variance 7 * 3 / (10^2 * 11) = 21 / 1100
    assert first.stderr == pytest.approx(sqrt(21 / 1100))
    assert second.shares == (1.0, 0.0, 0.0)
    assert second.stderr == pytest.approx(sqrt(9 / 1100))  # none of 8 reached: Beta(1, 9), not a certainty
    assert (last.count, last.stderr, last.comment) == (1, 0.0, "own answer")


def test_soft_labels_are_shares_without_a_value(policy):
    (found,) = labelled(policy, [WRONG_AT_1], engine=FaultlessEngine(policy, slips=4), method="soft")
    assert [label.value for label in found.labels] == [None] * 4
    assert [label.shares[2] for label in found.labels] == [0.75, 0.0, 0.0, 0.0]
    with pytest.raises(UsageError, match="no threshold"):
        validated(RolloutSettings, {"method": "soft", "threshold": 0.5}, "command line")


def test_the_threshold_says_how_many_must_reach(policy):
    for threshold, first in ((0.0, 1), (0.7, 1), (0.75, None), (0.9, None)):
        (found,) = labelled(policy, [WRONG_AT_1], engine=FaultlessEngine(policy, slips=4), threshold=threshold)
        assert found.values(4)[0] == first


def test_a_problem_that_the_policy_never_solves_gets_no_label(policy):
    for kind in (RolloutLabeler, OmegaLabeler):
        (found,) = labelled(policy, [WRONG_AT_1], kind, engine=FaultlessEngine(policy, slips=1))
        assert set(found.values(4)) == {None}
        assert all(label.shares is None for label in found.labels)  # a share without a value would be trained on
        assert found.flags == (NEVER_SOLVED,)


def test_truncated_rollouts_are_misses_or_left_out_and_always_counted(policy):
    engine = FaultlessEngine(policy, truncates=2)
    for truncated, count, share in (("missed", 8, 0.5), ("left_out", 4, 1.0)):
        (found,) = labelled(policy, [RIGHT], engine=engine, truncated=truncated)
        assert (found.labels[0].count, found.labels[0].shares[2]) == (count, share)
        assert found.meta["truncated"] == 4 * 4
    (found,) = labelled(policy, [RIGHT], engine=FaultlessEngine(policy, truncates=1), truncated="left_out")
    assert found.values(4) == (None, None, None, 1)  # only the solution's own answer is left


def test_what_nobody_can_judge_counts_nowhere(policy):
    found = Continuations(policy, FaultlessEngine(policy), lambda *_: None, RolloutSettings(max_new_tokens=20))
    (annotation,) = RolloutLabeler(found, RATER).label([solution(RIGHT, judged=False)])
    assert annotation.labels == ()
    assert annotation.meta["undecided"] == 4 * 8


def test_a_solution_that_stops_before_its_answer_is_continued_to_the_end(policy):
    (found,) = labelled(policy, [RIGHT.partition("Answer")[0]])
    assert found.values(3) == (1, 1, 1)
    assert found.labels[2].count == 8


def test_a_prefix_that_leaves_no_room_gets_no_label(policy):
    problem, lines = len(policy.prompt_ids([PROBLEM])[0]), len(policy.completion_ids([RIGHT[:20]])[0]) - 1
    found = continuations(policy, FaultlessEngine(policy), context=problem + lines + 20)
    (annotation,) = RolloutLabeler(found, RATER).label([solution(RIGHT)])
    assert annotation.values(4) == (1, None, None, 1)
    assert annotation.meta["prefixes_too_long"] == 2


def test_equal_prefixes_are_continued_once_whatever_solution_they_come_from(policy):
    engine = FaultlessEngine(policy)
    found = continuations(policy, engine)
    list(RolloutLabeler(found, RATER).label([solution(RIGHT), solution(WRONG_AT_1)]))
    # the problem and step 1 are common: 4 + 2 prefixes, in one call
    assert engine.asked == [6]
    list(RolloutLabeler(found, RATER).label([solution(WRONG_AT_0)]))
    assert engine.asked == [6, 3]
    assert found.spent.rollouts == 9 * 8


def test_labels_do_not_depend_on_what_is_labelled_beside(policy):
    texts = [RIGHT, WRONG_AT_1, WRONG_AT_0]
    engine = TransformersEngine(policy.model)
    together = labelled(policy, texts, engine=engine, samples=3)
    alone = [labelled(policy, [text], engine=engine, samples=3)[0] for text in reversed(texts)]
    assert [one.id for one in together] == [one.id for one in reversed(alone)]


def test_omega_finds_the_first_error_and_says_nothing_of_what_follows(policy):
    engine = FaultlessEngine(policy)
    right, at_1, at_0 = labelled(policy, [RIGHT, WRONG_AT_1, WRONG_AT_0], OmegaLabeler, engine)
    assert right.values(4) == (1, 1, 1, 1)
    assert right.meta["rollouts"] == 0
    assert at_1.values(4) == (1, -1, None, None)
    assert at_0.values(4) == (-1, None, None, None)
    # round 1: the problem; round 2: the prefixes of two steps; round 3: of one step
    assert engine.asked == [1, 2, 2]


def test_omega_reuses_the_states_of_other_solutions_of_the_problem(policy):
    engine = FaultlessEngine(policy)
    found = continuations(policy, engine)
    first, again = solution(WRONG_AT_1), solution(WRONG_AT_1.replace("Step 3: 80 + 5 = 85", "Step 3: 80 + 5 = 86"))
    list(OmegaLabeler(found, RATER).label([first]))
    before = found.spent.rollouts
    (annotation,) = OmegaLabeler(found, RATER).label([again])
    assert annotation.values(4) == (1, -1, None, None)
    assert found.spent.rollouts == before  # the problem, two steps and one step were all known


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_omega_places_every_first_error_exactly_and_asks_for_few_prefixes(case):
    steps, error = case  # `error == steps`: there is none
    search, asked = first_error(steps, error == steps, True), []
    try:
        ask = next(search)
        while True:
            asked.append(ask)
            ask = search.send(ask <= error)
    except StopIteration as end:
        found = end.value
    assert found == (error, error < steps)
    assert len(asked) == len(set(asked))
    assert len(asked) <= 1 + (steps - 1).bit_length()


def test_omega_stops_where_nothing_can_be_said():
    search = first_error(8, False, True)
    assert [next(search), search.send(True)] == [0, 4]
    with pytest.raises(StopIteration) as end:
        search.send(None)
    assert end.value.value == (0, False)


def test_answers_are_compared_as_answers_and_a_missing_one_misses():
    with AnswerChecker() as checker:
        compares = judge_by(checker)
        asked = Solution("?", "", (), reference_answer="0.5")
        assert compares(asked, "so the answer is 1/2.") is True
        assert compares(asked, "so the answer is 2.") is False
        assert compares(asked, "I do not know.") is False


def test_the_error_of_a_share_is_that_of_a_long_simulation():
    # posterior of a uniform prior, by counting on a fine grid
    grid = [(i + 0.5) / 20_000 for i in range(20_000)]
    for reached, count in ((0, 8), (3, 8), (8, 8), (1, 1)):
        weights = [p**reached * (1 - p) ** (count - reached) for p in grid]
        mean = sum(w * p for w, p in zip(weights, grid, strict=True)) / sum(weights)
        variance = sum(w * (p - mean) ** 2 for w, p in zip(weights, grid, strict=True)) / sum(weights)
        assert share_stderr(reached, count) == pytest.approx(sqrt(variance), rel=1e-4)


@pytest.mark.parametrize("kind", [RolloutLabeler, OmegaLabeler])
def test_a_budget_is_never_exceeded_and_the_rest_is_labelled_later(policy, kind):
    every = [solution(text) for text in (WRONG_AT_1, RIGHT, WRONG_AT_0)]
    asked = RolloutSettings(max_new_tokens=20)

    def budgeted(**limits):
        found = continuations(policy, FaultlessEngine(policy))
        return Budgeted(kind(found, RATER), found.spent, asked, **limits), found

    most = kind.most_rollouts(every[0], asked)
    labeler, found = budgeted(max_rollouts=most + 1)
    there = iter(every)
    first = list(labeler.admitted(there, set()))
    assert first == every[:1]
    annotations = list(labeler.label(first))
    assert found.spent.rollouts <= most
    assert not labeler.stopped  # had it taken less, there would be room for another
    assert list(labeler.admitted(there, set())) == []
    assert labeler.stopped
    labeler, found = budgeted(max_tokens=3 * most * 20)
    rest = list(labeler.admitted(iter(every), {every[0].id}))
    assert rest == every[1:]
    assert not labeler.stopped
    annotations += labeler.label(rest)
    whole, _ = budgeted()
    assert [a.id for a in annotations] == [a.id for a in whole.label(every)]


def test_what_shared_prefixes_save_is_spent_on_further_solutions(policy):
    every = [solution(RIGHT), solution(WRONG_AT_1), solution(WRONG_AT_0)]
    found = continuations(policy, FaultlessEngine(policy))
    # each may take 5 x 8 rollouts; they take 4, 2 and 3 prefixes
    labeler = Budgeted(RolloutLabeler(found, RATER), found.spent, found.settings, max_rollouts=90)
    there, rounds = iter(every), []
    while admitted := list(labeler.admitted(there, set())):
        rounds.append(len(list(labeler.label(admitted))))
    assert rounds == [2, 1]
    assert found.spent.rollouts == 9 * 8
    assert not labeler.stopped


def test_solutions_that_rollouts_cannot_judge_are_counted_by_reason(policy):
    found = continuations(policy, FaultlessEngine(policy))
    labeler = Budgeted(RolloutLabeler(found, RATER), found.spent, found.settings)
    lost = [Solution("?", "a", ((0, 1),)), Solution("?", "", (), reference_answer="1"), Solution("!", "a", ((0, 1),))]
    assert list(labeler.admitted(iter(lost), set())) == []
    assert labeler.passed_over == Counter({"no reference answer": 2, "no steps": 1})


def test_a_version_changes_with_everything_that_labels_depend_on():
    base = RolloutSettings()
    versions = {base.version("policy", "reference"), base.version("other", "reference"), base.version("policy", "task")}
    for change in ({"samples": 4}, {"seed": 1}, {"threshold": 0.5}, {"truncated": "left_out"}, {"method": "omega"}):
        versions.add(base.model_copy(update=change).version("policy", "reference"))
    assert len(versions) == 8
    assert Tally(1, 2, 3, 4).count(base) == 6


def test_a_faultless_policy_finds_the_errors_that_the_tasks_own_program_finds(policy):
    """Slow reference: the labelling program of the task, on demonstrations of which half slip."""
    task = ArithmeticTask(restate_rate=0.0)
    solutions = [solution(d.completion, d.problem) for d in task.demonstrations("train", 60, 3)]
    found = continuations(policy, FaultlessEngine(policy))
    full, searched = (list(kind(found, RATER).label(solutions)) for kind in (RolloutLabeler, OmegaLabeler))
    errors = 0
    for one, by_all, by_search in zip(solutions, full, searched, strict=True):
        chain = parse_problem(one.problem)
        true = label_chain(chain, one.steps)
        error = true.index(-1) if -1 in true else None
        reached = [int(step.rpartition(" ")[2]) for step in one.steps[:-1]]
        wrong = [a != b for a, b in zip(reached, chain.values[1:], strict=True)]
        if wrong == sorted(wrong):  # no second slip undoes the first: no rollout could tell then
            assert by_all.first_error == by_search.first_error == error
            errors += error is not None
    assert errors > 20
