from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.distributed import World
from prm_kit.engines.engine import Rollout, occurrences
from prm_kit.engines.transformers_engine import TransformersEngine
from prm_kit.errors import UsageError
from prm_kit.policy import Policy
from prm_kit.records import Solution
from prm_kit.score import StepScores
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from rl.branching import (
    check_branching,
    entropies_of,
    left_at_random,
    left_before_lowest,
    left_before_uncertain,
    places,
)
from rl.draws import Draws
from rl.gathering import Earned, Gathered, batch_of
from rl.idle_steps import idle_steps
from rl.learning import pairs_of
from rl.objective import update_of
from rl.presets import algorithm
from rl.rewarding import Rewarding
from rl.rollouts import Sampled, Sampler
from rl.rounds import Answers, Rounds, joined
from rl.train_settings import Branching, RlSettings

PROBLEMS = ArithmeticTask().problems("train", 6, 0)


class OftenEndsLines(torch.nn.Module):
    """Output embeddings of a fresh policy that ends a line, and the text, more often."""

    def __init__(self, head, line_end, end):
        super().__init__()
        self.weight = head.weight
        self.register_buffer("bias", torch.zeros(len(head.weight)))
        self.bias[line_end], self.bias[end] = 1.5, 1.0

    def forward(self, hidden):
        return torch.nn.functional.linear(hidden, self.weight, self.bias)


@pytest.fixture(scope="module")
def policy():
    """Its texts have a few lines, and an end more often than not."""
    policy = Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer())
    line_end, end = policy.completion_ids(["\n"])[0]
    policy.model.set_output_embeddings(OftenEndsLines(policy.model.get_output_embeddings(), line_end, end))
    return policy


class ByDigits:
    """A scorer: the more digits in a step, the worse; it counts what it is asked."""

    name = "digits"

    def __init__(self):
        self.asked = []

    def score(self, solutions):
        self.asked += solutions
        return [StepScores(tuple(self._one(step) for step in one.steps)) for one in solutions]

    def _one(self, step):
        right = 1 / (1 + sum(c.isdigit() for c in step) + len(step) / 100)
        return (1 - right, 0.0, right)


def verdict(problem, completion):
    return len(completion) % 2 == 0


def rounds(policy, name="gfpo-anchored", scorer=None, **changes):
    changes = {"branching": Branching(roots=2, branches=3), "problems": 2, "max_new_tokens": 24} | changes
    settings = RlSettings(policy="", algorithm=name, split="newline", **changes)
    its = algorithm(name, {"weights": {"process": 0.0, "format": 0.0}} | settings.parts)
    sampler = Sampler(policy, TransformersEngine(policy.model), "newline", settings.max_new_tokens, 1.0, settings.seed)
    rewarding = Rewarding(its, verdict, settings.max_new_tokens, scorer)
    roots = settings.branching.roots if settings.branching else 4
    return Rounds(settings, PROBLEMS, roots, sampler, rewarding, sampler.engine, torch.device("cpu"), World())


def answered(asked, chosen=(0, 1), round=0):
    turns = occurrences([PROBLEMS[i].text for i in chosen])
    return asked.answers(list(chosen), asked.group_size, round=round, turns=turns)


def gathered(asked, number=0):
    return asked.gather(number, Draws(len(PROBLEMS), 0, None, {}))


def rollout_of(*steps):
    """A rollout of one token a letter."""
    solution = Solution.from_steps("p", list(steps), "")
    ids = tuple(range(10, 10 + len("".join(steps))))
    step_of = [k for k, step in enumerate(steps) for _ in step]
    whole = Rollout((*ids, 0), (-0.5,) * (len(ids) + 1), "stop")
    return Sampled(0, PROBLEMS[0], (1, 2), whole, solution, (*step_of, len(steps) - 1))


def test_a_rollout_can_be_left_at_the_end_of_every_step_but_the_last():
    # "ab" tokens 0-1, "cde" 2-4, "f" 5, and the end token belongs to the last step
    root = rollout_of("ab", "cde", "f")
    assert places(root) == [(1, 2), (2, 5)]
    assert places(rollout_of("abc")) == []
    assert {left_at_random(root, seed) for seed in range(20)} == {2, 5}
    assert left_at_random(root, 3) == left_at_random(root, 3)
    assert left_at_random(rollout_of("abc"), 0) == 0


