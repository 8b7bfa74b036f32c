"""MATH-APS and OmegaPRM: trees of prefixes with Monte-Carlo values (arXiv 2406.06592; openreasoner/openr).

Three shapes are told apart by their keys and read:
- tree: nested `text`, `mc_value`, `children`; the root is the question, not a step;
- flat: an unordered set of `solution_prefix` with `mc_value`; the tree is rebuilt by the longest prefix;
- converted: `process` with a tag after each step, `label` or `labels` per step.

Every leaf is one solution. A node that several leaves share is labelled once, in the first path through it; the others
name that one as `meta.parent` and where they leave it as `meta.branch_step`. A value v is kept as shares (1 - v, 0, v).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

from prm_kit.errors import InputError
from prm_kit.formats.folding import Holds
from prm_kit.formats.format import Format, Item, Judged, Layout, Reading, Row, as_list, as_share, as_text, soft_label
from prm_kit.formats.math_aps_tree import Node, Tree, tree_of_prefixes
from prm_kit.formats.openr_converted import read_converted
from prm_kit.records import Annotation, Solution

LABEL_ORIGIN = "Monte-Carlo value: share of successful rollouts"


class MathApsLayout(Layout):
    """Options.

    Attributes:
        separator: What stands between two steps in the tree shape, which does not say.
        shape: What is written: "tree" or "flat". Both are read, and openr's converted form.
        step_tag: The tag of the converted form; None: the first of openr's two tags that occurs.
    """

    separator: str = "\n\n"
    shape: Literal["tree", "flat"] = "tree"
    step_tag: str | None = None


def read_row(row: Row, layout: MathApsLayout) -> Reading:
    """One question's tree: one solution per leaf, in the order of the file."""
    if "process" in row.value:
        return read_converted(row, layout, layout.step_tag)
    reading = Reading()
    question = row.text("question")
    nodes = row.value.get("reasoning_steps")
    if isinstance(nodes, Mapping):
        prefixes = _prefixes_of_tree(nodes, question, layout.separator, reading)
    else:
        prefixes = _prefixes_of_list(row.array("reasoning_steps"), question)
    tree = tree_of_prefixes(prefixes, reading, given=isinstance(nodes, Mapping))
    paths = tree.paths()
    if not paths:
        raise InputError("reasoning_steps: no step below the question")
    owners: dict[Node, Solution] = {}
    for path in paths:
        reading.items.append(_item(row, layout, tree, path, owners))
    reading.seen["mc_value"] = len(prefixes)
    return reading


def _prefixes_of_list(nodes: Sequence[Any], question: str) -> list[tuple[str, str | None, float | None]]:
    found: list[tuple[str, str | None, float | None]] = []
    for index, node in enumerate(nodes):
        where = f"reasoning_steps[{index}]"
        if not isinstance(node, Mapping):
            raise InputError(f"{where}: not an object")
        prefix = as_text(node, "solution_prefix")
        if not prefix.startswith(question):
            raise InputError(f"{where}.solution_prefix: does not begin with the question")
        found.append((prefix[len(question) :], None, _value(node, where)))
    return found


def _prefixes_of_tree(
    root: Mapping[str, Any], question: str, separator: str, reading: Reading
) -> list[tuple[str, str | None, float | None]]:
    if as_text(root, "text") != question:
        raise InputError("reasoning_steps.text: the root is not the question")
    found: list[tuple[str, str | None, float | None]] = [("", None, _value(root, "reasoning_steps"))]
    waiting = deque([(root, "", "reasoning_steps")])
    while waiting:
        node, prefix, where = waiting.popleft()
        for index, child in enumerate(as_list(node, "children") if node.get("children") is not None else ()):
            place = f"{where}.children[{index}]"
            if not isinstance(child, Mapping):
                raise InputError(f"{place}: not an object")
            text = as_text(child, "text")
            below = f"{prefix}{separator}{text}" if prefix else text
            found.append((below, prefix, _value(child, place)))
            waiting.append((child, below, place))
    return found


def _value(node: Mapping[str, Any], where: str) -> float | None:
    value = node.get("mc_value")
    return None if value is None else as_share(value, f"{where}.mc_value")


