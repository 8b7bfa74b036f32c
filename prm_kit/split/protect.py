r"""Regions that no step boundary may fall into: LaTeX, code fences, tables, calculator spans.

One pass of one regular expression per text. An opener that is not closed protects nothing, so a truncated or hostile
text can never glue its rest together:

- `\[`, `\(`, `$`: the nearest opener before a closer counts; `\(` and `$` do not cross a blank line, `$` no line.
- `$$`: opener and closer look alike. Where their number is even they pair in order; where it is odd one of them is
  stray, and then no pair crosses a blank line.
- `\begin{x}`: `\end{x}` closes the nearest open x and forgets the environments opened since.
- `$` opens before a non-space and closes after a non-space and not before a digit, so that prices are not formulas.
- A fence closes at a bare line of at least as many of the same signs; a fence line with a language opens anew.
- A table is a line with a bar, a line of dashes and bars, and the lines with bars after it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable

from prm_kit.record_checks import Span

_BLANK_AHEAD = r"\n[^\S\n]*+\n"
_LOOSE_DOLLARS = r"[^\\$]*+(?:(?:\\.|\$(?!\$))[^\\$]*+)*\$\$"
_TIGHT_DOLLARS = rf"[^\\$\n]*+(?:(?:\\[^\n]|\\(?=\n)|\$(?!\$)|(?!{_BLANK_AHEAD})\n)[^\\$\n]*+)*\$\$"


def _structure(dollars: str) -> re.Pattern[str]:
    # Every loop is unrolled over disjoint classes and stops at the next opener of its own kind, so a failed attempt
    # reads no text twice. All alternatives begin with a literal, which lets the search skip plain text quickly.
    return re.compile(
        rf"""
        \\(?: \[ [^\\]*+ (?: \\[^\[\]] [^\\]*+ )* \\\]
            | \( [^\\\n]*+ (?: (?: \\[^()\n] | (?!{_BLANK_AHEAD})\n ) [^\\\n]*+ )* \\\)
            | begin\{{ (?P<begin> [^{{}}\n]{{1,60}} ) \}}
            | end\{{ (?P<end> [^{{}}\n]{{1,60}} ) \}}
            | (?P<escape> [\\$] ) )
        | \$\$ {dollars}
        | \$ (?![\s$]) [^\\$\n]*+ (?: \\[^\n] [^\\$\n]*+ )* (?<!\s) \$ (?!\d)
        | << [^<>\n]*+ >>
        """,
        re.VERBOSE | re.DOTALL,
    )


_EVEN = _structure(_LOOSE_DOLLARS)
_ODD = _structure(_TIGHT_DOLLARS)
_FENCE = re.compile(r"^[^\S\n]*+(?P<fence>`{3,}+|~{3,}+)(?P<info>[^\n]*+)", re.MULTILINE)
_RULE_LINE = re.compile(r"^[ \t|:-]++\r?$", re.MULTILINE)


class Blocks:
    """Protected regions of a text: sorted, disjoint spans."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in spans:
            if self._ends and start < self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    @property
    def spans(self) -> list[Span]:
        """The regions as (start, end)."""
        return list(zip(self._starts, self._ends, strict=True))

    def start_at(self, position: int) -> bool:
        """Whether a region starts exactly here."""
        index = bisect_right(self._starts, position)
        return index > 0 and self._starts[index - 1] == position

    def hold(self, position: int) -> bool:
        """Whether a cut before this character would fall inside a region (its two edges are outside)."""
        index = bisect_right(self._starts, position)
        return index > 0 and self._starts[index - 1] < position < self._ends[index - 1]

    def outside(self, positions: Iterable[int]) -> list[int]:
        """The positions at which a cut is allowed."""
        if not self._starts:
            return list(positions)
        return [position for position in positions if not self.hold(position)]


NO_BLOCKS = Blocks()


def protect(text: str) -> Blocks:
    """Find the protected regions of a text, in time linear in its length."""
    fences = _fences(text) if "```" in text or "~~~" in text else []
    regions = _formulas(text, fences) if fences or "\\" in text or "$" in text or "<<" in text else []
    tables = _tables(text) if "|" in text and "-" in text else []
    if not regions and not tables:
        return NO_BLOCKS
    return Blocks(sorted(regions + tables))


def _formulas(text: str, fences: list[Span]) -> list[Span]:
    """Formulas, environments and calculator spans outside the code fences, and the fences themselves."""
    pattern = _ODD if text.count("$$") % 2 else _EVEN
    regions: list[Span] = []
    stack: list[tuple[str, int]] = []
    open_of: dict[str, int] = {}
    position = 0
    for start, end in (*fences, (len(text), len(text))):
        for match in pattern.finditer(text, position, start):
            kind = match.lastgroup
            if kind is None:
                regions.append(match.span())
            elif kind == "begin":
                name = match["begin"]
                stack.append((name, match.start()))
                open_of[name] = open_of.get(name, 0) + 1
            elif kind == "end" and open_of.get(match["end"]):
                closed, opened = "", 0
                while closed != match["end"]:
                    closed, opened = stack.pop()
                    open_of[closed] -= 1
                regions.append((opened, match.end()))
        if end > start:
            regions.append((start, end))
        position = end
    return regions


def _fences(text: str) -> list[Span]:
    lines = [(m.start(), m.end(), m["fence"], m["info"].strip()) for m in _FENCE.finditer(text)]
    # The longest bare line of each sign from here to the end says at once whether an opener will find its closer.
    ahead: list[dict[str, int]] = []
    longest = {"`": 0, "~": 0}
    for _, _, fence, info in reversed(lines):
        ahead.append(dict(longest))
        if not info:
            longest[fence[0]] = max(longest[fence[0]], len(fence))
    ahead.reverse()
    regions: list[Span] = []
    opened: tuple[int, str] | None = None
    for (start, end, fence, info), closers in zip(lines, ahead, strict=True):
        of_kind = opened is not None and fence[0] == opened[1][0] and len(fence) >= len(opened[1])
        if opened is not None and of_kind and not info:
            regions.append((opened[0], end))
            opened = None
        elif (opened is None or of_kind) and "`" not in info and closers[fence[0]] >= len(fence):
            opened = (start, fence)
    return regions


def _tables(text: str) -> list[Span]:
    regions: list[Span] = []
    covered = 0
    for rule in _RULE_LINE.finditer(text):
        header = text.rfind("\n", 0, max(rule.start() - 1, 0)) + 1
        is_rule = rule.start() > 0 and "|" in rule[0] and "-" in rule[0]
        if not is_rule or header < covered or "|" not in text[header : rule.start()]:
            continue
        covered = rule.end()
        while covered < len(text):
            line_end = text.find("\n", covered + 1)
            line_end = len(text) if line_end < 0 else line_end
            if "|" not in text[covered:line_end]:
                break
            covered = line_end
        regions.append((header, covered))
    return regions
