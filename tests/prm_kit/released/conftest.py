"""Small twins of published PRMs: random weights, and tokenizers trained here that hold the published marks."""

import json

import pytest
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, MistralConfig, PreTrainedTokenizerFast, Qwen2Config

from prm_kit.records import Solution

SIZE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "initializer_range": 0.6,
}
CONFIGS = {"qwen2": Qwen2Config, "llama": LlamaConfig, "mistral": MistralConfig}
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
)
TEXTS = [
    "What is 12 plus 30? Step 1: We add 12 and 30. Step 2: The sum is 42. user assistant system + - Yes No",
    "Let's think step by step. Question: Answer: the answer is 42, so we are done.",
    "Yes\nNo\ncorrect\nincorrect\n",
    "a \n\n b \n\n\n\n c \n\n\n\n\n d + - \n\n \n",
] * 20


def byte_level(digits, specials, **names):
    """A byte-level BPE as Qwen2 (one digit a piece) and Llama 3 (up to three) have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS + digits + REST), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def sentence_piece(kind):
    """A SentencePiece-like BPE. "legacy": a normalizer puts the dummy prefix before each text; else Metaspace's way."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    words = [text.replace("\n", " ") for text in TEXTS] + ["so x ки"] * 20
    trained.train_from_iterator(words, trainer)
    file = json.loads(trained.to_str())
    file["added_tokens"] = [token for token in file["added_tokens"] if token["id"] < 3]
    tokenizer = Tokenizer.from_str(json.dumps(file))
    if kind == "legacy":
        tokenizer.pre_tokenizer = None
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def qwen():
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"]
    found = byte_level(r"\p{N}", specials, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|endoftext|>")
    found.chat_template = CHATML
    return found


@pytest.fixture(scope="session")
def llama3():
    specials = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    found = byte_level(r"\p{N}{1,3}", specials, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    found.chat_template = LLAMA3
    return found


@pytest.fixture(scope="session")
def mistral():
    return sentence_piece("legacy")


@pytest.fixture(scope="session")
def metaspace():
    """By its scheme: the tokenizer that puts SentencePiece's dummy prefix there."""
    return {scheme: sentence_piece(scheme) for scheme in ("legacy", "first", "always")}


@pytest.fixture
def solutions():
    """Benign solutions of two problems, with shared prefixes, of different lengths."""
    steps = ["We add 12 and 30.", "The sum is 42.", "So the answer is 42, and we are done."]
    return [
        Solution.from_steps("What is 12 plus 30?", steps),
        Solution.from_steps("What is the sum?", steps[1:]),
        Solution.from_steps("What is 12 plus 30?", [steps[0], "The sum is 40."]),
        Solution.from_steps("What is 12 plus 30?", steps[:1]),
    ]


@pytest.fixture(scope="session")
def config_of():
    """Makes the configuration of a twin: config_of(family, tokenizer, **changes)."""

    def make(family, tokenizer, **changes):
        return CONFIGS[family](vocab_size=len(tokenizer), **{**SIZE, "pad_token_id": None, **changes})

    return make


@pytest.fixture(scope="session")
def save_twin():
    """Writes a checkpoint by hand: config.json with `about` added, one safetensors file, the tokenizer."""

    def save(path, config, tensors, tokenizer, **about):
        path.mkdir(parents=True, exist_ok=True)
        tokenizer.save_pretrained(path)
        (path / "config.json").write_text(json.dumps({**config.to_dict(), **about}))
        kept = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
        save_file(kept, path / "model.safetensors")
        return path

    return save