def _item(row: Row, layout: MathApsLayout, tree: Tree, path: Sequence[Node], owners: dict[Node, Solution]) -> Item:
    shared = next((step for step, node in enumerate(path) if node not in owners), len(path))
    leaves: dict[str, Any] = {"parent": owners[path[shared - 1]].id, "branch_step": shared} if shared else {}
    solution = Solution(
        row.text("question"),
        path[-1].prefix,
        tuple(node.span for node in path),
        reference_answer=row.optional_text("final_answer"),
        **layout.fields("math-aps", row, question_id=row.value.get("question_id"), **leaves),
    )
    labels = tuple(
        soft_label(step, node.text, node.value)
        for step, node in enumerate(path)
        if step >= shared and node.value is not None
    )
    kept = {"label_origin": LABEL_ORIGIN, "root_value": None if owners else tree.root_value, **leaves}
    annotation = Annotation(
        solution.id,
        layout.rater("rollout", "math-aps"),
        labels,
        meta={key: value for key, value in kept.items() if value is not None},
    )
    for node in path:
        owners.setdefault(node, solution)
    return Item(solution, (annotation,))


def tree_key(solution: Solution, annotation: Annotation | None) -> Hashable:
    """Solutions of one problem by one rater are one tree."""
    return solution.problem, annotation and annotation.rater


def write_rows(group: Sequence[Judged], layout: MathApsLayout) -> dict[str, Any]:
    """All solutions of one question as one tree.

    Raises:
        InputError: Two solutions give one node different values, or a node has none.
    """
    values: dict[str, float] = {}
    order: dict[str, tuple[str, str]] = {}
    for judged in group:
        _collect(judged, values, order, layout)
    missing = next((prefix for prefix in order if prefix not in values), None)
    if missing is not None:
        raise InputError("a step has no value in any solution of this tree")
    head = group[0].solution
    annotations = [judged.annotation for judged in group if judged.annotation]
    root_value = next((a.meta["root_value"] for a in annotations if "root_value" in a.meta), None)
    row = {"question": head.problem, "final_answer": head.reference_answer}
    if "question_id" in head.meta:
        row["question_id"] = head.meta["question_id"]
    if layout.shape == "flat":
        nodes = [{"solution_prefix": head.problem, "mc_value": root_value}] if root_value is not None else []
        nodes += [{"solution_prefix": head.problem + prefix, "mc_value": values[prefix]} for prefix in order]
        return {**row, "reasoning_steps": nodes}
    made: dict[str, dict[str, Any]] = {"": {"text": head.problem, "mc_value": root_value, "children": []}}
    for prefix, (parent, text) in order.items():
        made[prefix] = {"text": text, "mc_value": values[prefix], "children": []}
        made[parent]["children"].append(made[prefix])
    return {**row, "reasoning_steps": made[""]}


def _collect(
    judged: Judged, values: dict[str, float], order: dict[str, tuple[str, str]], layout: MathApsLayout
) -> None:
    solution, _, folded = judged
    before = ""
    for step, ((_, end), target) in enumerate(zip(solution.spans, folded.targets, strict=True)):
        # A tree node is its text, a flat node its whole prefix: only the latter keeps the gaps.
        last = end if step + 1 < len(solution.spans) else len(solution.completion)
        prefix = solution.completion[:last] if layout.shape == "flat" else f"{before}\x00{solution.steps[step]}"
        order.setdefault(prefix, (before, solution.steps[step]))
        if target is not None:
            value = target if isinstance(target, float) else float(target == 1)
            if values.setdefault(prefix, value) != value:
                raise InputError(f"step {step} has another value in another solution of this tree")
        before = prefix


MATH_APS = Format(
    name="math-aps",
    about="MATH-APS / OmegaPRM: a tree of steps with Monte-Carlo values, nested or flat",
    layout=MathApsLayout,
    read=read_row,
    write=write_rows,
    holds=lambda layout: Holds(soft=True, missing=True),
    tree=tree_key,
    warning="hard labels are written as the values 1.0 and 0.0",
)
