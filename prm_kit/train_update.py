"""One update's loss and gradient, by one process or several, and what is done when memory runs out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from prm_kit.distributed import World, deal
from prm_kit.errors import PrmKitError
from prm_kit.examples import Example
from prm_kit.sharding import Shards, whole
from prm_kit.train_forward import Forward

T = TypeVar("T")


class Gradient(NamedTuple):
    """What was computed.

    Attributes:
        loss: Of the whole update, over all processes.
        norm: Length of the whole gradient before it was cut to its limit.
        computed_tokens: That went through the model.
        suspects: Where loss or norm are not finite: the solutions whose loss is to blame, all if it is the norm.
    """

    loss: float
    norm: float
    computed_tokens: int
    suspects: list[str]

    @property
    def is_finite(self) -> bool:
        """Whether an update can be made of it."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


class _Short(NamedTuple):
    """A process without memory for what it tried."""

    rank: int
    sequences: int
    tokens: int
    name: str


@dataclass
class Work:
    """How the work of one update, or of an evaluation, is divided: among the processes, then into micro-batches.

    A loss that is divided by a total of the whole update adds up to the same, whoever computes which part of it.

    Several processes fetch all weights first, then each goes through its micro-batches without the others, and when all
    have got through their gradients are summed: one that runs out of memory leaves nobody waiting, and all start over
    with less. Where weights are given up after every layer (`reshard`) they go layer by layer together instead; one
    that has fewer micro-batches takes part with passes of no weight, and memory that runs out ends the run.

    Attributes:
        forward: How examples go through the model.
        shards: Of the model.
        world: The processes.
    """

    forward: Forward
    shards: Shards
    world: World
    _trying: Sequence[Example] = ()

    def gradient(
        self,
        units: Sequence[Sequence[Example]],
        loss_of: Callable[[Sequence[Example]], Tensor],
        optimizer: torch.optim.Optimizer,
        max_norm: float | None,
        check: Callable[[], None],
    ) -> Gradient:
        """Leave the gradient of an update in the parameters, cut to `max_norm`.

        Args:
            units: The examples of the update; those of one unit go to one process.
            loss_of: The part of the update's loss that some examples make up.
            optimizer: Of the parameters.
            max_norm: Longest gradient; None: no limit.
            check: Called before every micro-batch; may raise.

        Raises:
            PrmKitError: One sequence alone does not fit into memory, or nothing smaller can be tried.
        """

        def go_through(batch: Sequence[Example], last: bool) -> Tensor:
            self.shards.expect(last)
            with self.forward.attention():
                self._trying = batch
                loss = loss_of(batch) if batch else self._nothing()
                (loss * self.shards.gradient_share).backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        def compute() -> tuple[list[float], list[list[Example]], int]:
            optimizer.zero_grad(set_to_none=True)
            mine, turns, tokens = self._share(units)
            if self._each_alone:
                self.shards.hold()
                turns = len(mine)
            losses = []
            for turn in range(turns):
                check()
                last = turn == turns - 1 and not self._each_alone
                losses.append(go_through(mine[turn] if turn < len(mine) else [], last))
            return torch.stack(losses).tolist() if losses else [], mine, tokens

        def sum_gradients() -> None:
            if self._each_alone:
                go_through([], last=True)

        # Gradients of an attempt that failed are summed too, and thrown away with the next attempt's `zero_grad`.
        losses, mine, tokens = self._fitting(compute, after=sum_gradients)
        sum_gradients()
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        norm = float(whole(torch.nn.utils.clip_grad_norm_(trained, max_norm or math.inf, foreach=True)))
        finite = math.isfinite(norm) and math.isfinite(sum(losses))
        bad = [batch for batch, loss in zip(mine, losses, strict=False) if not math.isfinite(loss)]
        told = self.world.gather((sum(losses), _solutions(bad), [] if finite else _solutions(mine)))
        suspects = [name for _, names, _ in told for name in names] or [name for *_, names in told for name in names]
        return Gradient(sum(loss for loss, _, _ in told), norm, tokens, suspects)

    def evaluate(
        self, examples: Sequence[Example], measure: Callable[[Sequence[Example]], None], check: Callable[[], None]
    ) -> None:
        """Hand this process's part of the examples to `measure`, a micro-batch at a time, without gradients.

        What was measured before memory ran out is not measured again.
        """
        left, turns, _ = self._share([[example] for example in examples])

        def compute() -> None:
            nonlocal left
            if self._each_alone:
                self.shards.hold()
            left = self.forward.batches([example for batch in left for example in batch])
            in_step = self.world.size > 1 and not self._each_alone
            for _ in range(turns if in_step else len(left)):
                check()
                if left:
                    self._trying = left[0]
                    measure(left[0])
                    del left[0]
                else:
                    self._nothing()

        with torch.no_grad(), self.forward.attention():
            self._fitting(compute)
        self.shards.release()

    @property
    def _each_alone(self) -> bool:
        """Several processes, of which none waits for another while it computes."""
        return self.world.size > 1 and self.shards.works_alone

    def _share(self, units: Sequence[Sequence[Example]]) -> tuple[list[list[Example]], int, int]:
        """This process's micro-batches, the most that any has, and the tokens that all of them compute."""
        hands = deal([sum(len(example.ids) for example in unit) for unit in units], self.world.size)
        batches = [self.forward.batches([example for unit in hand for example in units[unit]]) for hand in hands]
        tokens = sum(self.forward.computed_tokens(batch) for hand in batches for batch in hand)
        return batches[self.world.rank], max(map(len, batches)), tokens

    def _nothing(self) -> Tensor:
        """A pass of two tokens and no weight: what a process does where others still have work."""
        ids, one = np.zeros(2, dtype=np.int32), np.ones(1, dtype=np.int32)
        logits_NK, _ = self.forward.logits([Example("", ids, one, np.zeros((1, 3), dtype=np.float32), 1)])
        return logits_NK.sum() * 0.0

    def _fitting(self, compute: Callable[[], T], after: Callable[[], None] | None = None) -> T:
        """Compute; once more with smaller micro-batches, all processes together, as often as one's memory runs out.

        Args:
            compute: The work.
            after: What is done after an attempt that failed.
        """
        while True:
            short = None
            try:
                found = compute()
            except torch.OutOfMemoryError:
                tokens = self.forward.computed_tokens(self._trying) if self._trying else 0
                names = [example.solution_id for example in self._trying]
                short = _Short(self.world.rank, len(names), tokens, names[0] if names else "nothing")
            # what the error held on to is free only behind that block
            if self.world.size > 1 and not self._each_alone:
                if short is None:
                    return found
                raise PrmKitError(self._cannot_try_less(short))
            told = [one for one in self.world.gather(short) if one is not None]
            if not told:
                return found
            self._ask_for_less(told)
            self.shards.start_over()
            if after is not None:
                after()

    def _cannot_try_less(self, short: _Short) -> str:
        return (
            f"process {short.rank} has no memory for a micro-batch of {short.tokens} tokens, and the others wait for "
            f"it in the middle of theirs: lower micro_batch_tokens (now {self.forward.token_budget}), or set "
            "gradient_checkpointing: true, or reshard: false; the run goes on from its last state"
        )

    def _ask_for_less(self, told: Sequence[_Short]) -> None:
        """Halve what goes through at once.

        Args:
            told: Of every process that is short of memory.

        Raises:
            PrmKitError: That is no way out.
        """
        worst = min(told, key=lambda one: (one.sequences > 1, one.tokens))
        if worst.sequences <= 1:
            name = f"solution {worst.name} alone" if worst.sequences else worst.name
            raise PrmKitError(
                f"no memory for {name} ({worst.tokens} tokens): lower max_tokens (with too_long: window), or set "
                "gradient_checkpointing: true, train_layers or lora"
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.forward = replace(self.forward, token_budget=worst.tokens // 2)
        if self.world.is_first:
            warnings.warn(
                f"no memory for {worst.sequences} sequences of {worst.tokens} tokens at once: from here on "
                f"micro_batch_tokens is {worst.tokens // 2}, which changes speed, not the result",
                RuntimeWarning,
                stacklevel=2,
            )


@contextmanager
def memory_named(
    mend: str = "no memory for the weights, their gradients and the optimiser's state: set lora or train_layers, or "
    "train with more processes",
) -> Iterator[None]:
    """Say what to do where memory runs out: as it stands, outside of micro-batches.

    Args:
        mend: What for, and what to do.

    Raises:
        PrmKitError: It did.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PrmKitError(f"{mend}. torch says: {str(error).splitlines()[0]}") from None


def _solutions(batches: Sequence[Sequence[Example]]) -> list[str]:
    return list(dict.fromkeys(example.solution_id for batch in batches for example in batch))
