"""What every labelling verb does: label what is not labelled yet, and commit batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labeling.labeler import Labeler
    from prm_kit.ledger import Ledger
    from prm_kit.records import Annotation, Labelled, Solution

BATCH = 500
"""Solutions per transaction: what a killed run labels again, at most."""


def label_into(
    labeler: Labeler,
    solutions: Iterable[Solution],
    ledger: Ledger,
    done: Set[str],
    progress: Callable[[str, int, int | None, str], None],
    batch: int = BATCH,
    further: Callable[[], Sequence[Labelled]] = list,
) -> Iterator[Annotation]:
    """Let a labeller label every solution that is not done.

    Args:
        labeler: The labeller.
        solutions: What there is; read once.
        ledger: Where the annotations go.
        done: Ids of solutions to pass over, from `Ledger.labelled_by`.
        progress: Called as progress(stage, done, total, note).
        batch: Solutions per transaction.
        further: Asked after each batch for solutions that the labeller came by and labelled too; they are stored in
            the same transaction.

    Yields:
        The new annotations, each after its batch was committed.
    """
    todo = (solution for solution in solutions if solution.id not in done)
    made = 0
    while chunk := list(islice(todo, batch)):
        new = list(labeler.label(chunk))
        more = further()
        ledger.append([*new, *(pair.annotation for pair in more)], [*chunk, *(pair.solution for pair in more)])
        made += len(new)
        progress(f"label {labeler.rater.name}", len(done) + made, None, f"{len(done)} were labelled before")
        yield from new
