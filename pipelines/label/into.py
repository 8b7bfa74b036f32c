"""What every labelling verb does: label what is not labelled yet, and commit batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from prm_kit.ledger import now

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

    Annotations without a time stay so, and the same run writes the same bytes; only where one repeats what an earlier
    version of the rater superseded (back to earlier settings) does it get the time, so that it counts again.

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
    again = ledger.knows(labeler.rater)
    while chunk := list(islice(todo, batch)):
        new = list(labeler.label(chunk))
        more = further()
        found = [*new, *(pair.annotation for pair in more)]
        if again:
            found = [_current(annotation, ledger) for annotation in found]
        appended = ledger.append(found, [*chunk, *(pair.solution for pair in more)])
        made += len(new)
        note = f"{len(done)} were labelled before"
        if appended.known:  # by another run at the same time, or come by twice
            note += f", {appended.known} of the last batch were in the ledger already"
        progress(f"label {labeler.rater.name}", len(done) + made, None, note)
        yield from found[: len(new)]


def _current(annotation: Annotation, ledger: Ledger) -> Annotation:
    """The annotation, with the time if the ledger holds it already and something later by the same rater.

    A ledger stores the same content once, so without a time what came later would stay the current one.
    """
    earlier = ledger.history(annotation.solution_id, annotation.rater)
    superseded = (
        any(one.id == annotation.id for one in earlier[:-1]) and earlier[-1].timeless_id != annotation.timeless_id
    )
    return replace(annotation, time=now()) if superseded and not annotation.time else annotation
