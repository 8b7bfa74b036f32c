"""EurusPRM: an implicit PRM, whose reward is the log-ratio of two language models summed over the solution.

    score of step k = 0.001 * sum_t log pi(y_t | x, y_<t) - log pi_ref(y_t | x, y_<t),  t up to the end of step k

The authors find the end of step k by rendering the conversation with the first k steps alone and taking its length
less two. So a sum begins one token before the solution; it ends, for all steps but the last, one token after the
blank line that follows the step, and for the last one at the token that closes the turn. Their published numbers are
made so, and so are these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from prm_kit.card import PrmCard
from prm_kit.encode import Encoded, Overlong, TooLongError
from prm_kit.errors import InputError, UsageError
from prm_kit.implicit import ImplicitPrm
from prm_kit.model import Prm
from prm_kit.records import Solution
from prm_kit.released.assembly import chat_parts
from prm_kit.released.checkpoint import Checkpoint, open_checkpoint
from prm_kit.segments import SegmentEncoder, SegmentReading

BETA = 0.001
"""What EurusPRM's model card multiplies the log-ratio by."""

REFERENCE = "Qwen/Qwen2.5-Math-7B-Instruct"
"""The language model that EurusPRM began as."""

_GAP = "\n\n"


class ConversationEncoder(SegmentEncoder):
    """Encodes the whole conversation, the steps joined by blank lines, read where the authors read it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, reading: SegmentReading) -> None:
        super().__init__(tokenizer, reading)
        self._closing = len(self._template(reading.between.rstrip()))
        self._closing_and_gap = len(self._template(reading.between.rstrip() + _GAP))
        self._close = self._template(reading.between)

    def encode(
        self,
        solutions: Sequence[Solution],
        max_tokens: int | None = None,
        too_long: Overlong = "refuse",
    ) -> list[Encoded]:
        """Encode solutions, in order, one sequence each; the sum of the log-ratios begins at `prompt_length`.

        Raises:
            TooLongError: A solution has more tokens than fit; `too_long` changes nothing, as a sum cannot be cut.
        """
        found = []
        for index, solution in enumerate(solutions):
            problem = self._text(self._problem, solution.problem)
            prompt = [*self._before, *problem, *self._after]
            steps = solution.steps
            ids = [*prompt, *self._text(self._first, _GAP.join(steps)), *self._close]
            if max_tokens is not None and len(ids) > max_tokens:
                reason = f"solution {solution.id}: {len(ids)} tokens, more than the {max_tokens} allowed"
                raise TooLongError(reason, solution.id, len(ids), max_tokens)
            ends = [len(prompt) + len(self._text(self._first, _GAP.join(steps[: k + 1]))) for k in range(len(steps))]
            # The rendered length less two is an index into predictions, which stand one before what they predict.
            reads = [end + self._closing_and_gap - 1 for end in ends[:-1]]
            reads += [end + self._closing - 1 for end in ends[-1:]]
            found.append(Encoded(index, ids, reads, list(range(len(steps))), len(prompt) + self._closing - 2))
        return found


def eurus(checkpoint: Checkpoint) -> Prm:
    """EurusPRM-Stage1 and -Stage2 (arXiv 2412.01981), against Qwen2.5-Math-7B-Instruct unless another is named.

    Raises:
        UsageError: The reference is neither named nor to be had.
        InputError: The two vocabularies differ.
    """
    try:
        reference = open_checkpoint(checkpoint.reference or REFERENCE, checkpoint.device, checkpoint.dtype)
    except InputError as error:
        if checkpoint.reference:
            raise
        raise UsageError(f"{error}; name the folder of the reference model with `reference`") from None
    if checkpoint.tokenizer.get_vocab() != reference.tokenizer.get_vocab():
        raise InputError(f"{reference.name}: its vocabulary is not that of {checkpoint.name}: not its reference")
    roles: list[tuple[str, str | None]] = [("user", None), ("assistant", None)]
    before, after, close = chat_parts(checkpoint, roles)
    encoder = ConversationEncoder(checkpoint.tokenizer, SegmentReading(before=before, after=after, between=close))
    model: Any = checkpoint.causal()
    card = PrmCard(
        reading=encoder.reading,
        mark_id=encoder.mark_id,
        readout="unbounded",
        kind="implicit",
        beta=BETA,
        step_score="cumulative",
        target="outcome",
        max_tokens=getattr(model.config, "max_position_embeddings", None),
        base_model=checkpoint.published or checkpoint.name,
    )
    return ImplicitPrm(model, checkpoint.tokenizer, card, reference.causal(), encoder)
