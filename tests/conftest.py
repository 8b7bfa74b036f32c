import os

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Qwen2Model

# Models this small gain nothing from a second thread, and threads that wait for a busy core take many times as long.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start

WORDS = ["[UNK]", "[PAD]", "<|prm_step|>", *map(str, range(20)), "+", "=", "?", "\n", "so", "again"]


@pytest.fixture(scope="session")
def backbone(tmp_path_factory) -> str:
    """A two-layer Qwen2 with random weights and a word-level tokenizer, in a folder."""
    return _saved(tmp_path_factory.mktemp("backbone"), Qwen2Model, WORDS)


@pytest.fixture(scope="session")
def language_model(tmp_path_factory) -> str:
    """The same with an output layer that is tied to the embeddings, and a token for "-"."""
    return _saved(tmp_path_factory.mktemp("language_model"), Qwen2ForCausalLM, [*WORDS, "-"], tie_word_embeddings=True)


def _saved(path, family, words, **changes) -> str:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", extra_special_tokens=["<|prm_step|>"]
    )
    fast.save_pretrained(path)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        **changes,
    )
    family(config).save_pretrained(path)
    return str(path)
