"""A solution taken apart, so that steps can be put in, taken out and changed, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from prm_kit.record_checks import Span
from prm_kit.records import Solution


@dataclass(frozen=True)
class Draft:
    """The steps of a completion, and everything that stands around them.

    Attributes:
        head: Text before the first step.
        steps: The steps' texts.
        gaps: Text after each step; after the last one, the rest of the completion.
    """

    head: str
    steps: tuple[str, ...]
    gaps: tuple[str, ...]

    @classmethod
    def of(cls, solution: Solution) -> Self:
        """Take a solution apart."""
        spans, text = solution.spans, solution.completion
        starts = [start for start, _ in spans[1:]] + [len(text)]
        gaps = tuple(text[end:start] for (_, end), start in zip(spans, starts, strict=True))
        return cls(text[: spans[0][0]] if spans else text, solution.steps, gaps)

    def joined(self) -> tuple[str, tuple[Span, ...]]:
        """The completion and the spans of its steps."""
        text, spans = self.head, []
        for step, gap in zip(self.steps, self.gaps, strict=True):
            spans.append((len(text), len(text) + len(step)))
            text += step + gap
        return text, tuple(spans)

    def with_step(self, index: int, text: str) -> Draft:
        """The same with another text for one step."""
        return Draft(self.head, (*self.steps[:index], text, *self.steps[index + 1 :]), self.gaps)

    def inserted(self, index: int, text: str) -> Draft:
        """The same with a step more, which becomes step `index`."""
        steps = (*self.steps[:index], text, *self.steps[index:])
        if index < len(self.steps):
            gap = self.gaps[max(0, index - 1)] if len(self.steps) > 1 else "\n"
            return Draft(self.head, steps, (*self.gaps[:index], gap, *self.gaps[index:]))
        gap = self.gaps[-2] if len(self.gaps) > 1 else "\n"
        return Draft(self.head, steps, (*self.gaps[:-1], gap, self.gaps[-1]))

    def kept(self, indices: Sequence[int]) -> Draft:
        """The same with these steps alone, in this order; what ends the completion still ends it."""
        gaps = [self.gaps[index] for index in indices]
        last = len(self.steps) - 1
        for place, index in enumerate(indices):
            if index == last and place < len(indices) - 1:
                gaps[place] = self.gaps[-2] if last else "\n"
        if gaps:
            gaps[-1] = self.gaps[-1]
        return Draft(self.head, tuple(self.steps[index] for index in indices), tuple(gaps))
