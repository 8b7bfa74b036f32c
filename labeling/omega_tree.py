"""Which wrong rollout to search next: the tree of OmegaPRM (arXiv 2406.06592, sections 3.1 and 3.3).

A state is a prefix with its rollouts; of a problem's states, those from which the answer is reached sometimes, but not
always, hold rollouts that are worth a search. The next one is the rollout r of a state s with the highest Q + U:

    Q(s, r) = ALPHA ** (1 - MC(s)) * BETA ** (length of r / longest rollout)   nearly right, and short
    U(s)    = C * sqrt(sum of N over the states) / (1 + N(s))                  not visited often

MC(s) is the share of the rollouts of s that reach the answer and N(s) how often s was picked. Each completion is picked
once: a rollout that was searched is gone, and so is one that says the same. Among equals the first found counts, so the
same states give the same picks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from labeling.continuations import Continuations, Prefix, Tally
from prm_kit.records import Solution

ALPHA, BETA, C = 0.5, 0.9, 0.125
"""The paper's constants."""

MOST_PROBES = 8
"""Most prefixes that the search of one picked rollout continues; longer solutions are not picked."""


@dataclass
class State:
    """A prefix with its rollouts.

    Attributes:
        prefix: The prefix.
        value: MC(s).
        waiting: The wrong completions that were sampled from it and not picked yet, with their lengths in tokens.
        visits: N(s).
    """

    prefix: Prefix
    value: float
    waiting: list[tuple[Solution, int]]
    visits: int = 0


class Tree:
    """The states of one problem.

    Args:
        continuations: Knows the rollouts of each prefix.
        generator: What the solutions that rollouts make name as their generator.

    Attributes:
        seen: Completions that are not picked any more.
    """

    def __init__(self, continuations: Continuations, generator: str) -> None:
        self.seen: set[str] = set()
        self._continuations = continuations
        self._generator = generator
        self._states: dict[bytes, State] = {}

    def add_states(self, prefixes: Sequence[Prefix], tallies: Mapping[int, Tally | None]) -> None:
        """Add the prefixes of a solution that were continued; one that is known already stays as it is.

        Args:
            prefixes: The solution's prefixes of 0, 1, ... all steps.
            tallies: By number of steps, what became of the rollouts.
        """
        for steps in sorted(tallies):
            tally, prefix = tallies[steps], prefixes[steps]
            if tally is None or not self._continuations.reaches(tally) or prefix.key in self._states:
                continue
            count = tally.count(self._continuations.settings)
            waiting = []
            for rollout in self._continuations.missed(prefix):
                solution = self._continuations.completed(prefix, rollout, self._generator)
                if solution is not None and len(solution.spans) - steps <= 2**MOST_PROBES:
                    waiting.append((solution, len(rollout.ids)))
            self._states[prefix.key] = State(prefix, tally.reached / count, waiting)

    def pick(self) -> tuple[Solution, int] | None:
        """The solution to search next, and the number of its steps from which the answer is known to be reached.

        None: there is none left.
        """
        visits = sum(state.visits for state in self._states.values())
        best: tuple[float, State, Solution] | None = None
        for state in self._states.values():
            state.waiting = [(solution, n) for solution, n in state.waiting if solution.completion not in self.seen]
            bonus = C * sqrt(visits) / (1 + state.visits)
            for solution, length in state.waiting:
                score = self._quality(state.value, length) + bonus
                if best is None or score > best[0]:
                    best = (score, state, solution)
        if best is None:
            return None
        _, state, solution = best
        state.visits += 1
        self.seen.add(solution.completion)
        return solution, state.prefix.steps

    def _quality(self, value: float, length: int) -> float:
        return float(ALPHA ** (1 - value) * BETA ** (length / self._continuations.settings.max_new_tokens))
