"""How a chat template ends what the model says."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

_SAID = "\ue0f1\ue0f2\ue0f3"  # private use: no template holds or trims it


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the chat template puts after an answer; None where there is no such template or token.

    It need not be the tokenizer's end of the sequence: a base model that was taught to chat often keeps its own.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _SAID}]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:  # a template is foreign code: whatever it raises is its own, and it then says nothing of ends
        return None
    _, said, after = text.partition(_SAID)
    if not said:
        return None
    for number, token in tokenizer.added_tokens_decoder.items():
        if token.special and after.lstrip().startswith(token.content):
            return int(number)
    return None
