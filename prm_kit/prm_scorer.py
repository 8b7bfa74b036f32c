"""The PRM as a step scorer: shared prefixes are computed once, and answers come in the order asked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from prm_kit.batching import micro_batches
from prm_kit.encode import Encoded, Overlong
from prm_kit.errors import InputError, UsageError
from prm_kit.model import Prm
from prm_kit.pack import FAMILIES, prefix_groups, prefix_tree, prefix_tree_attention
from prm_kit.readout import step_rewards
from prm_kit.records import Solution
from prm_kit.score import Probabilities, StepScores, check_scores

Progress = Callable[[str, int, int | None, str], None]

_SLICE = 4096  # solutions encoded at a time: bounds the memory of their token ids


class _Read(NamedTuple):
    """What was read at one step: probabilities, or a number without bounds."""

    probabilities: Probabilities | None
    unbounded: float | None
    uncertainty: float | None


class PrmScorer:
    """Scores steps with a PRM.

    Attributes:
        prm: The model.
        name: What reports call it.

    Args:
        prm: The model.
        name: What reports call it.
        token_budget: Most distinct tokens in one forward; None: 1,024 on the CPU, where larger rows fall out of
            the cache, 16,384 elsewhere.
        too_long: What to do with a solution beyond the card's `max_tokens`: "window" or "refuse".
        share_prefixes: Whether common prefixes are computed once; None: where the model family allows it.
        progress: Called as progress("score", steps done, steps in all, "").

    Raises:
        UsageError: `share_prefixes` is True where that would not give the same scores.
    """

    def __init__(
        self,
        prm: Prm,
        *,
        name: str = "prm",
        token_budget: int | None = None,
        too_long: Overlong = "window",
        share_prefixes: bool | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.prm = prm
        self.name = name
        self._budget = token_budget or (1_024 if prm.device.type == "cpu" else 16_384)
        self._too_long = too_long
        known = prm.model.config.model_type in FAMILIES and prm.can_share_prefixes
        if share_prefixes and not known:
            raise UsageError(f"share_prefixes: not known for {prm.model.config.model_type} as a PRM {prm.card.kind}")
        self._share = known if share_prefixes is None else share_prefixes
        self._progress = progress

    def score(self, solutions: Sequence[Solution]) -> list[StepScores]:
        """Score every step of every solution.

        Raises:
            TooLongError: A solution, or with windows one step of it, does not fit.
            InputError: A score is not a number, or one sequence alone exceeds the memory; the solution is named.
        """
        found: list[list[_Read | None]] = [[None] * len(solution.spans) for solution in solutions]
        done, total = 0, sum(map(len, found))
        model = self.prm.model
        training = model.training
        model.train(False)
        try:
            with torch.inference_mode():
                for reads in self._reads(solutions):
                    for solution, step, read in reads:
                        found[solution][step] = read
                    done += len(reads)
                    if self._progress:
                        self._progress("score", done, total, "")
        finally:
            model.train(training)
        if done != total:
            raise AssertionError(f"{done} of {total} steps were read")
        scores = [self._scores([read for read in steps if read is not None]) for steps in found]
        check_scores(solutions, scores)
        return scores

    def _scores(self, steps: list[_Read]) -> StepScores:
        """Scores of one solution."""
        card, readout = self.prm.card, self.prm.readout
        uncertainty = tuple(read.uncertainty for read in steps) if readout.uncertainty else None
        values = [read.unbounded for read in steps if read.unbounded is not None]
        unbounded = None if readout.log_probabilities else tuple(step_rewards(values, card.step_score or "cumulative"))
        return StepScores(tuple(read.probabilities for read in steps), unbounded, uncertainty)

    def _reads(self, solutions: Sequence[Solution]) -> Iterator[list[tuple[int, int, _Read]]]:
        """Solution, step and what is read there, one list a forward."""
        order = sorted(range(len(solutions)), key=lambda index: solutions[index].problem)
        for start in range(0, len(order), _SLICE):
            part = order[start : start + _SLICE]
            asked = [solutions[index] for index in part]
            encoded = self.prm.encoder.encode(asked, self.prm.card.max_tokens, self._too_long)
            encoded = [one for one in encoded if one.read_positions]
            budget = self._budget
            for members in self._batches(encoded):
                logits_NK = self._logits(members, encoded, asked, budget)
                where = [(part[encoded[member].solution], step) for member in members for step in encoded[member].steps]
                if not logits_NK.isfinite().all():
                    solution, step = where[int(logits_NK.isfinite().all(dim=1).logical_not().nonzero()[0])]
                    raise InputError(f"solution {solutions[solution].id}, step {step}: the score is not a number")
                yield [(*place, read) for place, read in zip(where, self._read(logits_NK), strict=True)]

    def _read(self, logits_NK: Tensor) -> list[_Read]:
        readout = self.prm.readout
        if readout.log_probabilities is None:
            return [_Read(None, value, None) for value in logits_NK[:, 0].tolist()]
        tempered_N3 = readout.log_probabilities(logits_NK) / self.prm.card.temperature
        rows = torch.softmax(tempered_N3, dim=-1).tolist()
        unsure = readout.uncertainty(logits_NK).tolist() if readout.uncertainty else [None] * len(rows)
        return [_Read((p[0], p[1], p[2]), None, u) for p, u in zip(rows, unsure, strict=True)]

    def _batches(self, encoded: Sequence[Encoded]) -> Iterable[list[int]]:
        if self._share:
            return prefix_groups([one.ids for one in encoded], self._budget)
        return micro_batches(range(len(encoded)), [len(one.ids) for one in encoded], self._budget)

    def _logits(self, members: list[int], encoded: Sequence[Encoded], asked: Sequence[Solution], budget: int) -> Tensor:
        """Outputs [N, K] at the read positions, member by member.

        What does not fit into memory goes in halves, and what comes later is cut to half the budget of this.
        """
        forward = self._tree_logits if self._share else self._padded_logits
        try:
            return forward([encoded[member] for member in members])
        except torch.OutOfMemoryError:
            pass
        torch.cuda.empty_cache()
        if len(members) == 1:
            one = encoded[members[0]]
            raise InputError(f"solution {asked[one.solution].id}: no memory for its {len(one.ids)} tokens")
        half, budget = len(members) // 2, max(1, budget // 2)
        if budget < self._budget:
            self._budget = budget
            warnings.warn(
                f"no memory for {len(members)} sequences at once: from here on the token budget is {budget}, which "
                "changes speed, not the scores",
                RuntimeWarning,
                stacklevel=2,
            )
        return torch.cat([self._logits(some, encoded, asked, budget) for some in (members[:half], members[half:])])

    def _tree_logits(self, encoded: Sequence[Encoded]) -> Tensor:
        tree = prefix_tree([one.ids for one in encoded], self.prm.device)
        reads = [
            column[position]
            for one, column in zip(encoded, tree.columns, strict=True)
            for position in one.read_positions
        ]
        position_N = torch.tensor(reads, device=self.prm.device)
        with prefix_tree_attention(self.prm.model):
            return self.prm.read_logits(
                tree.ids[None],
                None,
                torch.zeros_like(position_N),
                position_N,
                tree.position_ids[None],
                prefix_tree=tree,
            )

    def _padded_logits(self, encoded: Sequence[Encoded]) -> Tensor:
        longest = max(len(one.ids) for one in encoded)
        padding = self.prm.model.config.pad_token_id or 0  # masked, whatever it is
        ids_BT = torch.tensor([one.ids + [padding] * (longest - len(one.ids)) for one in encoded])
        mask_BT = torch.tensor([[1] * len(one.ids) + [0] * (longest - len(one.ids)) for one in encoded])
        reads = [(row, position) for row, one in enumerate(encoded) for position in one.read_positions]
        row_N, position_N = torch.tensor(reads).unbind(1)
        device = self.prm.device
        start_B = torch.tensor([one.prompt_length for one in encoded], device=device)
        return self.prm.read_logits(
            ids_BT.to(device), mask_BT.to(device), row_N.to(device), position_N.to(device), start_B=start_B
        )
