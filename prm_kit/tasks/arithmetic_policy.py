"""Tokenizer and untrained policy of the embedded task, built in code: nothing is fetched."""

from __future__ import annotations

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

STEP_MARK = "<|step|>"
"""A reserved token that no text contains: where a PRM reads a step."""

_SPECIAL = ("<|pad|>", "<|end|>", "<|unknown|>", STEP_MARK)
_WORDS = (
    "Start with ",
    ", add ",
    ", subtract ",
    ", times ",
    ".",
    "\n",
    "So far ",
    "Answer: ",
    " + ",
    " - ",
    " * ",
    " = ",
    *(f"Step {number}: " for number in range(1, 10)),
    *(str(digit) for digit in range(10)),
)


def arithmetic_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of the embedded task: a phrase or a digit is one token, and decoding gives the text back.

    A character that the task never writes becomes one unknown token.
    """
    vocabulary = {token: number for number, token in enumerate((*_SPECIAL, *_WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unknown|>"))  # noqa: S106
    longest_first = sorted(_WORDS, key=len, reverse=True)
    words = "|".join(word.replace(".", r"\.").replace("+", r"\+").replace("*", r"\*") for word in longest_first)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"{words}|[\\s\\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",  # noqa: S106
        eos_token="<|end|>",  # noqa: S106
        unk_token="<|unknown|>",  # noqa: S106
        extra_special_tokens=[STEP_MARK],
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


def arithmetic_policy(seed: int, hidden: int = 64, layers: int = 3) -> LlamaForCausalLM:
    """An untrained policy for the embedded task: Llama with 0.15M parameters at the default size.

    Not Qwen2: transformers gives every qwen2 checkpoint its own pre-tokenizer when it loads the tokenizer.

    Args:
        seed: Of the initial weights.
        hidden: Hidden size; a multiple of 16.
        layers: Number of layers.
    """
    config = LlamaConfig(
        vocab_size=len(_SPECIAL) + len(_WORDS),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        initializer_range=0.06,  # 1 / sqrt(hidden) would be 0.125; the usual 0.02 makes a model this small start slowly
        attention_bias=True,  # with it heads find "three tokens back" at once; without it learning takes twice as long
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
