"""The one place where steps meet tokens: problem and step spans to token ids and the position each step is read at.

A sequence is built from segments, each tokenised alone:

    before (special tokens parsed) + problem (text) + after (special tokens parsed)
    + for each step: the text from the end of the previous span to the end of this one (text) + the mark (one id)

A step is read at its mark, whose position is known because it was put there; ids are never searched. Hence the ids of
the first k steps are a prefix of the ids of all steps, whatever the tokenizer. Text after the last span is not
encoded: nothing is read after it. User text never becomes a special token, whatever it says.

Training, scoring, evaluation, serving and RL all call `StepEncoder.encode`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from prm_kit.errors import InputError, UsageError
from prm_kit.plain_text import plain_text_backend, split_of
from prm_kit.records import Solution
from prm_kit.step_reading import StepReading

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Overlong = Literal["refuse", "window"]

_CHUNK = 16_384  # texts tokenised in one call: bounds the memory of the tokenizer's own result objects


class TooLongError(InputError):
    """A solution, or one step of it with its prompt, has more tokens than fit.

    Attributes:
        solution_id: The solution.
        tokens: What it needs; None: a server refused it, and the message has what it said.
        limit: What is allowed; None as above.
        step: The step that does not fit; None: the solution as a whole does not.
    """

    def __init__(
        self, reason: str, solution_id: str, tokens: int | None, limit: int | None, step: int | None = None
    ) -> None:
        super().__init__(reason)
        self.solution_id = solution_id
        self.tokens = tokens
        self.limit = limit
        self.step = step


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sequence to feed.

    Attributes:
        solution: Index of the solution in what was handed over.
        ids: Token ids, the marks included.
        read_positions: Index into `ids` of the mark of each step read here, increasing.
        steps: Index of the step read at each position; as long as `read_positions`.
        prompt_length: How many of the first ids are template and problem.
    """

    solution: int
    ids: list[int]
    read_positions: list[int]
    steps: list[int]
    prompt_length: int


