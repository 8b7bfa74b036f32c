"""Search for solutions that a step scorer likes: best-of-n, beam search, diverse verifier tree search.

All problems go forward together: each round asks the engine once for the next step of every prefix that is kept, and
the scorer once for what came back.

best-of-n   whole solutions, scored at the end (arXiv 2110.14168)
beam        after every step the n / width best prefixes of a problem are kept, and each is continued `width` times
            (arXiv 2408.03314)
dvts        n / width trees that share nothing but the problem; each keeps its one best prefix, so that one early
            favourite cannot push every other beginning out

A solution that ends is kept whatever its rank; a problem is done when n have ended or no prefix is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from prm_kit.aggregate import solution_score
from prm_kit.answer_text import extract_final_answer
from prm_kit.engines.engine import Engine, Limits, Rollout, generate_anew
from prm_kit.errors import UsageError
from prm_kit.records import Problem, Solution
from prm_kit.score import StepScorer, StepScores
from prm_kit.search_settings import SearchSettings
from prm_kit.split import split

if TYPE_CHECKING:
    from prm_kit.policy import Policy

Progress = Callable[[str, int, int | None, str], None]

_NEXT = "x"  # any character that begins a step: is there a boundary in front of it?


@dataclass(frozen=True)
class Candidate:
    """A solution, or the beginning of one.

    Attributes:
        ids: Tokens of the completion so far, the stop token included.
        solution: The same as text, split into steps.
        ended: "stop" by the policy, "length" by a limit of tokens or steps, "" while it goes on.
        scores: What the scorer says of every step; None before it was asked.
        score: The steps' scores aggregated; None where the scorer abstains from all of them, or there are none.
    """

    ids: tuple[int, ...]
    solution: Solution
    ended: str = ""
    scores: StepScores | None = None
    score: float | None = None

    @property
    def rank(self) -> tuple[bool, float]:
        """Sorts better candidates higher: those that ended by themselves, then by score; no score is the lowest."""
        return self.ended != "length", float("-inf") if self.score is None else self.score


@dataclass
class Spent:
    """What a search cost.

    Attributes:
        sampled_tokens: New tokens.
        read_tokens: Tokens of prefixes that the engine read in front of them, each distinct prefix of a round once.
        scored: Solutions and beginnings that the scorer was asked for.
        rounds: How often the engine was asked.
        merged: Beginnings that were dropped because the same text stood beside them.
    """

    sampled_tokens: int = 0
    read_tokens: int = 0
    scored: int = 0
    rounds: int = 0
    merged: int = 0


@dataclass(frozen=True)
class Found:
    """What was found for a problem: ended solutions, best first; equal scores in the order they ended."""

    problem: Problem
    candidates: tuple[Candidate, ...]


@dataclass
class Search:
    """One policy, one scorer, one way to search.

    Attributes:
        policy: Encodes problems and reads rollouts.
        engine: Samples from that policy.
        scorer: Says which steps are good.
        settings: The search.
        spent: What all calls of `run` cost together.
    """

    policy: Policy
    engine: Engine
    scorer: StepScorer
    settings: SearchSettings
    spent: Spent = field(default_factory=Spent)

    def run(self, problems: Sequence[Problem], progress: Progress | None = None) -> list[Found]:
        """Search for solutions of all problems at once, in the order asked.

        Raises:
            UsageError: A problem leaves no room for `max_new_tokens` in the policy's context.
        """
        prompts = self._prompts(problems)
        tell = progress or (lambda *_: None)
        if self.settings.method == "best-of-n":
            limits = self._limits(self.settings.max_new_tokens, self.policy.stop_ids)
            groups = self._generate(prompts, self.settings.n, limits)
            ended = [
                [self._candidate(problem, (), rollout, ended=rollout.finish) for rollout in rollouts]
                for problem, rollouts in zip(problems, groups, strict=True)
            ]
            ended = self._scored(ended)
        else:
            ended = self._by_steps(problems, prompts, tell)
        tell("search", len(problems), len(problems), "")
        return [
            Found(problem, tuple(sorted(candidates, key=lambda candidate: candidate.rank, reverse=True)))
            for problem, candidates in zip(problems, ended, strict=True)
        ]

    def check(self, problems: Sequence[Problem]) -> None:
        """Refuse, before a run, problems that leave no room; see `run`."""
        self._prompts(problems)

    def _by_steps(self, problems: Sequence[Problem], prompts: list[list[int]], tell: Progress) -> list[list[Candidate]]:
        settings = self.settings
        ended: list[list[Candidate]] = [[] for _ in problems]
        # per problem its trees, per tree the prefixes that are kept
        roots = [Candidate((), Solution(problem.text, "", ())) for problem in problems]
        kept = [[[root]] * settings.trees for root in roots]
        for step in range(settings.max_steps):
            tell("search", sum(not any(trees) for trees in kept), len(problems), f"step {step + 1}")
            if not any(any(trees) for trees in kept):
                break
            grown = self._grow(problems, prompts, kept, first=step == 0)
            flat = self._scored([[one for tree in trees for one in tree] for trees in grown])
            for number, (trees, scored) in enumerate(zip(grown, flat, strict=True)):
                if step + 1 == settings.max_steps:
                    scored = [one if one.ended else replace(one, ended="length") for one in scored]
                ended[number] += [one for one in scored if one.ended]
                rest = iter(scored)
                fresh = [[next(rest) for _ in tree] for tree in trees]
                done = len(ended[number]) >= settings.n
                kept[number] = [] if done else [_best(tree, settings.kept) for tree in fresh]
        return ended

    def _grow(
        self, problems: Sequence[Problem], prompts: list[list[int]], kept: list[list[list[Candidate]]], *, first: bool
    ) -> list[list[list[Candidate]]]:
        """Continue every kept prefix to the end of its next step; the same text stands only once in a problem."""
        trees = self.settings.trees
        asked = [
            (number, tree, prefix)
            for number, its_trees in enumerate(kept)
            for tree, prefixes in enumerate(its_trees[:1] if first else its_trees)
            for prefix in prefixes
        ]
        many = self.settings.n if first else self.settings.width
        sampled = self._steps([(problems[number], prompts[number], prefix) for number, _, prefix in asked], many)
        grown: list[list[list[Candidate]]] = [[[] for _ in range(trees)] for _ in problems]
        seen: set[tuple[int, str]] = set()
        for (number, tree, _), candidates in zip(asked, sampled, strict=True):
            dealt = 0
            for one in candidates:
                key = number, one.solution.completion
                if not one.ended and key in seen:
                    self.spent.merged += 1
                    continue
                seen.add(key)
                grown[number][dealt % trees if first else tree].append(one)  # the first samples are dealt to the trees
                dealt += 1
        return grown

    def _steps(self, prefixes: Sequence[tuple[Problem, list[int], Candidate]], n: int) -> list[list[Candidate]]:
        """Sample `n` next steps of each prefix.

        The engine stops at every token with a line end in it; where that is no boundary between steps (inside a
        formula, or half of a blank line) the text is continued until there is one.
        """
        done: list[list[Candidate]] = [[] for _ in prefixes]
        stops = (*self.policy.stop_ids, *self._line_ends)
        going = [(place, prefix) for place, (_, _, prefix) in enumerate(prefixes)]
        while going:
            rooms = [self.settings.max_new_tokens - len(prefix.ids) for _, prefix in going]
            ids = [[*prefixes[place][1], *prefix.ids] for place, prefix in going]
            # One call for all: whoever has less room than the others is cut where its own ends.
            groups = self._generate(ids, n, self._limits(max(rooms), stops))
            further: list[tuple[int, Candidate]] = []
            for (place, prefix), room, rollouts in zip(going, rooms, groups, strict=True):
                for rollout in rollouts:
                    cut = _cut(rollout, room)
                    one = self._candidate(prefixes[place][0], prefix.ids, cut, self._ended(cut, room))
                    if one.ended or self._at_boundary(one.solution):
                        done[place].append(one)
                    else:
                        further.append((place, one))
            going, n = further, 1
        return done

    def _scored(self, groups: list[list[Candidate]]) -> list[list[Candidate]]:
        """Ask the scorer once for all; each distinct solution once."""
        distinct = {one.solution.id: one.solution for group in groups for one in group if one.solution.spans}
        found = dict(zip(distinct, self.scorer.score(list(distinct.values())), strict=True)) if distinct else {}
        self.spent.scored += len(distinct)
        return [[self._with(one, found.get(one.solution.id)) for one in group] for group in groups]

    def _with(self, one: Candidate, scores: StepScores | None) -> Candidate:
        if scores is None:
            return one
        return replace(one, scores=scores, score=solution_score(scores, self.settings.aggregation))

    def _generate(self, prefixes: list[list[int]], n: int, limits: Limits) -> list[list[Rollout]]:
        groups = generate_anew(self.engine, prefixes, n, limits)
        self.spent.rounds += 1
        self.spent.read_tokens += sum(len(prefix) for prefix in {tuple(prefix) for prefix in prefixes})
        self.spent.sampled_tokens += sum(len(rollout.ids) for group in groups for rollout in group)
        return groups

    def _candidate(self, problem: Problem, before: tuple[int, ...], rollout: Rollout, ended: str) -> Candidate:
        ids = (*before, *rollout.ids)
        text = self.policy.text(Rollout(ids, (), "stop" if ended == "stop" else "length"))
        spans = split(text, self.settings.step, attached=False, max_step_tokens=None).spans
        solution = Solution(
            problem.text,
            text,
            spans,
            final_answer=extract_final_answer(text) if ended else None,
            reference_answer=problem.reference_answer,
        )
        return Candidate(ids, solution, ended)

    def _ended(self, rollout: Rollout, room: int) -> str:
        if rollout.finish == "stop" and rollout.ids[-1] in self.policy.stop_ids:
            return "stop"
        return "length" if len(rollout.ids) >= room else ""  # a line end on the last token leaves no room for another

    def _at_boundary(self, solution: Solution) -> bool:
        """Whether the next character would begin another step."""
        text = solution.completion
        spans = split(text + _NEXT, self.settings.step, attached=False, max_step_tokens=None).spans
        return len(spans) > 1 and spans[-1][0] == len(text)

    @cached_property
    def _line_ends(self) -> tuple[int, ...]:
        """Tokens whose text has a line end in it."""
        decode = self.policy.tokenizer.decode
        size = len(self.policy.tokenizer)
        special = set(self.policy.tokenizer.added_tokens_decoder)
        return tuple(number for number in range(size) if number not in special and "\n" in str(decode([number])))

    def _limits(self, room: int, stops: Iterable[int]) -> Limits:
        return Limits(room, tuple(sorted(set(stops))), self.settings.temperature, self.settings.seed)

    def _prompts(self, problems: Sequence[Problem]) -> list[list[int]]:
        prompts = self.policy.prompt_ids([problem.text for problem in problems])
        context = getattr(self.policy.model.config, "max_position_embeddings", None)
        for problem, prompt in zip(problems, prompts, strict=True):
            if context is not None and len(prompt) + self.settings.max_new_tokens > context:
                raise UsageError(
                    f"problem {problem.text[:60]!r}: {len(prompt)} tokens leave no room for max_new_tokens "
                    f"{self.settings.max_new_tokens} in the policy's context of {context}"
                )
        return prompts


def _best(tree: Sequence[Candidate], number: int) -> list[Candidate]:
    going = [one for one in tree if not one.ended]
    return sorted(going, key=lambda one: one.rank, reverse=True)[:number]


def _cut(rollout: Rollout, room: int) -> Rollout:
    if len(rollout.ids) <= room:
        return rollout
    return Rollout(rollout.ids[:room], rollout.log_probabilities[:room], "length")


def endings(found: Iterable[Found]) -> Counter[str]:
    """How the solutions ended: by "stop" or by "length"."""
    return Counter(one.ended for item in found for one in item.candidates)
