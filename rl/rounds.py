"""Rounds of sampling: problems are drawn, answered and rewarded until an update has the groups that it asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch

from prm_kit.distributed import World
from prm_kit.engines.engine import Engine, occurrences
from prm_kit.records import Problem
from rl.batch import Batch
from rl.branching import entropies_of, left_at_random, left_before_lowest, left_before_uncertain
from rl.dealing import dealt
from rl.draws import Draws
from rl.gathering import Gathered, batch_of
from rl.overlap import overlapped
from rl.rewarding import Known, Rewarded, Rewarding
from rl.rewards import Composed
from rl.rollouts import Sampled, Sampler
from rl.train_settings import RlSettings

_REFERENCE_SEED = 104_729
"""What the reference policy answers has random numbers of its own: with those of the first rollout of the group it
would say the same as long as both policies are alike, and a baseline must not know what it is compared with."""


class Answers(NamedTuple):
    """Problems answered and rewarded; joined by putting one after another.

    Attributes:
        problems: Number of the problem of each group.
        groups: Rollouts of a problem; right after them, where they branch, the branches of each of them.
        rewarded: What the rollouts earned, one after another.
    """

    problems: list[int]
    groups: list[list[Sampled]]
    rewarded: Rewarded


@dataclass(frozen=True)
class Rounds:
    """Who samples for an update, and who rewards it.

    Attributes:
        settings: How many groups, in how many rounds at most.
        problems: That are drawn from.
        group_size: Independent rollouts of a problem.
        sampler: Asks the policy.
        rewarding: Rewards what it answers; its algorithm filters groups and asks for rollouts to compare with.
        reference: Samples from the reference policy, where the algorithm compares with it.
        device: Where tensors go.
        world: The processes: each answers and rewards its share of the problems.
    """

    settings: RlSettings
    problems: Sequence[Problem]
    group_size: int
    sampler: Sampler
    rewarding: Rewarding
    reference: Engine
    device: torch.device
    world: World

    def gather(self, number: int, draws: Draws) -> Gathered:
        """Groups for update `number`; where the algorithm filters them, as many rounds as it takes (or are allowed).

        Raises:
            NotFiniteError: A reward is not finite.
        """
        gathered = Gathered()
        algorithm = self.rewarding.algorithm
        filtering = algorithm.group_filter
        for turn in range(self.settings.most_rounds if filtering is not None else 1):
            chosen = draws.next(self.settings.problems - gathered.n_draws)
            answers = self.answers(
                chosen,
                self.group_size,
                round=number * self.settings.most_rounds + turn,
                turns=occurrences([self.problems[i].text for i in chosen]),
            )
            _tell(draws, answers)
            gathered.add(*answers, tails=algorithm.pairs is not None)
            if filtering is not None and gathered.rows:
                gathered.keep(filtering(self.batch(gathered)))
            if gathered.n_draws >= self.settings.problems:
                break
        self._add_references(gathered, number)
        return gathered

    def answers(
        self,
        chosen: Sequence[int],
        n: int,
        *,
        round: int,
        turns: Sequence[int],
        compared: Sampler | None = None,
        greedy: bool = False,
    ) -> Answers:
        """Sample `n` rollouts of each problem, with their branches, and reward them: each problem for itself.

        Each process does its share of the problems, and all know what came out.

        Args:
            chosen: Numbers of the problems.
            n: Rollouts of each.
            round: Number of the round within the run.
            turns: How often each of them, by its text, was chosen in this round before.
            compared: Asks for rollouts to compare with, which do not branch; None: for those that are trained.
            greedy: Take the likeliest tokens.
        """

        def mine(places: range) -> Answers:
            its, its_turns = chosen[places.start : places.stop], turns[places.start : places.stop]
            return self._own_answers(its, n, round, its_turns, compared, greedy)

        return joined(dealt(self.world, len(chosen), mine))

    def _own_answers(
        self, chosen: Sequence[int], n: int, round: int, turns: Sequence[int], compared: Sampler | None, greedy: bool
    ) -> Answers:
        """`answers` to this process's share of the problems."""
        count = max(1, min(self.settings.parts_of_round, len(chosen)))
        bounds = [len(chosen) * i // count for i in range(count + 1)]

        def sampled() -> Iterator[_Part]:
            for start, end in pairwise(bounds):
                sampler = compared or self.sampler
                problems = [self.problems[i] for i in chosen[start:end]]
                groups = sampler.groups(problems, n, round=round, greedy=greedy, turns=turns[start:end])
                part = _Part(list(chosen[start:end]), groups, {})
                yield part if compared or not self.settings.branching else self._branched(part, round, turns[start:end])

        scorer = self.rewarding.scorer
        # A PRM in this process would take turns with the generation on the same cores or the same GPU.
        apart = count > 1 and (scorer is None or getattr(scorer, "runs_elsewhere", False))
        found = overlapped(sampled(), self._earned) if apart else [self._earned(part) for part in sampled()]
        return joined(found)

    def batch(self, gathered: Gathered) -> Batch:
        """The rows as tensors."""
        scored = self.rewarding.scorer is not None
        return batch_of(gathered.rows, self.settings.max_new_tokens, self.device, scored=scored)

    def _earned(self, part: _Part) -> Answers:
        groups = [[replace(one, group=number) for one in group] for number, group in enumerate(part.groups)]
        rewarded = self.rewarding.rewards([one for group in groups for one in group], part.known)
        return Answers(part.problems, groups, rewarded)

    def _branched(self, part: _Part, round: int, turns: Sequence[int]) -> _Part:
        """The same with the branches of each root."""
        assert self.settings.branching is not None
        roots = [one for group in part.groups for one in group]
        n = len(roots) // len(part.groups)
        known: dict[str, tuple[float | None, ...]] = {}
        if self.settings.branching.at == "value":
            values = self.rewarding.step_values(roots)
            known = {one.solution.id: its for one, its in zip(roots, values, strict=True)}
        starts = self._starts(roots, known, round)
        # The same prefix again, of another root or of the problem drawn again, is continued otherwise.
        turn_of = [turns[i // n] for i in range(len(roots))]
        again = occurrences(
            [(t, one.prompt, one.rollout.ids[:start]) for t, one, start in zip(turn_of, roots, starts, strict=True)]
        )
        branches = self.sampler.continued(
            roots,
            starts,
            self.settings.branching.branches,
            round=round,
            turns=[turn * n + times for turn, times in zip(turn_of, again, strict=True)],
        )
        groups = []
        for place, group in enumerate(part.groups):
            groups += [group, *branches[place * n : (place + 1) * n]]
        return _Part([problem for problem in part.problems for _ in range(1 + n)], groups, known)

    def _starts(self, roots: Sequence[Sampled], known: Known, round: int) -> list[int]:
        """How many tokens of each root its branches keep."""
        assert self.settings.branching is not None
        seed = self.sampler.seed * 1_000_003 + round
        if self.settings.branching.at == "value":
            return [left_before_lowest(one, known[one.solution.id], seed) for one in roots]
        if self.settings.branching.at == "entropy":
            found = entropies_of(self.sampler.policy.model, roots, self.settings.micro_batch_tokens)
            return [left_before_uncertain(one, its) for one, its in zip(roots, found, strict=True)]
        return [left_at_random(one, seed) for one in roots]

    def _add_references(self, gathered: Gathered, number: int) -> None:
        """One rollout to compare with for each group, where the algorithm compares."""
        compared = self.rewarding.algorithm.needs & {"greedy rollout", "reference rollout"}
        if not compared or not gathered.rows:
            return
        sampler = self.sampler
        if "reference rollout" in compared:
            sampler = replace(sampler, engine=self.reference, seed=sampler.seed + _REFERENCE_SEED)
        numbers = gathered.groups
        chosen = [gathered.problem_of_group[group] for group in numbers]
        answers = self.answers(
            chosen,
            1,
            round=number * self.settings.most_rounds,
            turns=occurrences([self.problems[i].text for i in chosen]),
            compared=sampler,
            greedy="greedy rollout" in compared,
        )
        gathered.add_references([one for (one,) in answers.groups], numbers, answers.rewarded)


class _Part(NamedTuple):
    """What was sampled together: the problem of each group, the groups, and step values found out on the way."""

    problems: list[int]
    groups: list[list[Sampled]]
    known: Known


def joined(answers: Sequence[Answers]) -> Answers:
    """Answers put one after another."""
    parts = [one.rewarded.composed for one in answers]
    composed = Composed(
        tuple(total for part in parts for total in part.totals),
        {name: tuple(value for part in parts for value in part.parts[name]) for name in parts[0].parts},
        {name: sum(part.failed[name] for part in parts) for name in parts[0].failed},
    )
    correct = tuple(right for one in answers for right in one.rewarded.correct)
    values = tuple(its for one in answers for its in one.rewarded.step_values)
    return Answers(
        [problem for one in answers for problem in one.problems],
        [group for one in answers for group in one.groups],
        Rewarded(composed, correct, values),
    )


def _tell(draws: Draws, answers: Answers) -> None:
    """What became of the problems, whether they train or not; branches say nothing of how hard a problem is."""
    verdicts = iter(answers.rewarded.correct)
    for problem, group in zip(answers.problems, answers.groups, strict=True):
        of_group = [next(verdicts) for _ in group]
        if group[0].prefix is None:
            draws.tell({problem: [float(right) for right in of_group if right is not None]})