class StepEncoder:
    """Encodes solutions for one tokenizer and one reading.

    Attributes:
        tokenizer: The tokenizer as given; it is not changed.
        reading: Mark and template.
        mark_id: Token id of the mark.

    Raises:
        UsageError: The tokenizer has no tokenizers backend; the mark is not one special token of its vocabulary; the
            mark occurs in the template; or text cannot be kept from turning into the mark.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, reading: StepReading) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UsageError(f"{type(tokenizer).__name__} is a slow tokenizer: convert it to a tokenizer.json first")
        self.tokenizer = tokenizer
        self.reading = reading
        self.mark_id = _mark_id(tokenizer, reading.mark)
        before, after = reading.template.before, reading.template.after
        self._before: list[int] = backend.encode(before, add_special_tokens=False).ids
        # What follows a special token opens a text in the eyes of the tokenizer; what follows the problem does not.
        follows = any(after.startswith(token.content) for token in tokenizer.added_tokens_decoder.values())
        tail = backend if follows else split_of(backend)
        self._after: list[int] = tail.encode(after, add_special_tokens=False).ids
        if self.mark_id in self._before or self.mark_id in self._after:
            raise UsageError(f"the template holds the mark {reading.mark!r}: steps could not be told from it")
        added = set(tokenizer.added_tokens_decoder) - {tokenizer.unk_token_id}
        literal = {self.mark_id} | (added & {*self._before, *self._after})
        self._rest = plain_text_backend(backend, literal=literal, continued=True)
        opens = added.issuperset(self._before)  # only special tokens, if any, stand before the problem
        self._first = plain_text_backend(backend, literal=literal, continued=False) if opens else self._rest

    def encode(
        self,
        solutions: Sequence[Solution],
        max_tokens: int | None = None,
        too_long: Overlong = "refuse",
    ) -> list[Encoded]:
        """Encode solutions, in order; with "refuse" exactly one result a solution.

        Args:
            solutions: What to encode.
            max_tokens: Most ids a sequence may have; None: no limit.
            too_long: What to do with a solution beyond it. "refuse": raise. "window": several sequences, each the
                prompt and a contiguous run of steps; each step is read in exactly one of them, the one in which it
                has the most preceding steps that fit.

        Raises:
            TooLongError: Naming the solution, its tokens and the limit.
        """
        problems = self._encode_texts(self._first, {solution.problem for solution in solutions})
        pieces = [_step_texts(solution) for solution in solutions]
        texts = self._encode_texts(self._rest, {text for piece in pieces for text in piece})
        found: list[Encoded] = []
        for index, (solution, piece) in enumerate(zip(solutions, pieces, strict=True)):
            prompt = [*self._before, *problems[solution.problem], *self._after]
            steps = [[*texts[text], self.mark_id] for text in piece]
            found += sequences(index, solution, prompt, steps, max_tokens, too_long)
        return found

    @staticmethod
    def _encode_texts(backend: object, unique: Iterable[str]) -> dict[str, list[int]]:
        texts = list(unique)
        found: dict[str, list[int]] = {}
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            done = backend.encode_batch_fast(chunk, add_special_tokens=False)  # type: ignore[attr-defined]
            found.update(zip(chunk, (encoding.ids for encoding in done), strict=True))
        return found


def _mark_id(tokenizer: PreTrainedTokenizerBase, mark: str) -> int:
    found = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
    if mark not in found:
        raise UsageError(
            f"the mark {mark!r} is no special token of this tokenizer: choose a reserved one, or add it with "
            "tokenizer.add_tokens(..., special_tokens=True) and resize the model's embeddings"
        )
    return found[mark]


def _step_texts(solution: Solution) -> list[str]:
    ends = [0, *(end for _, end in solution.spans)]
    return [solution.completion[start:end] for start, end in pairwise(ends)]


def sequences(
    index: int,
    solution: Solution,
    prompt: Sequence[int],
    steps: Sequence[Sequence[int]],
    max_tokens: int | None,
    too_long: Overlong,
    read_back: int = 0,
) -> list[Encoded]:
    """Put prompt and steps together: one sequence, or the windows of a solution that is too long.

    Args:
        index: Of the solution in what was handed over.
        solution: For messages.
        prompt: Ids of template and problem.
        steps: Ids of each step, its mark included.
        max_tokens: Most ids a sequence may have; None: no limit.
        too_long: See `StepEncoder.encode`.
        read_back: How many ids before its last one a step is read.

    Raises:
        TooLongError: Naming the solution, its tokens and the limit.
    """
    lengths = [len(step) for step in steps]
    length = len(prompt) + sum(lengths)
    if max_tokens is None or length <= max_tokens:
        runs = [(0, 0, len(steps))]
    elif too_long == "refuse":
        reason = f"solution {solution.id}: {length} tokens, more than the {max_tokens} allowed"
        raise TooLongError(reason, solution.id, length, max_tokens)
    else:
        runs = step_windows(solution, len(prompt), lengths, max_tokens)
    found = []
    for first, read_from, end in runs:
        ids, positions = list(prompt), []
        for step in range(first, end):
            ids += steps[step]
            if step >= read_from:
                positions.append(len(ids) - 1 - read_back)
        found.append(Encoded(index, ids, positions, list(range(read_from, end)), len(prompt)))
    return found


def step_windows(solution: Solution, prompt: int, lengths: Sequence[int], limit: int) -> list[tuple[int, int, int]]:
    """Runs of steps that fit: each step is read where it has the most preceding steps.

    Args:
        solution: For the message.
        prompt: Tokens of the prompt, which every run repeats.
        lengths: Tokens of each step, its mark included.
        limit: Most tokens of a run.

    Returns:
        For each run its first step, the first step read in it, and its end.

    Raises:
        TooLongError: A step does not fit beside the prompt.
    """
    runs: list[tuple[int, int, int]] = []
    first = 0
    size = prompt
    for step, length in enumerate(lengths):
        if prompt + length > limit:
            raise TooLongError(
                f"solution {solution.id}: step {step} has {prompt + length} tokens with its prompt, "
                f"more than the {limit} allowed",
                solution.id,
                prompt + length,
                limit,
                step,
            )
        size += length
        moved = False
        while size > limit:
            size -= lengths[first]
            first += 1
            moved = True
        if moved or not runs:
            runs.append((first, step, step + 1))
        else:
            runs[-1] = (first, runs[-1][1], step + 1)
    return runs