def test_it_is_left_before_the_step_of_the_lowest_value_but_never_before_the_first_step():
    root = rollout_of("ab", "cde", "f")
    assert left_before_lowest(root, [0.9, 0.5, -0.2], 0) == 5
    assert left_before_lowest(root, [-1.0, 0.5, 0.5], 0) == 2  # the first of equals; step 0 has no prefix to share
    assert left_before_lowest(root, [0.0, None, 0.7], 0) == 5  # an abstention is no low value
    assert left_before_lowest(root, [0.0, None, None], 7) == left_at_random(root, 7)


def test_it_is_left_before_the_step_that_holds_the_most_uncertain_token():
    root = rollout_of("ab", "cde", "f")
    # means of the steps: 5, 0.7, 0.6 - but one token of "cde" is the most uncertain beyond the first step
    assert left_before_uncertain(root, [9, 1, 0, 2, 0, 0.6, 0.6]) == 2
    assert left_before_uncertain(root, [9, 1, 0, 2, 0, 3, 0]) == 5
    assert left_before_uncertain(rollout_of("abc"), [1, 2, 3, 4]) == 0


def test_entropies_are_those_of_the_whole_distribution():
    policy = Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer())
    (group,) = rounds(policy).sampler.groups(PROBLEMS[:1], 3, round=0)
    found = entropies_of(policy.model, group, 64)
    for one, entropies in zip(group, found, strict=True):
        with torch.no_grad():
            logits = policy.model(torch.tensor([[*one.prompt, *one.rollout.ids]])).logits[0]
        p = logits[len(one.prompt) - 1 : -1].log_softmax(-1)
        assert entropies == pytest.approx((-(p.exp() * p).sum(-1)).tolist(), abs=1e-4)


@pytest.mark.parametrize("at", ["random", "value", "entropy"])
def test_branches_share_their_roots_tokens_and_text_up_to_the_end_of_a_step(policy, at):
    scorer = ByDigits()
    asked = rounds(policy, scorer=scorer, branching=Branching(roots=2, branches=3, at=at))
    answers = answered(asked)
    assert [len(group) for group in answers.groups] == [2, 3, 3] * 2
    assert answers.problems == [0, 0, 0, 1, 1, 1]
    shared = 0
    for draw in by_draw(answers):
        roots, *families = draw
        for root, family in zip(roots, families, strict=True):
            for branch in family:
                start = branch.prefix
                ids, kept = root.rollout.ids, (*branch.prompt, *branch.rollout.ids)
                assert branch.prompt == (*root.prompt, *ids[:start])
                assert start in [0, *(token for _, token in places(root))]
                text = policy.text(Rollout(ids[:start], (), "length"))
                assert root.solution.completion.startswith(text)
                assert branch.solution.completion == policy.text(
                    Rollout(kept[len(root.prompt) :], (), branch.rollout.finish)
                )
                assert branch.solution.completion.startswith(text)
                assert branch.length <= 24
                assert len(branch.step_of_token) == len(branch.rollout.ids)
                shared += start > 0
    assert shared > 0
    assert len({one.id for one in scorer.asked}) == len(scorer.asked)  # no root is scored twice


def test_a_branch_is_the_same_alone_and_beside_others(policy):
    asked = rounds(policy)
    together = by_draw(answered(asked, (0, 1, 0)))
    for place, number in ((1, 1), (0, 0)):
        (alone,) = by_draw(answered(asked, (number,)))
        assert ids_of(alone) == ids_of(together[place])
    assert ids_of(together[0]) != ids_of(together[2])  # a problem that is drawn twice is answered anew
    assert ids_of(answered(asked, (1,), round=1)) != ids_of(answered(asked, (1,)))


def by_draw(answers):
    """Groups of each drawn problem."""
    starts = [place for place, group in enumerate(answers.groups) if group[0].prefix is None]
    return [answers.groups[start:end] for start, end in pairwise([*starts, len(answers.groups)])]


def ids_of(answers):
    groups = answers.groups if isinstance(answers, Answers) else answers
    return [[one.rollout.ids for one in group] for group in groups]


def test_the_log_probabilities_of_a_branch_are_the_policys_own(policy):
    branch = answered(rounds(policy)).groups[1][0]
    with torch.no_grad():
        logits = policy.model(torch.tensor([[*branch.prompt, *branch.rollout.ids]])).logits[0]
    said = logits[len(branch.prompt) - 1 : -1].log_softmax(-1)
    expected = said.gather(1, torch.tensor(branch.rollout.ids)[:, None])[:, 0]
    assert branch.rollout.log_probabilities == pytest.approx(expected.tolist(), abs=1e-4)


