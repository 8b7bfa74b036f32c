"""PRMs with a head of their own on a decoder: a linear layer, or two with a ReLU, read at the mark of each step."""

from __future__ import annotations

from torch import nn

from prm_kit.errors import InputError
from prm_kit.model import Prm
from prm_kit.released.assembly import one_token, released_prm
from prm_kit.released.checkpoint import Checkpoint
from prm_kit.segments import SegmentReading

QWEN_SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."
"""From the model cards of Qwen2.5-Math-PRM (Apache 2.0). A raw string: in a plain one \\b is a backspace."""

ALPACA = (
    "Below is an instruction that describes a task.\nWrite a response that appropriately completes the request.\n\n"
    "### Instruction:\n",
    "\n\n### Response: Let's think step by step",
)
"""What stands before and behind the problem in PQM's evaluation script (WindyLee0822/Process_Q_Model)."""


def qwen_prm(checkpoint: Checkpoint) -> Prm:
    """Qwen2.5-Math-PRM (arXiv 2501.07301), Qwen2.5-Math-7B-PRM800K, and ReasonFlux-PRM (arXiv 2506.18896).

    ChatML with a system message; `<extra_0>` after every step; Linear, ReLU, Linear(2); class 1 is right.
    """
    one_token(checkpoint, "<extra_0>", 151651)
    reading = SegmentReading(
        before=f"<|im_start|>system\n{QWEN_SYSTEM}<|im_end|>\n<|im_start|>user\n",
        after="<|im_end|>\n<|im_start|>assistant\n",
        mark="<extra_0>",
    )
    head = nn.Sequential(checkpoint.linear("score.0"), nn.ReLU(), checkpoint.linear("score.2"))
    return released_prm(checkpoint, checkpoint.trunk(), head, reading, "binary", neutral_policy="positive")


def skywork(checkpoint: Checkpoint) -> Prm:
    """Skywork-o1-Open-PRM-Qwen-2.5-1.5B and -7B: a value head, sigmoid, read at the newline behind each step.

    The authors cut solutions at newlines; here a step is the caller's, and newlines inside it become spaces.
    """
    one_token(checkpoint, "\n")
    bos = checkpoint.special("bos")
    reading = SegmentReading(before=bos, problem_after="\n", one_line=True, mark="\n", opening="alone")
    return released_prm(checkpoint, checkpoint.trunk(), checkpoint.linear("v_head.summary"), reading, "sigmoid")


def pqm(checkpoint: Checkpoint) -> Prm:
    """PQM (arXiv 2410.11287): a value head at `[PRM]`, trained to rank, so its scores are no probabilities.

    The authors publish weights alone: put the backbone's config.json, and its tokenizer with `[PRM]` added, beside.
    """
    one_token(checkpoint, "[PRM]")
    before, after = ALPACA
    reading = SegmentReading(
        problem_before=before,
        problem_after=after,
        first_lead="\nStep {number}: ",
        lead="\nStep {number}: ",
        tail=" ",
        own_numbers=False,
        trim=True,
        mark="[PRM]",
    )
    return released_prm(checkpoint, checkpoint.trunk(), checkpoint.linear("v_head.summary"), reading, "unbounded")


def reasoneval(checkpoint: Checkpoint) -> Prm:
    """ReasonEval (arXiv 2404.05692), GAIR/ReasonEval-7B and -34B: three classes, (negative, neutral, positive).

    The authors mark the ends of steps while tokenising and take the marks out again. Their script for the 7B model
    then reads each step one token before its last one, that for the 34B model at the last one; so do we.
    """
    seven = "score_dimension" in checkpoint.config
    bos = checkpoint.tokenizer.bos_token
    added = checkpoint.backend.encode("").ids
    reading = SegmentReading(
        before=bos if isinstance(bos, str) and (seven or added) else "",
        problem_before="Question:\n",
        problem_after="\nAnswer:\nLet's think step by step.\n",
        read_back=1 if seven else 0,
        opening="parted",
    )
    return released_prm(checkpoint, checkpoint.trunk(), _head(checkpoint, "score_head", 3), reading, "classes")


def trl(checkpoint: Checkpoint) -> Prm:
    """What TRL's PRMTrainer makes: a token-classification model; class 1 is right.

    A beginning-of-sequence token if there is one, the problem, then each step and TRL's default separator, a newline,
    each tokenised by itself; read at the separator's last token.
    """
    return _token_classification(checkpoint, _bos_if_any(checkpoint), "\n")


def trl_blank_lines(checkpoint: Checkpoint) -> Prm:
    """As TRL's, trained with a blank line as separator, which its files do not say."""
    return _token_classification(checkpoint, _bos_if_any(checkpoint), "\n\n")


def pure(checkpoint: Checkpoint) -> Prm:
    """PURE-PRM-7B (arXiv 2504.15275): as TRL's, without a beginning-of-sequence token. Its reward is p1 - p0."""
    return _token_classification(checkpoint, "", "\n")


def _bos_if_any(checkpoint: Checkpoint) -> str:
    bos = checkpoint.tokenizer.bos_token
    return bos if isinstance(bos, str) else ""


def _token_classification(checkpoint: Checkpoint, before: str, separator: str) -> Prm:
    reading = SegmentReading(before=before, mark=separator, opening="alone")
    head = _head(checkpoint, "score", 2)
    return released_prm(checkpoint, checkpoint.trunk(), head, reading, "binary", neutral_policy="positive")


def _head(checkpoint: Checkpoint, name: str, outputs: int) -> nn.Linear:
    head = checkpoint.linear(name)
    if head.out_features != outputs:
        raise InputError(f"{checkpoint.name}: the head {name} has {head.out_features} outputs, not {outputs}")
    return head
