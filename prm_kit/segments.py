"""How published PRMs lay out problem and steps, as data: a sequence of texts and template parts.

    before + [problem_before problem problem_after] + after
    + for each step: [lead step tail] + mark, and between two steps: between

What stands in brackets is text, tokenised together and never turned into special tokens; the rest is template, in
which special tokens are parsed. A step is read at the last token of its mark (or of its text where there is no mark),
whose position is known because it was put there; ids are never searched. Nothing follows the last mark: the models are
causal, so what the published templates put there changes no score.

The layout is stored in prm.json of a converted checkpoint, so that it is read as the published one was.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from prm_kit.encode import Encoded, Overlong, StepEncoder, sequences
from prm_kit.errors import InputError, UsageError
from prm_kit.plain_text import plain_text_backend, split_of
from prm_kit.records import Solution
from prm_kit.settings import Settings
from prm_kit.step_reading import StepReading

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Opening = Literal["joined", "alone", "parted"]

_OWN_NUMBER = re.compile(r"\s*step\s+\d+\s*(?::|\.(?!\d))\s*", re.IGNORECASE)


class SegmentReading(Settings):
    """The layout of a published PRM.

    Attributes:
        before: Template part that opens the sequence.
        problem_before: Text before the problem.
        problem_after: Text after the problem.
        after: Template part behind that.
        first_lead: Text before the first step; `{number}` stands for the step's number, from 1.
        lead: Text before every later step.
        tail: Text after every step.
        mark: Template part put after each step; "": the step is read at the last token of its own text.
        between: Template part between a mark and the next step.
        read_back: How many tokens before the last one of the mark (or text) a step is read.
        own_numbers: Whether a step keeps a "Step 3: " of its own.
        one_line: Whether each newline inside a step becomes a space.
        trim: Whether white space around steps, and before the problem, is taken away, as many chat templates do.
        opening: How texts are tokenised. "joined": as parts of one text, so that SentencePiece's dummy prefix stands
            only where the tokenizer itself would put it. "alone": each text and mark by itself. "parted": as if a
            special token stood before each text.
    """

    layout: Literal["segments"] = "segments"
    before: str = ""
    problem_before: str = ""
    problem_after: str = ""
    after: str = ""
    first_lead: str = ""
    lead: str = ""
    tail: str = ""
    mark: str = ""
    between: str = ""
    read_back: int = Field(default=0, ge=0)
    own_numbers: bool = True
    one_line: bool = False
    trim: bool = False
    opening: Opening = "joined"

    def step_text(self, step: str, number: int) -> str:
        """The text of one step as it is tokenised; `number` counts from 1."""
        if not self.own_numbers:
            own = _OWN_NUMBER.match(step)
            step = step[own.end() :] if own else step
        if self.one_line:
            step = step.replace("\n", " ")
        if self.trim:
            step = step.strip()
        lead = self.first_lead if number == 1 else self.lead
        return f"{lead.replace('{number}', str(number))}{step}{self.tail}"

    def problem_text(self, problem: str) -> str:
        """The text of the problem as it is tokenised."""
        return f"{self.problem_before}{problem.lstrip() if self.trim else problem}{self.problem_after}"


class SegmentEncoder:
    """Encodes solutions for one tokenizer and one layout; used like `StepEncoder`.

    Attributes:
        tokenizer: The tokenizer as given; it is not changed.
        reading: The layout.
        mark_ids: Token ids of the mark.
        mark_id: The last of them; -1 where there is no mark.

    Raises:
        UsageError: The tokenizer has no tokenizers backend, or text cannot be kept from turning into special tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, reading: SegmentReading) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UsageError(f"{type(tokenizer).__name__} is a slow tokenizer: convert it to a tokenizer.json first")
        self.tokenizer = tokenizer
        self.reading = reading
        self._backend = backend
        self._continued = split_of(backend)
        self._added = set(tokenizer.added_tokens_decoder) - {tokenizer.unk_token_id}
        self._before = self._template(reading.before, opens=True)
        self._after = self._template(reading.after)
        self.mark_ids = self._template(reading.mark, opens=reading.opening == "alone")
        self.mark_id = self.mark_ids[-1] if self.mark_ids else -1
        self._between = self._template(reading.between)
        parts = [self._before, self._after, self.mark_ids, self._between]
        literal = self._added & {index for part in parts for index in part}
        alone = plain_text_backend(backend, literal=literal, continued=False)
        continued = plain_text_backend(backend, literal=literal, continued=True)
        special = alone if self._special_opens(alone) else continued
        follow = {"alone": alone, "parted": special}.get(reading.opening)
        self._problem = alone if self._added.issuperset(self._before) else (follow or continued)
        self._first = follow or (special if self._ends_special(self._after) else continued)
        behind = self._between or self.mark_ids
        self._rest = follow or (special if self._ends_special(behind) else continued)

    @property
    def is_read_at_a_special_token(self) -> bool:
        """Whether a step is read at one special token, which no text holds: what servers can find in the ids."""
        return len(self.mark_ids) == 1 and self.mark_id in self._added and self.reading.read_back == 0

    def encode(
        self,
        solutions: Sequence[Solution],
        max_tokens: int | None = None,
        too_long: Overlong = "refuse",
    ) -> list[Encoded]:
        """Encode solutions, in order; see `StepEncoder.encode`.

        Raises:
            TooLongError: Naming the solution, its tokens and the limit.
            InputError: A step has no token to be read at; the solution and the step are named.
        """
        found: list[Encoded] = []
        for index, solution in enumerate(solutions):
            problem = self._text(self._problem, self.reading.problem_text(solution.problem))
            prompt = [*self._before, *problem, *self._after]
            steps = [self._step(solution, step) for step in range(len(solution.spans))]
            found += sequences(index, solution, prompt, steps, max_tokens, too_long, self.reading.read_back)
        return found

    def _step(self, solution: Solution, step: int) -> list[int]:
        """Ids of one step: what stands between it and the one before, its text, and its mark."""
        start, end = solution.spans[step]
        text = self.reading.step_text(solution.completion[start:end], step + 1)
        ids = self._text(self._rest if step else self._first, text)
        if not ids and not self.mark_ids:
            raise InputError(f"solution {solution.id}, step {step}: the tokenizer makes no token of {text!r}")
        return [*(self._between if step else ()), *ids, *self.mark_ids]

    def _template(self, text: str, opens: bool = False) -> list[int]:
        # What follows a special token opens a text in the eyes of the tokenizer; what follows a text does not.
        special = any(text.startswith(token.content) for token in self.tokenizer.added_tokens_decoder.values())
        backend = self._backend if special or opens else self._continued
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        return ids

    def _special_opens(self, alone: object) -> bool:
        """Whether the tokenizer lets a text that follows a special token open like the first one."""
        specials = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        if not specials:
            return False
        joined = self._backend.encode(f"{specials[0]}so", add_special_tokens=False).ids
        return bool(joined[1:] == self._text(alone, "so"))

    def _ends_special(self, ids: Sequence[int]) -> bool:
        return bool(ids) and ids[-1] in self._added

    @staticmethod
    def _text(backend: object, text: str) -> list[int]:
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids  # type: ignore[attr-defined]
        return ids


def encoder_of(tokenizer: PreTrainedTokenizerBase, reading: StepReading | SegmentReading) -> Encoder:
    """The encoder for a reading: `StepEncoder` for ours, `SegmentEncoder` for a published layout."""
    if isinstance(reading, SegmentReading):
        return SegmentEncoder(tokenizer, reading)
    return StepEncoder(tokenizer, reading)


Encoder = StepEncoder | SegmentEncoder
"""Whatever turns solutions into sequences."""
