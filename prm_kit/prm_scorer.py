"""The PRM as a step scorer: shared prefixes are computed once, and answers come in the order asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from prm_kit.encode import Encoded, Overlong
from prm_kit.errors import InputError
from prm_kit.model import Prm
from prm_kit.pack import FAMILIES, PrefixTree, prefix_tree_attention, prefix_trees
from prm_kit.records import Solution
from prm_kit.score import Probabilities, StepScores, check_scores

_SLICE = 4096  # solutions encoded at a time: bounds the memory of their token ids


class PrmScorer:
    """Scores steps with a PRM.

    Attributes:
        prm: The model.
        name: What reports call it.

    Args:
        prm: The model.
        name: What reports call it.
        token_budget: Most distinct tokens in one forward; None: 2,048 on the CPU, 16,384 elsewhere.
        too_long: What to do with a solution beyond the card's `max_tokens`: "window" or "refuse".
        share_prefixes: Whether common prefixes are computed once; None: where the model family allows it.
        progress: Called with the number of solutions done, after each part of the work.
    """

    def __init__(
        self,
        prm: Prm,
        *,
        name: str = "prm",
        token_budget: int | None = None,
        too_long: Overlong = "window",
        share_prefixes: bool | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.prm = prm
        self.name = name
        self._budget = token_budget or (2_048 if prm.device.type == "cpu" else 16_384)
        self._too_long = too_long
        known = prm.model.config.model_type in FAMILIES
        self._share = known if share_prefixes is None else share_prefixes
        self._progress = progress

    def score(self, solutions: Sequence[Solution]) -> list[StepScores]:
        """Score every step of every solution.

        Raises:
            TooLongError: A solution, or with windows one step of it, does not fit.
            InputError: A score is not a number, or one sequence alone exceeds the memory; the solution is named.
        """
        found: list[list[Probabilities | None]] = [[None] * len(solution.spans) for solution in solutions]
        order = sorted(range(len(solutions)), key=lambda index: solutions[index].problem)
        model = self.prm.model
        training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                for start in range(0, len(order), _SLICE):
                    part = order[start : start + _SLICE]
                    self._score_part(solutions, part, found)
        finally:
            model.train(training)
        scores = [StepScores(tuple(steps)) for steps in found]
        _check_all_read(solutions, scores)
        check_scores(solutions, scores)
        return scores

    def _score_part(
        self, solutions: Sequence[Solution], part: Sequence[int], found: list[list[Probabilities | None]]
    ) -> None:
        asked = [solutions[index] for index in part]
        encoded = self.prm.encoder.encode(asked, self.prm.card.max_tokens, self._too_long)
        encoded = [one for one in encoded if one.read_positions]
        done = 0
        for members, logits_NK in self._forwards(asked, encoded):
            rows = torch.softmax(logits_NK / self.prm.card.temperature, dim=-1).tolist()
            at = 0
            for member in members:
                one = encoded[member]
                for step in one.steps:
                    low, middle, high = rows[at]
                    found[part[one.solution]][step] = (low, middle, high)
                    at += 1
            done += len(members)
            if self._progress:
                self._progress(len(members))