def test_no_branch_is_longer_than_a_rollout_may_be_though_prefixes_of_all_lengths_are_continued_together(policy):
    asked = rounds(policy, max_new_tokens=12)
    sampler = asked.sampler
    (roots,) = sampler.groups(PROBLEMS[:1], 3, round=0)
    starts = [0, 1, 11]
    starts = [min(start, len(root.rollout.ids) - 1) for start, root in zip(starts, roots, strict=True)]
    together = sampler.continued(roots, starts, 2, round=0, turns=[0, 0, 0])
    for root, start, family in zip(roots, starts, together, strict=True):
        (alone,) = sampler.continued([root], [start], 2, round=0, turns=[0])
        assert [one.rollout.ids for one in family] == [one.rollout.ids for one in alone]
        for one in family:
            assert len(one.rollout.ids) <= 12 - start
            assert (one.rollout.finish == "length") == (one.rollout.ids[-1] not in policy.stop_ids)
    assert [one.rollout.ids for one in together[0]] != [one.rollout.ids for one in roots[:2]]


def test_every_pair_of_siblings_shares_exactly_the_prefix_and_no_pair_reaches_beyond_a_family(policy):
    asked = rounds(policy, "gfpo", parts={"pairs": {"builder": "ranked"}}, problems=4)
    found = gathered(asked)
    pairs = pairs_of(asked.rewarding.algorithm, found.rows, 0)
    branch_pairs = 0
    for pair in pairs:
        better, worse = found.rows[pair.better].sampled, found.rows[pair.worse].sampled
        assert better.prompt == worse.prompt  # the same state: the problem, or the problem and the prefix
        branch_pairs += better.prefix is not None
    assert branch_pairs > 0
    tails = [row for row in found.rows if row.is_reference]
    assert len(tails) == 2 * 4
    for tail in tails:
        # the root's own continuation: its ids from the prefix on, with what the root earned
        roots = [row for row in found.roots if row.sampled.solution.id == tail.sampled.solution.id]
        assert any(
            (*tail.sampled.prompt, *tail.sampled.rollout.ids) == (*one.sampled.prompt, *one.sampled.rollout.ids)
            and tail.reward == one.reward
            for one in roots
        )


def test_prefix_sharing_pairs_exist_by_construction(policy):
    # siblings may differ from their first own token on; prefix_sharing over whole texts asks for half in common
    asked = rounds(policy, "gfpo-anchored", problems=4)
    found = gathered(asked)
    pairs = pairs_of(asked.rewarding.algorithm, found.rows, 0)
    families = {found.rows[pair.better].sampled.group for pair in pairs if found.rows[pair.better].sampled.prefix}
    mixed = {
        row.sampled.group
        for row in found.rows
        if row.sampled.prefix
        and len({one.reward for one in found.rows if one.sampled.group == row.sampled.group and can_pair(one)}) > 1
    }
    assert families == mixed
    assert families


def can_pair(row):
    return row.in_pairs and row.sampled.rollout.finish == "stop"


def test_advantages_of_branches_are_against_siblings_and_those_of_roots_against_roots(policy):
    asked = rounds(policy, "dapo", branching=Branching(roots=3, branches=2), problems=3)
    found = gathered(asked)
    assert not any(row.is_reference for row in found.rows)  # without pairs no root is in its branches' group
    update = update_of(asked.rewarding.algorithm, asked.batch(found))
    for group in found.groups:
        places_of = [i for i, row in enumerate(found.rows) if row.sampled.group == group]
        rewards = [found.rows[i].reward for i in places_of]
        for i in places_of:
            length = len(found.rows[i].sampled.rollout.ids)
            expected = found.rows[i].reward - sum(rewards) / len(rewards)
            assert update.advantage_BT[i, :length].tolist() == pytest.approx([expected] * length, abs=1e-6)
    # a token is trained as often as it was sampled: no prefix stands in a branch's row
    assert int(update.mask_BT.sum()) == found.counts["sampled tokens"]


def test_the_steps_of_a_branch_count_from_the_one_that_it_goes_on_with(policy):
    asked = rounds(policy, scorer=ByDigits(), problems=3)
    found = gathered(asked)
    batch = asked.batch(found)
    for i, row in enumerate(found.rows):
        first = row.sampled.step_of_token[0] if row.sampled.prefix is not None else 0
        assert int(batch.step_BT[i, 0]) == row.sampled.step_of_token[0] - first
        expected = [value for value in row.step_values[first:] if value is not None]
        idle = first > 0 and all(idle_steps(row.sampled.solution)[first:])
        own = [value for value in batch.step_rewards_BS[i].tolist() if value == value]
        assert own == pytest.approx([-1.0] if idle else expected)


