"""From the parts of a published checkpoint to a PRM: head on trunk, marks in the vocabulary, chats in parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from prm_kit.backbone import with_head
from prm_kit.card import PrmCard, ReadoutName, tokenizer_fingerprint
from prm_kit.errors import InputError
from prm_kit.model import Prm
from prm_kit.plain_text import split_of
from prm_kit.readout import READOUTS
from prm_kit.records import NeutralPolicy
from prm_kit.released.checkpoint import Checkpoint
from prm_kit.segments import SegmentEncoder, SegmentReading


def released_prm(
    checkpoint: Checkpoint,
    trunk: PreTrainedModel,
    head: nn.Module,
    reading: SegmentReading,
    readout: ReadoutName,
    *,
    neutral_policy: NeutralPolicy = "keep",
) -> Prm:
    """A published PRM as a `Prm`: its trunk under the head that reads it, in evaluation mode.

    Args:
        checkpoint: Where it comes from.
        trunk: The decoder.
        head: Hidden states [N, D] to outputs [N, K], in float32.
        reading: Its layout.
        readout: What the outputs are.
        neutral_policy: What its training made of the label 0, where that is known.

    Raises:
        InputError: The head fits neither the trunk nor the read-out.
    """
    tokenizer = checkpoint.tokenizer
    config: Any = trunk.config
    encoder = SegmentEncoder(tokenizer, reading)
    layers = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    width = config.hidden_size
    for layer in layers:
        if layer.in_features != width:
            raise InputError(f"{checkpoint.name}: the head reads {layer.in_features} numbers of {width}")
        width = layer.out_features
    outputs = layers[-1].out_features
    if not READOUTS[readout].fits(outputs):
        raise InputError(
            f"{checkpoint.name}: the head has {outputs} outputs, not {len(READOUTS[readout].labels)} as this PRM does"
        )
    model = with_head(trunk, config.pad_token_id, READOUTS[readout].id2label(outputs))
    model.score = head.to(trunk.device).requires_grad_(False)
    card = PrmCard(
        reading=reading,
        mark_id=encoder.mark_id,
        readout=readout,
        neutral_policy=neutral_policy,
        max_tokens=getattr(config, "max_position_embeddings", None),
        base_model=checkpoint.published or checkpoint.name,
        tokenizer_sha256=tokenizer_fingerprint(encoder),
    )
    return Prm(model, tokenizer, card)


def one_token(checkpoint: Checkpoint, text: str, published: int | None = None) -> int:
    """The single token that a text is, where it continues a text.

    Args:
        checkpoint: Whose tokenizer.
        text: The text; special tokens in it are parsed.
        published: The id that the authors' code names; compared where the checkpoint comes from the hub.

    Raises:
        InputError: The text is several tokens, or has another id than the published vocabulary gives it.
    """
    ids = split_of(checkpoint.backend).encode(text, add_special_tokens=False).ids
    if len(ids) != 1:
        raise InputError(
            f"{checkpoint.name}: the tokenizer makes {len(ids)} tokens of {text!r}, not one: "
            "not the tokenizer of this PRM"
        )
    if checkpoint.published and published is not None and ids[0] != published:
        raise InputError(
            f"{checkpoint.name}: {text!r} is token {ids[0]} of the tokenizer, but {published} in the published "
            "vocabulary: another tokenizer"
        )
    return int(ids[0])


def chat_parts(checkpoint: Checkpoint, roles: Sequence[tuple[str, str | None]], generate: bool = False) -> list[str]:
    """What a chat template writes before, between and behind the contents of a conversation.

    Args:
        checkpoint: Whose template.
        roles: For each message its role, and its content; None stands for text that is filled in later.
        generate: Whether the template adds its prompt for a reply.

    Returns:
        One part more than there are contents to fill in.

    Raises:
        InputError: There is no template, or it cannot be rendered, or does not show each content once and in order.
    """
    tokenizer = checkpoint.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(f"{checkpoint.name}: the tokenizer has no chat template, which this PRM is read with")
    # Private-use characters: no template holds or trims them. Each content has its own, so that order can be checked.
    marks = [f"\ue0f1{chr(0xE100 + index)}\ue0f3" for index in range(len(roles))]
    messages = [
        {"role": role, "content": mark if content is None else content}
        for (role, content), mark in zip(roles, marks, strict=True)
    ]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate))
    except Exception as error:  # a template is foreign code: whatever it raises is its own
        raise InputError(f"{checkpoint.name}: the chat template cannot be rendered: {error}") from None
    parts = []
    for (_, content), mark in zip(roles, marks, strict=True):
        if content is None:
            if text.count(mark) != 1:
                raise InputError(
                    f"{checkpoint.name}: the chat template shows a message {text.count(mark)} times, not once"
                )
            part, text = text.split(mark)
            parts.append(part)
    return [*parts, text]
