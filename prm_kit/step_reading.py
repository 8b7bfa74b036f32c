"""How steps are read: the mark after each step, the template around the problem, and their choice for a tokenizer."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

from prm_kit.errors import UsageError
from prm_kit.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NEW_MARK = "<|prm_step|>"
"""The mark that is added to a vocabulary that holds no reserved token."""

_RESERVED = (
    r"<\|?(prm_)?step(_end)?\|?>|\[STEP\]",
    r"<\|?extra_(id_)?\d+\|?>",
    r"<\|?reserved_(special_)?token_?\d+\|?>|<\|reserved_\d+\|>|<SPECIAL_\d+>|\[control_\d+\]",
    r"<\|?unused_?\d+\|?>|\[unused\d+\]|<\|(placeholder|dummy_)\d+\|>",
    r"<\|quad_end\|>|<\|?fim_pad\|?>|<\|?file_sep\|?>|<empty_output>",
)
"""Names of tokens that model families keep in reserve, best first."""


class PromptTemplate(Settings):
    """The template's text around the problem. Special tokens in it are parsed; the problem is always plain text."""

    before: str
    after: str


class StepReading(Settings):
    """How steps are read: the special token put after each step, and the template. Stored in prm.json."""

    mark: str
    template: PromptTemplate


def default_reading(tokenizer: PreTrainedTokenizerBase, chat: bool | None = None) -> StepReading:
    """Choose mark and template for a tokenizer.

    The mark is a special token that the vocabulary keeps in reserve, so that embeddings need not grow and vLLM's STEP
    pooling can read the same positions. Where there is none it is `NEW_MARK`, with a warning: the token must then be
    added to the tokenizer and the embeddings resized (`Prm.from_backbone` does both).

    Args:
        tokenizer: A tokenizer with a tokenizers backend.
        chat: True: the chat template with the problem as the user's message and the generation prompt; False: the
            beginning-of-sequence token if there is one, the problem, a newline; None: chat if there is a template.

    Raises:
        UsageError: `chat` is True and there is no chat template, or it does not show the user's message once.
    """
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if chat and not has_template:
        raise UsageError("the tokenizer has no chat template")
    if has_template if chat is None else chat:
        template = chat_template(tokenizer)
    else:
        template = PromptTemplate(before=tokenizer.bos_token or "", after="\n")
    mark = _reserved_token(tokenizer, template)
    if mark is None:
        warnings.warn(
            f"the vocabulary keeps no special token in reserve: {NEW_MARK} must be added and the embeddings resized",
            stacklevel=2,
        )
        mark = NEW_MARK
    return StepReading(mark=mark, template=template)


def chat_template(tokenizer: PreTrainedTokenizerBase, system_prompt: str | None = None) -> PromptTemplate:
    """What a tokenizer's chat template puts around a user's message, with the beginning of the answer after it.

    Args:
        tokenizer: With a chat template.
        system_prompt: Text of a system message before it; None: what the template does without one.

    Raises:
        UsageError: The template cannot be rendered, or does not show the user's message, or the system prompt, once.
    """
    placeholder = "\ue0f1\ue0f2\ue0f3"  # private use: no template holds or trims it
    messages = [{"role": "user", "content": placeholder}]
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": system_prompt})
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is foreign code: whatever it raises is its own
        raise UsageError(f"the chat template cannot be rendered: {error}") from None
    parts = str(text).split(placeholder)
    if len(parts) != 2:
        raise UsageError(f"the chat template shows the user's message {len(parts) - 1} times, not once")
    if system_prompt is not None and system_prompt.strip() not in parts[0]:
        raise UsageError("the chat template does not show a system prompt")
    return PromptTemplate(before=parts[0], after=parts[1])


def _reserved_token(tokenizer: PreTrainedTokenizerBase, template: PromptTemplate) -> str | None:
    written = f"{template.before}{template.after}{getattr(tokenizer, 'chat_template', None) or ''}"
    named = set(tokenizer.special_tokens_map.values())  # bos, eos, pad and the like have a meaning of their own
    free = [
        token.content
        for _, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.content not in named and token.content not in written
    ]
    for pattern in _RESERVED:
        for content in free:
            if re.fullmatch(pattern, content):
                return content
    return None
