"""Read and write single rows of a format, as the drivers do."""

from __future__ import annotations

import json

import pytest

from prm_kit.formats.folding import Folded, as_it_is
from prm_kit.formats.format import Judged, Row
from prm_kit.formats.registry import format_named, layout_of


def _judged(solution, annotation):
    by_step = {label.step: label for label in annotation.labels} if annotation else {}
    targets = tuple(as_it_is(by_step.get(step)) for step in range(len(solution.spans)))
    return Judged(solution, annotation, Folded(solution, targets))


@pytest.fixture
def read():
    def _read(name, value, **options):
        spec = format_named(name)
        return spec.read(Row(value, "rows.jsonl", 1), layout_of(spec, options))

    return _read


@pytest.fixture
def write():
    """Write items (as one row: a tree, or the only item) without folding."""

    def _write(name, items, **options):
        spec = format_named(name)
        group = [_judged(solution, done) for solution, passes in items for done in (passes or (None,))]
        return json.loads(json.dumps(spec.write(group, layout_of(spec, options))))

    return _write


@pytest.fixture
def values():
    """The label values of the only annotation of an item, None where there is none."""

    def _values(item):
        (annotation,) = item.annotations
        return annotation.values(len(item.solution.spans))

    return _values