def test_a_branch_that_only_repeats_what_its_prefix_says_is_worth_nothing(policy):
    root = rollout_of("ab", "cde", "ab")
    earned = Earned(root.tail(5), 0.0, {}, None, (0.5, 0.5, None))
    batch = batch_of([earned], 9, torch.device("cpu"), scored=True)
    assert batch.step_rewards_BS[0, 0] == -1.0


def test_what_is_told_of_a_problem_and_of_the_policy_comes_from_roots(policy):
    memory = {}
    draws = Draws(len(PROBLEMS), 0, None, memory)
    found = rounds(policy).gather(0, draws)
    assert [len(said) for said in memory["outcomes"].values()] == [2, 2]
    assert len(found.roots) == 4
    assert found.n_draws == 2
    assert found.counts["sampled"] == 2 * Branching(roots=2, branches=3).rollouts


def test_without_a_second_step_branches_are_rollouts_of_their_own(policy):
    asked = rounds(policy, max_new_tokens=1)
    roots, *families = answered(asked, (0,)).groups
    assert all(branch.prefix == 0 and branch.prompt == roots[0].prompt for family in families for branch in family)


class Elsewhere(ByDigits):
    """The same scorer as one that runs somewhere else."""

    runs_elsewhere = True


def test_what_is_rewarded_beside_the_next_part_is_rewarded_the_same(policy):
    here, there = (rounds(policy, scorer=one(), parts_of_round=3) for one in (ByDigits, Elsewhere))
    assert answered(here, range(3)) == answered(there, range(3))


def test_answers_are_joined_one_after_another(policy):
    asked = rounds(policy, scorer=ByDigits())
    one, other = answered(asked, (0,)), answered(asked, (1,))
    both = joined([one, other])
    assert both.groups == one.groups + other.groups
    assert both.rewarded.composed.totals == (*one.rewarded.composed.totals, *other.rewarded.composed.totals)
    assert both.rewarded.step_values == one.rewarded.step_values + other.rewarded.step_values


def test_an_error_beside_the_next_part_stops_the_round(policy):
    class Fails(Elsewhere):
        def score(self, solutions):
            raise UsageError("no such server")

    asked = rounds(policy, scorer=Fails(), parts_of_round=3)
    with pytest.raises(UsageError, match="no such server"):
        answered(asked, range(3))


@given(st.lists(st.integers(0, 3), max_size=8))
def test_occurrences_count_what_stands_before(items):
    assert occurrences(items) == [items[:i].count(item) for i, item in enumerate(items)]


def test_rows_without_a_reward_take_their_tail_with_them(policy):
    asked = rounds(policy, "gfpo")
    answers = answered(asked, (0,))
    composed = answers.rewarded.composed
    lost = composed.__class__((None, *composed.totals[1:]), composed.parts, composed.failed)
    found = Gathered()
    found.add(*answers._replace(rewarded=answers.rewarded.__class__(
        lost, answers.rewarded.correct, answers.rewarded.step_values)), tails=True)  # fmt: skip
    assert found.counts["failed"] == 1
    assert sum(row.is_reference for row in found.rows) == 1
    for one, other in pairwise(sorted({row.sampled.group for row in found.rows})):
        assert other == one + 1


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("grpo", {"group_size": 8}, "2 roots with 2 branches each are 6 rollouts of a problem; group_size is 8"),
        ("grpo", {"at": "value", "scored": False}, "nobody values the steps"),
        ("remax", {}, "greedy rollout"),
        ("srpo", {}, "reference rollout"),
        ("reinforce++", {}, "whitened centres over all rollouts"),
        ("grpo", {"branches": 1}, "at least 2 roots and 2 branches are needed, not 2 and 1"),
        ("rloo", {"roots": 1}, "at least 2 roots and 2 branches are needed, not 1 and 2"),
    ],
)
def test_who_cannot_use_branches_is_refused_by_name(name, changes, reason):
    asked = {"group_size": None, "scored": True, "roots": 2, "branches": 2, "at": "random"} | changes
    branching = Branching(roots=asked["roots"], branches=asked["branches"], at=asked["at"])
    with pytest.raises(UsageError, match=reason):
        check_branching(branching, algorithm(name, {}), group_size=asked["group_size"], scored=asked["scored"])


def test_pairs_do_with_one_branch_and_a_critic_with_one_root():
    check_branching(Branching(roots=1, branches=1), algorithm("gfpo", {}), group_size=2, scored=False)
    check_branching(Branching(roots=1, branches=1), algorithm("vapo-gae", {}), group_size=None, scored=False)
