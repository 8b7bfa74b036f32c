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


@dataclass
class Work:
    """How the work of one update, or of an evaluation, is divided: among the processes, then into micro-batches.

    A loss that is divided by a total of the whole update adds up to the same, whoever computes which part of it. Where
    a process has fewer micro-batches than another, or none, it takes part in the exchange with a pass of no weight.

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
            PrmKitError: One sequence alone does not fit into memory, or several processes are short of it.
        """

        def compute() -> tuple[list[float], list[list[Example]], int]:
            optimizer.zero_grad(set_to_none=True)
            mine, turns, tokens = self._share(units)
            losses = []
            for turn in range(turns):
                check()
                self.shards.expect(last=turn == turns - 1)
                with self.forward.attention():
                    self._trying = mine[turn] if turn < len(mine) else []
                    loss = loss_of(self._trying) if self._trying else self._nothing()
                    (loss * self.shards.gradient_share).backward()  # type: ignore[no-untyped-call]
                losses.append(loss.detach())
            return torch.stack(losses).tolist(), mine, tokens

        losses, mine, tokens = self._fitting(compute)
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
            left = self.forward.batches([example for batch in left for example in batch])
            for _ in range(len(left) if self.world.size == 1 else turns):
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

    def _share(self, units: Sequence[Sequence[Example]]) -> tuple[list[list[Example]], int, int]:
        """This process's micro-batches, the most that any has, and the tokens that all of them compute."""
        hands = deal([sum(len(example.ids) for example in unit) for unit in units], self.world.size)
        batches = [self.forward.batches([example for unit in hand for example in units[unit]]) for hand in hands]
        tokens = sum(self.forward.computed_tokens(batch) for hand in batches for batch in hand)
        return batches[self.world.rank], max(map(len, batches)), tokens

    def _nothing(self) -> Tensor:
        zero = np.zeros(1, dtype=np.int32)
        logits_NK, _ = self.forward.logits([Example("", zero, zero, np.zeros((1, 3), dtype=np.float32))])
        return logits_NK.sum() * 0.0

    def _fitting(self, compute: Callable[[], T]) -> T:
        """Compute; once more with smaller micro-batches, as often as memory runs out."""
        while True:
            try:
                return compute()
            except torch.OutOfMemoryError:
                pass  # what the error holds on to is free only behind this block
            self._ask_for_less()

    def _ask_for_less(self) -> None:
        """Halve what goes through at once.

        Raises:
            PrmKitError: That is no way out.
        """
        batch, tokens = self._trying, self.forward.computed_tokens(self._trying) if self._trying else 0
        if self.world.size > 1:
            raise PrmKitError(
                f"process {self.world.rank} has no memory for a micro-batch of {tokens} tokens, and the others cannot "
                f"wait for it to try less: lower micro_batch_tokens (now {self.forward.token_budget}), or set "
                "gradient_checkpointing: true or reshard: true; the run goes on from its last state"
            )
        if len(batch) <= 1:
            name = f"solution {batch[0].solution_id} alone" if batch else "nothing"
            raise PrmKitError(
                f"no memory for {name} ({tokens} tokens): lower max_tokens (with too_long: window), or set "
                "gradient_checkpointing: true, train_layers or lora"
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.forward = replace(self.forward, token_budget=tokens // 2)
        warnings.warn(
            f"no memory for {len(batch)} sequences of {tokens} tokens at once: from here on micro_batch_tokens is "
            f"{tokens // 2}, which changes speed, not the result",
            RuntimeWarning,
            stacklevel=2,
        )


@contextmanager
def memory_named() -> Iterator[None]:
    """Say what to do where memory runs out outside of micro-batches: for weights, gradients or the optimiser's state.

    Raises:
        PrmKitError: It did.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PrmKitError(
            "no memory for the weights, their gradients and the optimiser's state: set lora or train_layers, or train "
            f"with more processes. torch says: {str(error).splitlines()[0]}"
        ) from None


def _solutions(batches: Sequence[Sequence[Example]]) -> list[str]:
    return list(dict.fromkeys(example.solution_id for batch in batches for example in batch))
