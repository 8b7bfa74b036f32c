"""Many annotations to one label a step: priority, majority, Dawid-Skene, and the filter of what two kinds agree on.

A step that the raters leave undecided (a tie, no majority, too little confidence) gets null and a comment with the
votes, never a guess. Every label names the annotations that it came from; `labeling.merged` makes annotations of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import polars as pl

from labeling.dawid_skene import dawid_skene
from labeling.label_table import LabelTable
from prm_kit.errors import UsageError
from prm_kit.files import value_sha256
from prm_kit.records import LABEL_VALUES, Rater, RaterKind
from prm_kit.settings import Settings

VERSION = "2"
"""Goes up whenever a merged label would come out differently."""

ORDER: tuple[RaterKind, ...] = ("human", "construction", "judge", "rule", "rollout", "prm", "import")
"""Whom to believe first, where nobody says otherwise."""

Policy = Literal["priority", "majority", "dawid-skene", "filter"]


class MergeSettings(Settings):
    """How annotations are merged.

    Attributes:
        policy: A name in `POLICIES`.
        kinds: Only raters of these kinds; None: all but merged and simulated ones.
        order: For priority: kinds of raters, the first that judged a step decides, a majority among its raters.
        between: For filter: the two kinds that have to agree on the first error.
        min_confidence: For Dawid-Skene: a class that is less probable is left undecided.
    """

    policy: Policy = "majority"
    kinds: tuple[RaterKind, ...] | None = None
    order: tuple[RaterKind, ...] = ORDER
    between: tuple[RaterKind, RaterKind] = ("rollout", "judge")
    min_confidence: float = 0.5

    @property
    def rater(self) -> Rater:
        """Who signs: another policy is another rater, other settings another version of it."""
        return Rater("merged", self.policy, f"{VERSION}-{value_sha256(self.model_dump(mode='json'))[:8]}")


class Merged(NamedTuple):
    """What a policy made of a table.

    Attributes:
        labels: solution, step, value (null: undecided), shares (list of three, null where undecided), count (votes),
            comment (the votes, where undecided), sources (ids of the annotations), sorted by solution and step.
        rest: For people, where the policy asks for them: solution, reason, score (in [0, 1], higher first).
        about: What the policy found out, as JSON data.
    """

    labels: pl.DataFrame
    rest: pl.DataFrame | None = None
    about: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default, never changed


def merge(table: LabelTable, settings: MergeSettings) -> Merged:
    """Merge every step that one of these raters judged.

    Args:
        table: The raters that count, see `chosen`.
        settings: The policy.
    """
    return POLICIES[settings.policy](table, settings)


def chosen(table: LabelTable, kinds: Sequence[str] | None) -> LabelTable:
    """The raters of some kinds; None: all but merged and simulated ones.

    Raises:
        UsageError: There is none.
    """
    found = table.of(kinds) if kinds else table.of(without=("merged", "simulated"))
    if found.raters.is_empty():
        wanted = f"of kind {' or '.join(kinds)}" if kinds else "that is neither merged nor simulated"
        raise UsageError(f"no rater {wanted}; there are: {', '.join(table.raters['label'])}")
    return found


def majority(table: LabelTable, settings: MergeSettings) -> Merged:
    """The value that more than half of the raters of a step gave."""
    return Merged(_decided(_votes(table.labels, table)))


def priority(table: LabelTable, settings: MergeSettings) -> Merged:
    """The majority among the raters of the first kind, in the settings' order, that judged the step.

    Raises:
        UsageError: The table has raters of a kind that the order leaves out.
    """
    ranks = {kind: rank for rank, kind in enumerate(settings.order)}
    unranked = sorted(set(table.raters["kind"]) - set(ranks))
    if unranked:
        raise UsageError(f"the order {' > '.join(settings.order)} does not say where {', '.join(unranked)} stands")
    rank = pl.col("kind").replace_strict(ranks, return_dtype=pl.Int32)
    ranked = table.labels.join(table.raters.select("rater", rank=rank), on="rater", maintain_order="left")
    best = pl.col("rank").min().over("solution", "step")
    return Merged(_decided(_votes(ranked.filter(pl.col("rank") == best), table)))


def by_dawid_skene(table: LabelTable, settings: MergeSettings) -> Merged:
    """The most probable value given how every rater errs; shares are its posterior probabilities."""
    votes = _votes(table.labels, table)
    units = votes.select("solution", "step").with_row_index("unit")
    rows = table.labels.join(units, on=["solution", "step"], maintain_order="left")
    # A rater who gave no value (soft rollouts) has no errors to estimate, and is no rater here.
    raters = table.raters.filter(pl.col("rater").is_in(rows["rater"].unique().to_list())).with_row_index("column")
    rows = rows.join(raters.select("rater", "column"), on="rater", maintain_order="left")
    unit, column, value = (rows[name].to_numpy().astype("int64") for name in ("unit", "column", "value"))
    estimate = dawid_skene(unit, column, value + 1)
    shares = pl.DataFrame(estimate.posterior, schema=["wrong", "neutral", "right"])
    merged = pl.concat([votes.drop("wrong", "neutral", "right"), shares], how="horizontal")
    about: dict[str, Any] = {
        "iterations": estimate.iterations,
        "converged": estimate.converged,
        "prior": dict(zip(map(str, LABEL_VALUES), estimate.prior.tolist(), strict=True)),
        "estimated": {
            label: {"labels": int((column == i).sum()), "confusion": estimate.confusion[i].round(4).tolist()}
            for i, label in enumerate(raters["label"])
        },
    }
    if raters.height < 3:
        about["warning"] = "fewer than three raters do not settle who of them errs; the result leans on the first guess"
    return Merged(_decided(merged, settings.min_confidence), about=about)


def agreed(table: LabelTable, settings: MergeSettings) -> Merged:
    """Solutions on whose first error all raters of both kinds agree, labelled until there; the rest is for people.

    The filter of arXiv 2501.07301 (rollouts and a judge). Raters agree when all name the same first error, having
    judged every step before it, or all judged every step and call none wrong. Until the first error the label is that
    of the kind that comes first in the settings' order (a judge knows 0, rollouts do not); after it nothing is
    labelled. A solution that only one of the kinds has labelled is left out; one that a rater of them leaves open
    counts as not agreed.

    Raises:
        UsageError: Nobody of one of the kinds has labelled anything.
    """
    table = table.of(settings.between)
    for kind in settings.between:
        if kind not in table.raters["kind"]:
            raise UsageError(f"nobody of kind {kind} has labelled these solutions")
    about = table.annotations.join(table.raters.select("rater", "kind"), on="rater")
    # Whoever labels but a part (a rule) and whoever said nothing leaves the first error open: null, never equal.
    found = (
        about.group_by("solution")
        .agg(
            kinds=pl.col("kind").n_unique(),
            open=pl.col("first_error").is_null().any(),
            low=pl.col("first_error").min(),
            high=pl.col("first_error").max(),
        )
        .filter(pl.col("kinds") == len(settings.between))
        .join(table.solutions.select("solution", "steps"), on="solution")
        .sort("solution")
    )
    same = ~pl.col("open") & (pl.col("low") == pl.col("high"))
    kept = found.filter(same).select("solution", end=pl.col("low"))
    last = pl.when(pl.col("end") < 0).then(pl.col("step").max()).otherwise(pl.col("end"))
    until = table.labels.join(kept, on="solution", maintain_order="left").filter(pl.col("step") <= last)
    both = _votes(until, table).select("solution", "step", "sources", "count")
    first = settings.model_copy(update={"order": tuple(k for k in settings.order if k in settings.between)})
    labels = priority(LabelTable(**{**table.__dict__, "labels": until}), first).labels.drop("sources", "count")
    place = pl.when(pl.col("low") < 0).then(pl.col("steps")).otherwise(pl.col("low"))
    # "None" counts as an error behind the last step: the further apart, the more is in doubt.
    apart = ((pl.col("high") - place).abs() / pl.col("steps")).clip(0, 1)
    rest = found.filter(~same).select(
        "solution",
        reason=pl.when("open").then(pl.lit("one side leaves the first error open")).otherwise(pl.lit("disagreement")),
        score=pl.when("open").then(0.0).otherwise(apart),
    )
    labels = labels.join(both, on=["solution", "step"], maintain_order="left")
    return Merged(labels, rest, {"agreed": kept.height, "not_agreed": rest.height})


def _votes(labels: pl.DataFrame, table: LabelTable) -> pl.DataFrame:
    """Per judged step its vote shares, their number and their sources, in order."""
    ids = labels.join(table.annotations.select("annotation", "id"), on="annotation", maintain_order="left")
    names = ("wrong", "neutral", "right")
    return (
        ids.sort("solution", "step", "rater")
        .group_by("solution", "step", maintain_order=True)
        .agg(
            *((pl.col("value") == value).mean().alias(name) for name, value in zip(names, LABEL_VALUES, strict=True)),
            count=pl.len(),
            sources=pl.col("id"),
        )
    )


def _decided(votes: pl.DataFrame, above: float = 0.5) -> pl.DataFrame:
    """The value whose share is above the threshold and above every other; null, with the shares in words, elsewhere."""
    shares = pl.concat_list("wrong", "neutral", "right")
    top = pl.max_horizontal("wrong", "neutral", "right")
    ties = pl.sum_horizontal(*(pl.col(name) == top for name in ("wrong", "neutral", "right")))
    decided = (top > above) & (ties == 1)
    words = pl.format(
        "undecided: -1 {}, 0 {}, +1 {}", *(pl.col(name).round(3) for name in ("wrong", "neutral", "right"))
    )
    return votes.select(
        "solution",
        "step",
        value=pl.when(decided).then(shares.list.arg_max().cast(pl.Int8) - 1),
        shares=pl.when(decided).then(shares),
        count=pl.col("count"),
        comment=pl.when(~decided).then(words),
        sources=pl.col("sources"),
    )


def merge_summary(merged: Merged, table: LabelTable) -> dict[str, Any]:
    """How many steps were labelled, by value, left undecided, and by how many votes."""
    values = Counter(merged.labels["value"].to_list())
    return {
        "steps": merged.labels.height,
        "values": {str(value): values[value] for value in LABEL_VALUES},
        "undecided": values[None],
        "votes": {str(n): m for n, m in sorted(Counter(merged.labels["count"].to_list()).items())},
        "raters": table.raters["label"].to_list(),
        **merged.about,
    }


POLICIES: dict[str, Callable[[LabelTable, MergeSettings], Merged]] = {
    "priority": priority,
    "majority": majority,
    "dawid-skene": by_dawid_skene,
    "filter": agreed,
}
