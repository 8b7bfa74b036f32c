"""Numbered step markers: "Step 2:", "**Step 2**", "2.", "2)", "(2)", "第二步", "步骤 2：", "二、", "②"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from prm_kit.split.protect import Blocks

_ENGLISH = "zero one two three four five six seven eight nine ten"
_WORDS = {word: n for n, word in enumerate(_ENGLISH.split())}
_HAN = {sign: n for n, sign in enumerate("零一二三四五六七八九十")} | {"两": 2}
_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳"
_HAN_NUMBER = r"(?:\d{1,4}|[零一二两三四五六七八九十]{1,3})"

# Group names are the families. The line end before is matched too: a literal lets the search jump from line to line.
_MARKER = re.compile(
    rf"""
    \n (?= [\s\#*_+•Ss(（第步零一二三四五六七八九十\d{_CIRCLED}-] ) (?P<indent> [^\S\n]*+ )
    (?: \#{{1,6}}[^\S\n]*+ | [-*+•][^\S\n]++ )? (?:\*\*|__|\*)?
    (?: (?:Step|STEP|step) [^\S\n]* \#? (?P<step> \d{{1,4}} | (?i:{"|".join(_WORDS)}) ) \b
            (?= [^\S\n]* (?: [:：.,)\]*_(（—–-] | $ ) )
      | 第 [^\S\n]? (?P<di> {_HAN_NUMBER} ) [^\S\n]? 步
      | 步骤 [^\S\n]? (?P<bu> {_HAN_NUMBER} )
      | \( (?P<round> \d{{1,3}} ) \) (?=[\s*])
      | （ (?P<wide> {_HAN_NUMBER} ) ）
      | (?P<dot> \d{{1,3}} ) [.．] (?= [\s*\\$（“\u4e00-\u9fff] )
      | (?P<paren> \d{{1,3}} ) [)）] (?= [\s*\u4e00-\u9fff] )
      | (?P<han> \d{{1,3}} | [一二三四五六七八九十]{{1,3}} ) 、
      | (?P<circled> [{_CIRCLED}] )
    )
    """,
    re.MULTILINE | re.VERBOSE,
)
_INLINE = re.compile(
    r"(?:(?<!\#)\#{1,6}[^\S\n]?|\*\*)?"
    rf"(?:Step[^\S\n]?(?P<step>\d{{1,4}})(?:\*\*)?[^\S\n]?[:：]"
    rf"|第(?P<di>{_HAN_NUMBER})步(?:\*\*)?[:：，,]"
    rf"|步骤[^\S\n]?(?P<bu>{_HAN_NUMBER})(?:\*\*)?[:：])"
)
_CONCLUSION = re.compile(
    r"^[^\S\n]*(?:\#{1,6}[^\S\n]*|\*\*)?(?:Therefore|Thus|Hence|So[,\s]|In (?:conclusion|summary)|Finally|Conclusion"
    r"|Solution:|(?:The )?[Ff]inal [Aa]nswer|The answer|Answer\b|A:|\#{4}[^\S\n]*[-\d]|\\boxed"
    r"|因此|所以|综上|故|最终|最后|答|解答)",
    re.MULTILINE,
)

_STEP_FAMILIES = ("step", "di", "bu")


class Marker(NamedTuple):
    """A numbered marker."""

    position: int
    indent: int
    number: int
    family: str


def numbered(text: str, blocks: Blocks) -> list[Marker]:
    """Return the markers that number the steps of this text, [] if it has none.

    Markers that say "step" come before plain list numbers; among several families of list numbers the longest wins,
    and of its markers those of the first one's indentation. Only markers that count on (1, 2, 3, ...; from 0 or 1,
    and again from there) are kept, so that "Step 1 above" or a year at a line start cut nothing. "Step 2:" within a
    line counts where no line starts with such a marker.
    """
    families: dict[str, list[Marker]] = {}
    for match in _MARKER.finditer("\n" + text):
        family = str(match.lastgroup)
        # The offset in the text is one less than in the match: that of the line's first character is match.start().
        if not blocks.hold(match.end() - 1):
            marker = Marker(match.start(), len(match["indent"]), _number(match[family]), family)
            families.setdefault(family, []).append(marker)
    chains = {family: _counting(markers) for family, markers in families.items()}
    stepwise = max((chains.get(family, []) for family in _STEP_FAMILIES), key=len)
    if len(stepwise) < 2 and ("Step" in text or "步" in text):
        stepwise = max(stepwise, _inline(text, blocks), key=len)
    if stepwise:
        return stepwise
    return max(chains.values(), key=len, default=[])


def is_stepwise(markers: Sequence[Marker]) -> bool:
    """Whether the markers say "step" (and are not plain list numbers)."""
    return bool(markers) and markers[0].family in _STEP_FAMILIES


def is_consistent(markers: Sequence[Marker]) -> bool:
    """Whether there are two or more and they count up by one from the first, without starting again."""
    return len(markers) > 1 and all(m.number == markers[0].number + k for k, m in enumerate(markers))


def marker_cuts(text: str, blocks: Blocks, markers: Sequence[Marker]) -> list[int]:
    """Offsets of the markers, and of what concludes the text after the last of them.

    That is every paragraph behind the last marker's that opens with a word such as "Therefore" or "Answer"; where
    there is none, the last line that does.
    """
    cuts = [marker.position for marker in markers if marker.position > 0]
    body = text.find("\n", markers[-1].position + 1) if markers else -1
    if body < 0:
        return cuts
    lines = blocks.outside([match.start() for match in _CONCLUSION.finditer(text, body)])
    paragraphs = [line for line in lines if not text[text.rfind("\n", 0, line - 1) + 1 : line].strip()]
    return cuts + (paragraphs or lines[-1:])


def _counting(markers: Sequence[Marker]) -> list[Marker]:
    kept: list[Marker] = []
    for marker in markers:
        if kept and marker.indent != kept[0].indent and marker.family not in _STEP_FAMILIES:
            continue
        if marker.number in (0, 1) or (kept and marker.number == kept[-1].number + 1):
            kept.append(marker)
    return kept


def _inline(text: str, blocks: Blocks) -> list[Marker]:
    found: dict[str, list[Marker]] = {}
    for match in _INLINE.finditer(text):
        family = str(match.lastgroup)
        if not blocks.hold(match.start()):
            marker = Marker(match.start(), 0, _number(match[family]), family)
            found.setdefault(family, []).append(marker)
    # Within a line "see Step 1: ..." is more likely than a second start.
    chains = [[m for k, m in enumerate(markers) if k == 0 or m.number > 1] for markers in found.values()]
    return max((_counting(chain) for chain in chains), key=len, default=[])


def _number(written: str) -> int:
    if written.isdecimal():
        return int(written)
    if written in _CIRCLED:
        return _CIRCLED.index(written) + 1
    if written.lower() in _WORDS:
        return _WORDS[written.lower()]
    tens, ten, units = written.rpartition("十")
    if not ten:
        return _HAN.get(written, -1)
    return _HAN.get(tens, 1) * 10 + (_HAN.get(units, 0) if units else 0)
