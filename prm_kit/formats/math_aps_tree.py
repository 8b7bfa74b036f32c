"""Rebuild a tree from its prefixes: every node is a prefix of the completion, its parent the longest one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from prm_kit.formats.format import Reading
from prm_kit.record_checks import Span


@dataclass(eq=False)
class Node:
    """One node: the completion up to and including its step.

    Attributes:
        prefix: Completion text up to its end.
        span: Where its step stands in `prefix`, without the white space around it.
        value: Its Monte-Carlo value in [0, 1], or None.
        children: In the order of the file.
    """

    prefix: str
    span: Span
    value: float | None
    children: list[Node] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text of its step."""
        return self.prefix[self.span[0] : self.span[1]]


@dataclass
class Tree:
    """The nodes below the question.

    Attributes:
        root_value: Value of the question itself, or None.
        children: Nodes of the first step.
    """

    root_value: float | None
    children: list[Node]

    def paths(self) -> list[list[Node]]:
        """Every path from a first step to a leaf, in the order of the file."""
        found: list[list[Node]] = []
        waiting = [[child] for child in reversed(self.children)]
        while waiting:
            path = waiting.pop()
            if not path[-1].children:
                found.append(path)
            waiting += [[*path, child] for child in reversed(path[-1].children)]
        return found


def tree_of_prefixes(
    prefixes: Sequence[tuple[str, str | None, float | None]], reading: Reading, *, given: bool
) -> Tree:
    """Build the tree of (prefix, parent's prefix, value).

    Args:
        prefixes: In any order; "" is the question itself.
        reading: Told of repeated prefixes, conflicting values and empty nodes.
        given: Whether the parents are given; else they are found: the longest other prefix that ends at a word's end.
    """
    values: dict[str, float | None] = {}
    parents: dict[str, str] = {}
    for prefix, parent, value in prefixes:
        if prefix not in values:
            values[prefix] = value
            parents[prefix] = parent or ""
            continue
        reading.notes["a node given twice was kept once"] += 1
        if values[prefix] != value:
            reading.notes["a node was given twice with different values, the first one kept"] += 1
    if not given:
        parents = longest_prefixes(list(values))
    root_value = values.pop("", None)
    tree = Tree(root_value, [])
    nodes: dict[str, Node] = {}
    kept_parent = {"": ""}
    # A parent is shorter than its child, so it comes first; the order among siblings is that of the file.
    for prefix in sorted(values, key=len):
        parent = kept_parent[parents[prefix]]
        span = _trimmed(prefix, len(parent))
        if span is None:
            reading.notes["a node without text was left out"] += 1
            kept_parent[prefix] = parent
            continue
        kept_parent[prefix] = prefix
        nodes[prefix] = Node(prefix, span, values[prefix])
    for prefix, node in ((prefix, nodes[prefix]) for prefix in values if prefix in nodes):
        parent = kept_parent[parents[prefix]]
        (nodes[parent].children if parent else tree.children).append(node)
    return tree


def longest_prefixes(prefixes: Sequence[str]) -> dict[str, str]:
    """For each text the longest other one that it continues, "" where none.

    "x = 2" is no parent of "x = 24": a parent ends where a word ends. In sorted order whatever continues a text follows
    it, so one stack finds them all.
    """
    parents: dict[str, str] = {}
    stack: list[str] = []
    for prefix in sorted(prefixes):
        while stack and not prefix.startswith(stack[-1]):
            stack.pop()
        parents[prefix] = next((text for text in reversed(stack) if text != "" and _continues(prefix, text)), "")
        stack.append(prefix)
    return parents


def _continues(text: str, prefix: str) -> bool:
    return not (prefix[-1].isalnum() and text[len(prefix)].isalnum())


def _trimmed(prefix: str, start: int) -> Span | None:
    text = prefix[start:]
    if not text.strip():
        return None
    return start + len(text) - len(text.lstrip()), start + len(text.rstrip())
