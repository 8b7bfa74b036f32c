"""PRMs that are causal language models and say a step's worth by the next token: one token for right, one for wrong.

Two rows of the output layer are all that is read, so each is a token-classification model with two outputs; no
(tokens x vocabulary) tensor is made. Softmax over these two logits, as the authors do it; a softmax over the whole
vocabulary, as some evaluations do it, gives other numbers.
"""

from __future__ import annotations

from prm_kit.errors import InputError
from prm_kit.model import Prm
from prm_kit.released.assembly import chat_parts, one_token, released_prm
from prm_kit.released.checkpoint import Checkpoint, linear
from prm_kit.segments import SegmentReading


def math_shepherd(checkpoint: Checkpoint) -> Prm:
    """Math-Shepherd (arXiv 2312.08935), peiyi9979/math-shepherd-mistral-7b-prm.

    "{problem} Step 1: {step} ки", newline, "Step 2: {step} ки"; read at the mark; " +" against " -".
    """
    one_token(checkpoint, " ки", 12902)
    reading = SegmentReading(
        before=checkpoint.special("bos"),
        first_lead=" Step {number}: ",
        lead="\nStep {number}: ",
        own_numbers=False,
        mark=" ки",
    )
    return _pair(checkpoint, reading, good=(" +", 648), bad=(" -", 387))


def math_psa(checkpoint: Checkpoint) -> Prm:
    """OpenR's Math-psa (arXiv 2410.09671), openreasoner/Math-psa: as Math-Shepherd, with a run of newlines as mark."""
    mark = " \n\n\n\n\n"
    one_token(checkpoint, mark, 76325)
    reading = SegmentReading(first_lead=" Step {number}: ", lead="Step {number}: ", own_numbers=False, mark=mark)
    return _pair(checkpoint, reading, good=(" +", 488), bad=(" -", 481))


def versaprm(checkpoint: Checkpoint) -> Prm:
    r"""VersaPRM (arXiv 2502.06737), whole (VersaPRM-Base-8B) or an adapter on Llama-PRM800K (VersaPRM).

    Problem, " \n\n", then each step with " \n\n\n\n" behind it. The authors list "-" first and take the second.
    """
    mark = " \n\n\n\n"
    one_token(checkpoint, mark, 23535)
    reading = SegmentReading(before=checkpoint.special("bos"), problem_after=" \n\n", mark=mark)
    return _pair(checkpoint, reading, good=("+", 10), bad=("-", 12))


def rlhflow(checkpoint: Checkpoint) -> Prm:
    """RLHFlow/Llama3.1-8B-PRM-Mistral-Data and -Deepseek-Data (arXiv 2405.07863).

    A chat: each step is a user's turn, the first one with the problem, and each answer is "+", also where the model
    would say "-". A step is read at the token before that answer, wherever the chat template puts it.
    """
    turns: list[tuple[str, str | None]] = [("user", None), ("assistant", None)] * 2
    before, opens, closes, again, _ = chat_parts(checkpoint, turns)
    if opens != again:
        raise InputError(f"{checkpoint.name}: the chat template does not render all turns alike")
    reading = SegmentReading(before=before, first_lead=" ", mark=opens, between=f"+{closes}", trim=True)
    return _pair(checkpoint, reading, good=("+", 10), bad=("-", 12))


def _pair(checkpoint: Checkpoint, reading: SegmentReading, good: tuple[str, int], bad: tuple[str, int]) -> Prm:
    ids = [one_token(checkpoint, *bad), one_token(checkpoint, *good)]
    trunk, rows_2D = checkpoint.trunk_and_rows(ids)
    return released_prm(checkpoint, trunk, linear(rows_2D), reading, "binary")
