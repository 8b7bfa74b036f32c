"""Export annotated solutions to a foreign format, whole or not at all, with a report of what it cost.

Every row is read back before it counts: whatever the format cannot hold is found by comparing, field by field, and
listed in the report. A row that does not come back with the same steps and labels is refused, with its id.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prm_kit.errors import InputError, UsageError, unknown_name
from prm_kit.files import write_json
from prm_kit.formats.folding import Folded, Folding, LeftOut, as_it_is, fold
from prm_kit.formats.format import Format, Judged, Layout, Row, branch_of
from prm_kit.formats.registry import format_named, layout_of
from prm_kit.formats.row_output import row_output
from prm_kit.readback import compare
from prm_kit.records import Annotation, Rater, Solution, StepLabel, step_hash
from prm_kit.settings import validated
from prm_kit.transfer_counts import REPORTED_REJECTS, ExportCount, label_word, reason_kind

_REMEMBERED = 50_000


def export_data(
    source: Iterable[tuple[Solution, Annotation | None]],
    format: str,
    out: Path,
    *,
    options: Mapping[str, Any] | None = None,
    folding: Folding | None = None,
    max_refused_share: float = 0.0,
) -> dict[str, Any]:
    """Write annotated solutions to one file of a foreign format, and its report to `<out>.report.json`.

    A branch whose first steps are labelled in its trunk gets those labels too where the format has one row per
    solution; the trunk must come before it. Tree formats hold all solutions in memory, the others stream.

    Args:
        source: (solution, annotation) pairs, such as a view's `labelled()`; None: nobody judged the solution.
        format: Name of the format.
        out: `.jsonl` (JSON lines), `.json` (one array), either with `.gz`, `.parquet`, or a folder for
            `datasets.load_from_disk` (a name without suffix); see `prm_kit.formats.row_output`.
        options: Options of the format; those of `Folding` may stand among them.
        folding: What becomes of labels that the format cannot hold; None: nothing is folded.
        max_refused_share: Share of refused solutions above which nothing is written.

    Returns:
        The report: counts, what the policies left out, what was refused, fields not held, warning.

    Raises:
        UsageError: Unknown format or option, a format that can only be read, or a label that does not fit.
        InputError: Too many solutions were refused; the message names the first ones.
    """
    spec = format_named(format)
    layout, folding = _options(spec, options or {}, folding or Folding())
    if spec.write is None:
        raise UsageError(f"format {spec.name} can only be read")
    if spec.labels != "folded" and folding != Folding():
        raise UsageError(f"format {spec.name} has nothing to fold: its labels are written as they are, or not at all")
    count = ExportCount()
    with row_output(out) as write:
        for group in _groups(source, spec, layout, folding, count):
            line = _line(group, spec, layout, count)
            if line is not None:
                write(line)
        _check_refused(count, max_refused_share)
    report = {
        "format": spec.name,
        "file": out.name,
        "options": layout.model_dump(mode="json"),
        "folding": folding.model_dump(mode="json"),
        **count.summary(),
        "refused_rows": count.refused[:100],
        "warning": spec.warning,
    }
    write_json(out.with_name(f"{out.name}.report.json"), report)
    return report


def _options(spec: Format, options: Mapping[str, Any], folding: Folding) -> tuple[Layout, Folding]:
    policies = {key: value for key, value in options.items() if key in Folding.model_fields}
    rest = {key: value for key, value in options.items() if key not in policies}
    if policies:
        folding = validated(Folding, {**folding.model_dump(), **policies}, "options of the export")
    unknown = next((key for key in rest if key not in spec.layout.model_fields), None)
    if unknown is not None:
        raise unknown_name(f"option of format {spec.name}", unknown, {*spec.layout.model_fields, *Folding.model_fields})
    return layout_of(spec, rest), folding


def _groups(
    source: Iterable[tuple[Solution, Annotation | None]],
    spec: Format,
    layout: Layout,
    folding: Folding,
    count: ExportCount,
) -> Iterator[list[Judged]]:
    """What belongs into one row: single solutions as they come; whole trees (or a solution's passes) at the end."""
    trees: dict[Hashable, list[Judged]] = {}
    ids: dict[str, str] = {}
    prefixes = _PrefixLabels()
    for solution, annotation in source:
        count.given += 1
        if spec.tree is not None:
            solution = _with_parent_id(solution, ids)
        labels = annotation.labels if annotation else ()
        count.before.update(map(label_word, labels))
        count.before["null"] += len(solution.spans) - len(labels)
        try:
            judged = _judged(solution, annotation, spec, layout, folding, prefixes)
        except LeftOut as reason:
            count.left_out[str(reason)] += 1
            continue
        if spec.tree is None:
            yield [judged]
        else:
            trees.setdefault(spec.tree(solution, annotation), []).append(judged)
    yield from trees.values()


def _with_parent_id(solution: Solution, ids: dict[str, str]) -> Solution:
    """A parent may be named by its id in the source; name it by its solution's id, if it came before."""
    parent, row_id = solution.meta.get("parent"), solution.meta.get("row_id")
    if parent in ids:
        return replace(solution, meta={**solution.meta, "parent": ids[parent]})
    if isinstance(row_id, str) and parent is None:
        ids.setdefault(row_id, solution.id)
    return solution


def _judged(
    solution: Solution,
    annotation: Annotation | None,
    spec: Format,
    layout: Layout,
    folding: Folding,
    prefixes: _PrefixLabels,
) -> Judged:
    holds = spec.holds(layout)
    labels = {label.step: label for label in annotation.labels} if annotation else {}
    if spec.labels == "folded":
        if not solution.spans:
            raise LeftOut("no steps: split the solutions first")
        if not holds.missing:
            labels = prefixes.filled(solution, annotation)
    per_step = [labels.get(step) for step in range(len(solution.spans))]
    if spec.labels == "folded":
        folded = fold(solution, per_step, folding, holds, spec.name)
    else:
        folded = Folded(solution, tuple(map(as_it_is, per_step)))
    return Judged(folded.solution, annotation, folded)


class _PrefixLabels:
    """Labels of the solutions seen last, for the branches that leave them."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, Rater], dict[int, StepLabel]] = OrderedDict()

    def filled(self, solution: Solution, annotation: Annotation | None) -> dict[int, StepLabel]:
        """Labels of `annotation`, and of its parent for the steps before the branch leaves it, same rater only."""
        if annotation is None:
            return {}
        own = {label.step: label for label in annotation.labels}
        parent, at = branch_of(solution, annotation)
        if parent is not None and at is not None:
            trunk = self._seen.get((parent, annotation.rater), {})
            # The hash of the step makes sure that it is the same text that was judged.
            inherited = {
                step: label
                for step, label in trunk.items()
                if step < at and label.step_hash == step_hash(solution.steps[step])
            }
            own = inherited | own
        # A parent is named by its id, or by its id in the source.
        for name in (solution.id, solution.meta.get("row_id")):
            self._seen[str(name), annotation.rater] = own
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return own


def _line(group: Sequence[Judged], spec: Format, layout: Layout, count: ExportCount) -> bytes | None:
    """The row as JSON, None where it is refused."""
    assert spec.write is not None
    try:
        line = json.dumps(spec.write(group, layout), ensure_ascii=False, allow_nan=False).encode()
        items = spec.read(Row(json.loads(line), "read back", count.rows + 1), layout).items
        lost = compare(group, items, labels=spec.labels != "none")
    except (InputError, ValueError) as error:
        reason = str(error)
        count.refused += [f"solution {judged.solution.id}: {reason}" for judged in group]
        count.refused_kinds[reason_kind(reason)] += len(group)
        return None
    count.lost += lost
    count.rows += 1
    count.solutions += len(group)
    for judged in group if spec.labels != "none" else ():
        count.after.update(_target_word(target) for target in judged.folded.targets)
    return line


def _target_word(target: float | None) -> str:
    if target is None:
        return "null"
    return "soft" if isinstance(target, float) else str(target)


def _check_refused(count: ExportCount, max_share: float) -> None:
    if len(count.refused) <= max_share * count.given:
        return
    shown = "\n".join(f"  {reason}" for reason in count.refused[:REPORTED_REJECTS])
    more = len(count.refused) - min(len(count.refused), REPORTED_REJECTS)
    raise InputError(
        f"{len(count.refused)} of {count.given} solutions refused, more than the share of {max_share:g} allowed "
        f"(max_refused_share); nothing was written:\n{shown}" + (f"\n  and {more} more" if more else "")
    )
