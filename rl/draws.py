"""Which problems an update gets: every epoch an order of its own, without what the algorithm's filter left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from rl.filters import ProblemFilter


class Draws:
    """Draws problems for one update after another.

    Args:
        n: How many problems there are.
        seed: Of the orders.
        problem_filter: Which problems stay for the next epoch; None: all.
        memory: Where it stands, as JSON data that the caller saves and gives back: epoch, position, left_out, outcomes.
    """

    def __init__(self, n: int, seed: int, problem_filter: ProblemFilter | None, memory: dict[str, Any]) -> None:
        self.n, self.seed, self.problem_filter, self.memory = n, seed, problem_filter, memory
        for key, start in {"epoch": 0, "position": 0, "left_out": [], "outcomes": {}}.items():
            memory.setdefault(key, start)

    def next(self, n: int) -> list[int]:
        """Numbers of the next `n` problems, on into the next epoch where this one ends."""
        found: list[int] = []
        while len(found) < n:
            if self.memory["position"] >= self.n:  # only now: what became of its last problems has been told
                self._end_epoch()
            order = list(range(self.n))
            Random(f"{self.seed} {self.memory['epoch']}").shuffle(order)  # noqa: S311
            left_out = set(self.memory["left_out"])
            start = self.memory["position"]
            for place in range(start, self.n):
                if len(found) == n:
                    break
                self.memory["position"] = place + 1
                if order[place] not in left_out:
                    found.append(order[place])
        return found

    def tell(self, correct_of: Mapping[int, Sequence[float]]) -> None:
        """What became of drawn problems: 1 or 0 of each rollout with a verdict."""
        for problem, correct in correct_of.items():
            self.memory["outcomes"].setdefault(str(problem), []).extend(correct)

    def _end_epoch(self) -> None:
        outcomes = {int(problem): said for problem, said in self.memory["outcomes"].items() if said}
        left_out: set[int] = set()
        if self.problem_filter is not None:
            left_out = set(outcomes) - self.problem_filter(outcomes)
        if len(left_out) >= self.n:  # a policy that solves everything goes on with everything
            left_out = set()
        self.memory.update(epoch=self.memory["epoch"] + 1, position=0, left_out=sorted(left_out), outcomes={})
