"""What of an optimiser step goes through a model at once: rollouts and pairs, dealt among the processes, then cut.

Every process gets as many portions as the others, empty ones at the end, so that all of them pass through a model that
is in slices equally often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from prm_kit.distributed import World, deal
from rl.pairs import Pair

T = TypeVar("T")


def portions(
    items: Sequence[T], tokens: Sequence[int], world: World, cut: Callable[[list[T]], list[list[T]]]
) -> list[list[T]]:
    """This process's part of an optimiser step.

    Args:
        items: What all processes compute together.
        tokens: Of every item.
        world: The processes; each gets about as many tokens as the others.
        cut: Cuts a process's items into what fits into memory.
    """
    hands = [cut([items[index] for index in hand]) for hand in deal(tokens, world.size)]
    mine = hands[world.rank]
    return mine + [[] for _ in range(max(map(len, hands)) - len(mine))]


def pair_batches(pairs: Sequence[Pair], lengths: Sequence[int], budget: int) -> list[list[Pair]]:
    """Cut pairs, in their order, into batches whose rollouts x longest rollout stays within the budget.

    Args:
        pairs: Of rollouts, as indices into `lengths`.
        lengths: Tokens of every rollout with its prompt.
        budget: Padded tokens; a pair that is longer goes alone.
    """
    found: list[list[Pair]] = []
    members: set[int] = set()
    for pair in pairs:
        members |= {pair.better, pair.worse}
        if found and max(lengths[member] for member in members) * len(members) <= budget:
            found[-1].append(pair)
        else:
            found.append([pair])
            members = {pair.better, pair.worse}
    return found
