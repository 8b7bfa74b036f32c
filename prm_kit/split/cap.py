"""No step longer than a cap, so that nobody escapes supervision by writing one huge step. Nothing is ever dropped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from prm_kit.record_checks import Span
from prm_kit.split.protect import Blocks
from prm_kit.split.sentences import sentence_cuts

_LINE = re.compile(r"\n")
_SPACE = re.compile(r"\s+")

CountTokens = Callable[[str], int]


def estimate_tokens(text: str) -> int:
    """Tokens of a text without a tokenizer: a third of its UTF-8 bytes, rounded up.

    About right for mathematical English (three characters a token) and Chinese (one character a token) in current
    vocabularies. Digits may take a token each, so long numbers are underestimated up to three times; give a real
    tokenizer's count where the cap has to hold exactly.
    """
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // 3)


def cap(
    text: str, spans: Sequence[Span], blocks: Blocks, limit: int, count: CountTokens = estimate_tokens
) -> tuple[list[Span], int]:
    """Cut every span of more than `limit` tokens at the next finer boundaries.

    In this order: line ends, sentence ends, white space; only what is then still too long (one block or one word) is
    cut inside protected regions: at line ends, white space, and at last between any two characters. Neighbouring
    fragments are packed into steps of about equal size within the cap.

    Args:
        text: The text.
        spans: Steps.
        blocks: Protected regions of the text.
        limit: Most tokens a step may have, at least 1. A single character is never cut.
        count: Counts the tokens of a text.

    Returns:
        The steps, and how many of those given were too long.
    """
    result: list[Span] = []
    cut = 0
    for start, end in spans:
        # A character has at most four bytes: most steps need no counting when the estimate counts.
        if (count is estimate_tokens and 4 * (end - start) <= 3 * limit) or count(text[start:end]) <= limit:
            result.append((start, end))
        else:
            cut += 1
            result += _finer(text, (start, end), blocks, limit, count, 0)
    return result, cut


def _finer(text: str, span: Span, blocks: Blocks, limit: int, count: CountTokens, level: int) -> Iterator[Span]:
    """Cut a span that is too long at the boundaries of this level, and what is still too long at the next."""
    if level == len(_LEVELS):
        yield from _hard(span, lambda s: count(text[s[0] : s[1]]) <= limit)
        return
    atoms = list(_atoms(text, span, _LEVELS[level](text, *span, blocks)))
    # Counted with the space behind it, so that the parts add up to the whole or to a little more.
    edges = [start for start, _ in atoms[1:]] + [span[1]]
    sizes = [count(text[start:edge]) for (start, _), edge in zip(atoms, edges, strict=True)]
    total = sum(sizes)
    target = total / max(1, -(-total // limit))
    group: list[Span] = []
    filled = 0
    for atom, size in zip(atoms, sizes, strict=True):
        if group and (filled >= target or filled + size > limit):
            yield from _packed(text, group, limit, count)
            group, filled = [], 0
        if size > limit and count(text[atom[0] : atom[1]]) > limit:
            yield from _finer(text, atom, blocks, limit, count, level + 1)
        else:
            group.append(atom)
            filled += size
    if group:
        yield from _packed(text, group, limit, count)


def _packed(text: str, group: Sequence[Span], limit: int, count: CountTokens) -> Iterator[Span]:
    whole = (group[0][0], group[-1][1])
    if len(group) == 1 or count(text[whole[0] : whole[1]]) <= limit:
        yield whole
    else:  # a tokenizer for which the parts count less than the whole
        yield from group


def _hard(span: Span, fits: Callable[[Span], bool]) -> Iterator[Span]:
    if fits(span) or span[1] - span[0] == 1:
        yield span
        return
    middle = (span[0] + span[1]) // 2
    yield from _hard((span[0], middle), fits)
    yield from _hard((middle, span[1]), fits)


def _atoms(text: str, span: Span, cuts: Sequence[int]) -> Iterator[Span]:
    start = span[0]
    for end in (*cuts, span[1]):
        piece = text[start:end].rstrip()
        if piece and not piece.isspace():
            stop = start + len(piece)
            yield stop - len(piece.lstrip()), stop
        start = end


def _line_cuts(text: str, start: int, end: int) -> list[int]:
    return [m.end() for m in _LINE.finditer(text, start, end)]


def _space_cuts(text: str, start: int, end: int) -> list[int]:
    return [m.end() for m in _SPACE.finditer(text, start, end)]


_LEVELS: tuple[Callable[[str, int, int, Blocks], list[int]], ...] = (
    lambda text, start, end, blocks: blocks.outside(_line_cuts(text, start, end)),
    lambda text, start, end, blocks: blocks.outside(sentence_cuts(text, start, end)),
    lambda text, start, end, blocks: blocks.outside(_space_cuts(text, start, end)),
    lambda text, start, end, _: _line_cuts(text, start, end),
    lambda text, start, end, _: _space_cuts(text, start, end),
)
