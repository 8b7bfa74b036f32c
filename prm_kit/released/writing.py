"""What generative PRMs are read with: conversations as token ids, text up to a stop, and the odds of a next token."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prm_kit.batching import micro_batches
from prm_kit.engines.engine import Engine, Limits
from prm_kit.errors import InputError
from prm_kit.plain_text import plain_text_backend
from prm_kit.released.assembly import chat_parts
from prm_kit.released.checkpoint import Checkpoint

_CHUNK = 128  # tokens written between two looks for a stop


@dataclass(frozen=True)
class Written:
    """What a model wrote.

    Attributes:
        ids: Token ids, up to the one that completes the stop.
        text: The same as text.
        stop: The stop string that ended it; None: the model ended by itself or reached the limit.
    """

    ids: list[int]
    text: str
    stop: str | None


class Chat:
    """Conversations of one checkpoint as token ids.

    The ids are those of the rendered conversation as one text, but for one thing: special tokens are parsed in the
    template alone, never in what is filled in.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.tokenizer: Any = checkpoint.tokenizer
        self._special = {token.content: index for index, token in self.tokenizer.added_tokens_decoder.items()}
        by_length = sorted(self._special, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, by_length))})" if by_length else "(?!)")
        template = str(getattr(self.tokenizer, "chat_template", "") or "")
        named = {index for content, index in self._special.items() if content in template}
        self._plain = plain_text_backend(checkpoint.backend, literal=named, continued=True)

    def ids(
        self, roles: Sequence[tuple[str, str | None]], contents: Sequence[str], tail: str, reply: bool
    ) -> list[int]:
        """Token ids of a conversation.

        Args:
            roles: See `chat_parts`.
            contents: What is filled in, in order.
            tail: Text that the model's answer begins with.
            reply: Whether the template opens the answer; otherwise its last end-of-sequence token is left out, so
                that the tail follows the last message.
        """
        parts = chat_parts(self.checkpoint, roles, generate=reply)
        if not reply:
            eos = self.checkpoint.special("eos")
            parts[-1] = parts[-1].removesuffix("\n") if parts[-1].endswith(f"{eos}\n") else parts[-1]
            parts[-1] = parts[-1].removesuffix(eos)
        ids: list[int] = []
        run = ""  # all text between two special tokens is tokenised as one
        for part, content in zip(parts, [*contents, tail], strict=True):
            for piece in self._split.split(part):
                if piece in self._special:
                    ids += [*self._text(run), self._special[piece]]
                    run = ""
                else:
                    run += piece
            run += content
        return [*ids, *self._text(run)]

    def _text(self, text: str) -> list[int]:
        return list(self._plain.encode(text, add_special_tokens=False).ids) if text else []

    def first_token(self, text: str) -> int:
        """The token that a text begins with, where it continues a text."""
        return self._text(text)[0]


def write_until(
    engine: Engine,
    chat: Chat,
    prefixes: Sequence[Sequence[int]],
    stops: Sequence[Sequence[str]],
    max_new_tokens: int,
    temperature: float,
    seed: Sequence[int],
) -> list[Written]:
    """Continue each prefix until one of its stop strings, the end-of-sequence token, or the limit.

    Args:
        engine: Generates.
        chat: Whose tokenizer.
        prefixes: Token ids.
        stops: For each prefix its stop strings.
        max_new_tokens: Most tokens each may write.
        temperature: 0 takes the likeliest token.
        seed: Of the sampling, numbers that no other text of the same conversation has. Each piece of a text draws with
            numbers of its own, which do not depend on what is written beside it.
    """
    eos = chat.tokenizer.eos_token_id
    found: list[Written | None] = [None] * len(prefixes)
    ids: list[list[int]] = [[] for _ in prefixes]
    for done in range(0, max_new_tokens, _CHUNK):
        open_ = [index for index, written in enumerate(found) if written is None]
        if not open_:
            break
        limits = Limits(min(_CHUNK, max_new_tokens - done), (eos,), temperature, _seed_of(*seed, done))
        asked = [[*prefixes[index], *ids[index]] for index in open_]
        for index, (rollout,) in zip(open_, engine.generate(asked, 1, limits), strict=True):
            ended = rollout.finish == "stop"
            ids[index] += rollout.ids[:-1] if ended else rollout.ids
            found[index] = _stopped(chat, ids[index], stops[index], ended or done + _CHUNK >= max_new_tokens)
    return [Written(one, _decode(chat, one), None) if w is None else w for one, w in zip(ids, found, strict=True)]


def _seed_of(*numbers: int) -> int:
    digest = hashlib.blake2b(" ".join(map(str, numbers)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "little")


def _stopped(chat: Chat, ids: list[int], stops: Sequence[str], ended: bool) -> Written | None:
    text = _decode(chat, ids)
    places = sorted((text.index(stop), stop) for stop in stops if stop in text)
    if not places:
        return Written(ids, text, None) if ended else None
    stop = places[0][1]
    low, high = 1, len(ids)  # the fewest tokens that hold the stop
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if stop in _decode(chat, ids[:middle]) else (middle + 1, high)
    return Written(ids[:low], text[: places[0][0] + len(stop)], stop)


def _decode(chat: Chat, ids: Sequence[int]) -> str:
    return str(chat.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def token_at(chat: Chat, ids: Sequence[int], offset: int) -> int:
    """Index of the token that writes the character at an offset of the decoded text."""
    low, high = 0, len(ids) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_decode(chat, ids[: middle + 1])) > offset else (middle + 1, high)
    return low


def next_log_probabilities(
    model: PreTrainedModel, prefixes: Sequence[Sequence[int]], names: Sequence[str], token_budget: int
) -> Tensor:
    """Log-probabilities [P, V] of the token that follows each prefix, float32.

    Raises:
        InputError: One is not a number; the prefix is named.
    """
    found: list[Tensor] = [torch.empty(0)] * len(prefixes)
    training = model.training
    model.train(False)
    try:
        with torch.inference_mode():
            for batch in micro_batches(range(len(prefixes)), [len(prefix) for prefix in prefixes], token_budget):
                log_PV = _last_logits(model, [prefixes[index] for index in batch]).float().log_softmax(-1).cpu()
                for index, row_V in zip(batch, log_PV, strict=True):
                    found[index] = row_V
    finally:
        model.train(training)
    rows_PV = torch.stack(found)
    for name, row_V in zip(names, rows_PV, strict=True):
        if not row_V.isfinite().all():
            raise InputError(f"{name}: the score is not a number")
    return rows_PV


def _last_logits(model: PreTrainedModel, prefixes: Sequence[Sequence[int]]) -> Tensor:
    longest = max(map(len, prefixes))
    ids_PT = torch.tensor([[0] * (longest - len(prefix)) + list(prefix) for prefix in prefixes])
    mask_PT = torch.tensor([[0] * (longest - len(prefix)) + [1] * len(prefix) for prefix in prefixes])
    output = model(
        input_ids=ids_PT.to(model.device),
        attention_mask=mask_PT.to(model.device),
        position_ids=(mask_PT.cumsum(1) - 1).clamp(min=0).to(model.device),
        use_cache=False,
        logits_to_keep=1,
    )
    logits_PV: Tensor = output.logits[:, -1]
    return logits_PV
