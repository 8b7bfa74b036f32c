"""The first error by binary search over the steps (OmegaPRM, arXiv 2406.06592, section 3.2).

A policy can still reach the answer from every prefix before the first error and no longer from those that hold it, so
the first error is found with rollouts of about log2(steps) prefixes instead of all. Steps before it are +1, it is -1,
and nothing is said of what follows. The prefixes of all solutions of a problem are the states of one tree: the rollouts
of a state are sampled once, however many solutions pass through it.

A solution whose final answer is right has no error to be found: all its steps are +1, by its own answer alone. One of
a problem that the policy never solves gets no labels. A state's rollouts are noisy: a state from which the answer is
reached rarely can look like one from which it never is, and the error is then placed too early.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from math import ceil, log2

from labeling.continuations import Continuations, Prefix, Tally
from labeling.omega_tree import MOST_PROBES, Tree
from labeling.rollout_settings import RolloutSettings
from labeling.rollouts import NEVER_SOLVED, OWN_ANSWER, labelled_step, looked_at, own_outcome
from prm_kit.records import Annotation, Labelled, Rater, Solution, StepLabel, step_hash

Search = Generator[int, bool | None, tuple[int, bool]]
"""Asks for the prefix of so many steps, is told whether the answer can be reached from it, and returns how many steps
are right at least, and whether the one after them is wrong."""


def first_error(steps: int, own: bool | None, answered: bool, reached: int | None = None) -> Search:
    """Search one solution.

    Args:
        steps: How many it has.
        own: Whether its own final answer is right.
        answered: Whether it states a final answer; if not, its last prefix is continued like any other.
        reached: A number of steps from which the answer is known to be reached; None: not even from the problem.
    """
    right = own if answered else (yield steps)
    if right is None:
        return 0, False
    if right:
        return steps, False
    if reached is None and not (yield 0):
        return 0, False
    low, high = reached or 0, steps  # the answer can be reached after `low` steps, and not after `high`
    while high - low > 1:
        middle = (low + high) // 2
        reaches = yield middle
        if reaches is None:
            return low, False
        low, high = (middle, high) if reaches else (low, middle)
    return low, True


class OmegaLabeler:
    """Labels steps up to the first error; implements `labeling.labeler.Labeler`.

    With `settings.explore`, wrong rollouts that the search came by are searched too (`labeling.omega_tree`).

    Args:
        continuations: The policy's.
        rater: Signs the annotations.
    """

    def __init__(self, continuations: Continuations, rater: Rater) -> None:
        self.rater = rater
        self._continuations = continuations
        self._explored: list[Labelled] = []

    @staticmethod
    def most_rollouts(solution: Solution, settings: RolloutSettings) -> int:
        """Rollouts that labelling a solution takes at most."""
        probes = 2 + ceil(log2(max(1, len(solution.spans))))
        return (probes + settings.explore * MOST_PROBES) * settings.samples

    def label(self, solutions: Sequence[Solution]) -> Iterator[Annotation]:
        """Label every solution; their searches go on side by side, one engine call for all that ask at once."""
        continuations = self._continuations
        if continuations.settings.explore:
            continuations.forget()  # what is explored shall depend on these solutions alone
        searched = [
            Searched(solution, prefixes, own_outcome(solution, continuations))
            for solution, prefixes in zip(solutions, continuations.prefixes(solutions), strict=True)
        ]
        self._search(searched)
        self._explore(searched)
        for one in searched:
            yield self._annotate(one)

    def explored(self) -> list[Labelled]:
        """Hand over the solutions that were explored and labelled beside those given, each once."""
        found, self._explored = self._explored, []
        return found

    def _search(self, searched: Sequence[Searched]) -> None:
        while asking := [one for one in searched if not one.done]:
            tallies = self._continuations.tally([one.prefixes[one.asks] for one in asking])
            for one, tally in zip(asking, tallies, strict=True):
                one.tell(tally, None if tally is None else self._continuations.reaches(tally))

    def _explore(self, searched: Sequence[Searched]) -> None:
        """Search, problem by problem side by side, the wrong rollouts that promise most."""
        continuations = self._continuations
        if not continuations.settings.explore:
            return
        trees: dict[tuple[str, str | None], Tree] = {}
        for one in searched:
            tree = trees.setdefault(
                (one.solution.problem, one.solution.reference_answer), Tree(continuations, self.rater.name)
            )
            tree.add_states(one.prefixes, one.tallies)
            tree.seen.add(one.solution.completion)
        for _ in range(continuations.settings.explore):
            picked = [(tree, found) for tree in trees.values() if (found := tree.pick()) is not None]
            prefixes = continuations.prefixes([solution for _, (solution, _) in picked])
            news = [
                Searched(solution, lists, False, reached)
                for (_, (solution, reached)), lists in zip(picked, prefixes, strict=True)
            ]
            self._search(news)
            for (tree, _), one in zip(picked, news, strict=True):
                tree.add_states(one.prefixes, one.tallies)
                self._explored.append(Labelled(one.solution, self._annotate(one)))

    def _annotate(self, one: Searched) -> Annotation:
        labels = []
        for step, text in enumerate(one.solution.steps[: one.right + one.wrong]):
            reaches = step < one.right
            tally = one.tallies.get(step + 1)
            if tally is None and step + 1 == len(one.solution.spans):
                tally = OWN_ANSWER
            if tally is None:
                labels.append(StepLabel(step, 1 if reaches else -1, step_hash(text)))
            else:
                labels.append(labelled_step(step, step_hash(text), reaches, tally, self._continuations.settings))
        never = one.tallies.get(0)
        flags = (NEVER_SOLVED,) if never is not None and self._continuations.reaches(never) is False else ()
        meta = looked_at(one.solution, [one.tallies[steps] for steps in sorted(one.tallies)])
        return Annotation(one.solution.id, self.rater, tuple(labels), flags=flags, meta=meta)


class Searched:
    """The search in one solution.

    Attributes:
        solution: The solution.
        prefixes: Its prefixes of 0, 1, ... all steps.
        tallies: By number of steps, the prefixes asked for so far.
        asks: The number of steps of the prefix asked for next.
        done: Whether nothing is asked any more.
        right: How many steps are right at least.
        wrong: Whether the one after them is wrong.
    """

    def __init__(
        self, solution: Solution, prefixes: Sequence[Prefix], own: bool | None, reached: int | None = None
    ) -> None:
        self.solution = solution
        self.prefixes = prefixes
        self.tallies: dict[int, Tally | None] = {}
        self.asks = self.right = 0
        self.wrong = self.done = False
        self._search = first_error(
            len(solution.spans), own, reached is not None or solution.final_answer is not None, reached
        )
        self._go_on(lambda: next(self._search))

    def tell(self, tally: Tally | None, reaches: bool | None) -> None:
        """Answer what it asked."""
        self.tallies[self.asks] = tally
        self._go_on(lambda: self._search.send(reaches))

    def _go_on(self, ask: Callable[[], int]) -> None:
        try:
            self.asks = ask()
        except StopIteration as end:
            self.done = True
            self.right, self.wrong = end.value
