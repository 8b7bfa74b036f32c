"""`prm-kit label queue`: in which order people should label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.output import Json, Out, Output

if TYPE_CHECKING:
    from labeling.label_table import LabelTable
    from labeling.queue import Candidate
    from prm_kit.score import Probabilities
    from prm_kit.view import View

    Members = Sequence[Mapping[str, tuple[Probabilities | None, ...]]]


def queue(
    inputs: Annotated[list[Path], typer.Argument(help="Snapshots or files with the solutions to choose from.")],
    out: Out,
    ledger: Annotated[Path | None, typer.Option(help="Ledger with the labels there are so far.")] = None,
    scores: Annotated[
        list[Path] | None, typer.Option(help="scores.jsonl of `prm-kit score`; several make an ensemble.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="uncertainty, convincing, disagreement; several take turns. Default: what the scores and labels allow."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Lines of the queue.")] = 500,
    random_share: Annotated[float, typer.Option(help="Share drawn at random, for unbiased evaluation.")] = 0.1,
    gold: Annotated[Path | None, typer.Option(help="Ledger, snapshot or file with gold labels to mix in.")] = None,
    gold_rater: Annotated[list[str] | None, typer.Option(help="Whose labels are gold; default: people's.")] = None,
    gold_rate: Annotated[float, typer.Option(help="Share of the lines that are gold questions.")] = 0.05,
    again: Annotated[bool, typer.Option(help="Also solutions that people have labelled: for second opinions.")] = False,
    seed: Annotated[int, typer.Option(help="Another seed, another random share.")] = 0,
    as_json: Json = False,
) -> None:
    """Write OUT/queue.jsonl, what to label next: where the PRM doubts, errs convincingly, or raters disagree."""
    from labeling.queue import plan_queue, read_scores, scores_of_raters, write_queue
    from pipelines.data import snapshots_of
    from pipelines.label.merge import words
    from pipelines.label.quality import gold_labels
    from prm_kit.errors import UsageError
    from prm_kit.run_directory import RunDirectory
    from prm_kit.view import View

    output = Output(as_json)
    run = RunDirectory(out)
    asked = {"inputs": [str(i) for i in inputs], "ledger": str(ledger), "scores": [str(s) for s in scores or ()]}
    shares = {"limit": limit, "random_share": random_share, "gold_rate": gold_rate, "again": again, "seed": seed}
    run.start({"label": "queue", **asked, "by": by, "gold": str(gold), "gold_rater": gold_rater, **shares})
    with output.progress() as progress, run.timed("label queue"):
        snapshots = snapshots_of(inputs, out / "imported", progress)
        table = labels_so_far(View(snapshots, ledger))
        known = gold_labels(table, gold, gold_rater, out / "imported", progress)
        members: Members = [read_scores(path) for path in scores or ()]
        if not members and table is not None:
            members = scores_of_raters(table.of(["prm"]))
        candidates = list(candidates_of(View(snapshots), table, members))
        golden = gold_order(known, labelled_by_people(table), seed)
        labelled = sum(candidate.labelled for candidate in candidates)
        if again:
            candidates = [candidate._replace(labelled=False) for candidate in candidates]
        elif labelled == len(candidates):
            raise UsageError(f"people have labelled all {labelled} solutions; --again queues them for a second opinion")
        orders = words(by) or possible_orders(candidates)
        if not orders and random_share < 1:
            raise UsageError("nothing to order by: give --scores, labels of two raters, or --random-share 1")
        plan = plan_queue(candidates, orders, limit, random_share, golden, gold_rate if golden else 0.0, seed)
    write_queue(out / "queue.jsonl", plan.queue)
    run.finish(
        {
            "solutions": len(candidates),
            "labelled_by_people": labelled,
            "scored": sum(bool(candidate.members) for candidate in candidates),
            "orders": orders,
            "queue": "queue.jsonl",
            "lines": len(plan.queue),
            "reasons": dict(sorted(Counter(row.reason for row in plan.queue).items())),
            "random_sample": {"seed": seed, "cutoff": plan.cutoff, "labelled_before": plan.sampled_before},
            "gold": len(golden),
        }
    )
    output.summary(out / "summary.json")


def labels_so_far(view: View) -> LabelTable | None:
    """The labels of a view, None where there are none."""
    from labeling.label_table import label_table

    return None if view.frames().annotations.head(1).collect().is_empty() else label_table(view)


def candidates_of(view: View, table: LabelTable | None, members: Members) -> Iterator[Candidate]:
    """Every solution of a view with what the table and the members of the ensemble know of it."""
    from labeling.queue import Candidate, disagreements

    people = labelled_by_people(table)
    apart = {} if table is None else disagreements(table.of(without=["merged"]))
    for id_, is_correct in view.solutions().select("id", "is_correct").collect().iter_rows():
        said = [member[id_] for member in members if id_ in member]
        yield Candidate(id_, id_ in people, is_correct, said, apart.get(id_))


def labelled_by_people(table: LabelTable | None) -> set[str]:
    """Ids of the solutions of which people have judged a step, whether they are among those to choose from or not."""
    if table is None:
        return set()
    by_people = table.of(["human"]).labels.select("solution").unique()
    return set(table.solutions.join(by_people, on="solution")["id"])


def gold_order(known: LabelTable | None, labelled: Set[str], seed: int) -> list[str]:
    """Ids of the solutions with gold labels: those that people have not labelled yet first, then at random."""
    from labeling.queue import draw

    if known is None:
        return []
    judged = known.labels.select("solution").unique()
    ids = known.solutions.join(judged, on="solution")["id"].to_list()
    return sorted(ids, key=lambda id_: (id_ in labelled, draw(id_, seed)))


def possible_orders(candidates: Sequence[Candidate]) -> list[str]:
    """The orders for which some solution that nobody has labelled has a score."""
    from labeling.queue import ORDERS

    left = [candidate for candidate in candidates if not candidate.labelled]
    return [name for name, (_, score) in ORDERS.items() if any(score(candidate) is not None for candidate in left)]
