"""From a causal language model to a token-classification model with a fresh head."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from prm_kit.errors import InputError, UsageError
from prm_kit.weights import tensor_files


def load_trunk(source: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    """Load the decoder of a causal language model, without its output layer.

    Args:
        source: Directory (safetensors, or one .gguf file and no config.json), or hub id.
        dtype: Number format of the weights.

    Raises:
        InputError: It is absent, damaged, no safetensors, or brings its own code.
    """
    gguf = _gguf_file(source)
    with quiet(), _as_input_error(f"{source}: the backbone cannot be loaded"):
        if gguf:
            plain = GgufConfig(dequantize=True)
            whole: Any = AutoModelForCausalLM.from_pretrained(
                source, gguf_file=gguf, dtype=dtype, quantization_config=plain
            )
            return whole.base_model  # type: ignore[no-any-return]
        _check_weights(source)
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if getattr(config, "auto_map", None):
            raise InputError(f"{source}: the model brings its own code (auto_map), which is never run")
        trunk: Any = AutoModel.from_pretrained(source, dtype=dtype, use_safetensors=True, trust_remote_code=False)
        return trunk  # type: ignore[no-any-return]


def load_language_model(source: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    """Load a whole causal language model, its output layer included.

    Args:
        source: As `load_trunk` takes it.
        dtype: Number format of the weights.

    Raises:
        InputError: As `load_trunk`, or tensors are missing, such as those of the output layer.
    """
    gguf = _gguf_file(source)
    options = {"gguf_file": gguf, "quantization_config": GgufConfig(dequantize=True)} if gguf else {}
    with quiet(), _as_input_error(f"{source}: the language model cannot be loaded"):
        if not gguf:
            _check_weights(source)
        if not gguf and getattr(AutoConfig.from_pretrained(source, trust_remote_code=False), "auto_map", None):
            raise InputError(f"{source}: the model brings its own code (auto_map), which is never run")
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=None if gguf else True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    model, info = loaded
    wrong = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in info[kind])
    if wrong:
        raise InputError(f"{source}: {len(wrong)} tensors are missing or of another shape, such as {wrong[0]}")
    model.train(mode=False)
    return model  # type: ignore[no-any-return]


def output_layer(language_model: PreTrainedModel) -> nn.Linear:
    """The layer from hidden states to the logits of the vocabulary.

    Raises:
        UsageError: The model has none, or it is no linear layer.
    """
    model: Any = language_model
    layer = model.get_output_embeddings()
    if not isinstance(layer, nn.Linear):
        raise UsageError(f"{type(model).__name__} has no linear output layer")
    return layer


def copy_trunk(model: PreTrainedModel) -> PreTrainedModel:
    """The decoder of a built model, copied: training the one leaves the other alone."""
    trunk: PreTrainedModel = copy.deepcopy(model.base_model)  # type: ignore[assignment]
    return trunk


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a directory (also beside a .gguf file) or hub id.

    Raises:
        InputError: It is absent, damaged, or brings its own code.
    """
    gguf = _gguf_file(source)
    with quiet(), _as_input_error(f"{source}: the tokenizer cannot be loaded"):
        tokenizer: PreTrainedTokenizerBase
        if (Path(source) / "tokenizer.json").is_file():
            # AutoTokenizer goes by the model type, and for some types replaces the pipeline that the file describes.
            tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
        else:
            options = {"gguf_file": gguf} if gguf else {}
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    return tokenizer


def ensure_mark(tokenizer: PreTrainedTokenizerBase, trunk: Any, mark: str) -> None:
    """Add the mark to a vocabulary that lacks it, with the mean of all embeddings as its own.

    Embeddings grow only where they have no row to spare.
    """
    if mark in {token.content for token in tokenizer.added_tokens_decoder.values()}:
        return
    tokenizer.add_tokens([mark], special_tokens=True)
    index: int = tokenizer.convert_tokens_to_ids(mark)  # type: ignore[assignment]
    rows = trunk.get_input_embeddings().weight.shape[0]
    mean_D = trunk.get_input_embeddings().weight[: min(index, rows)].detach().float().mean(dim=0)
    if index >= rows:
        trunk.resize_token_embeddings(index + 1, mean_resizing=False)
    with torch.no_grad():
        trunk.get_input_embeddings().weight[index] = mean_D


def with_head(
    trunk: PreTrainedModel, pad_token_id: int, id2label: Mapping[int, str], *, seed: int = 0
) -> PreTrainedModel:
    """Put a head on a trunk: float32, small seeded weights, a bias that is zero and not trained, no dropout.

    Args:
        trunk: The decoder; it becomes part of the model.
        pad_token_id: Written into the configuration.
        id2label: Name of each output: there are as many outputs.
        seed: Of the weights.

    Raises:
        UsageError: transformers has no token-classification model of this family, or its head is not called `score`.
    """
    config: Any = trunk.config
    family: Any = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING.get(type(config), None)
    if family is None:
        raise UsageError(f"transformers has no token-classification model of the family {config.model_type!r}")
    config.id2label = dict(id2label)
    config.label2id = {label: index for index, label in id2label.items()}
    config.classifier_dropout = config.hidden_dropout = 0.0
    config.pad_token_id = pad_token_id
    with torch.device("meta"):
        model: Any = family(config)
    if not isinstance(getattr(model, "score", None), nn.Linear):
        raise UsageError(f"the head of {family.__name__} is not called `score`, so that servers could not load it")
    setattr(model, model.base_model_prefix, trunk)
    width: int = model.score.in_features
    head = nn.Linear(width, len(id2label), dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.normal_(0.0, 0.1 / width**0.5, generator=generator)
        head.bias.zero_()
    head.bias.requires_grad = False
    model.score = head.to(trunk.device)
    model.train(mode=False)
    return model  # type: ignore[no-any-return]


def first_line(error: Exception) -> str:
    """Kind and first line of a foreign error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's progress bars, and its report that the head is new, off the terminal."""
    logging: Any = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _as_input_error(what: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # damaged, absent or foreign files end in many kinds of error
        raise InputError(f"{what}: {first_line(error)}") from None


def _check_weights(source: str | Path) -> None:
    """Refuse a folder whose weights are pickles, damaged or incomplete, before the library opens them."""
    if (Path(source) / "config.json").is_file():
        tensor_files(Path(source))


def _gguf_file(source: str | Path) -> str | None:
    directory = Path(source)
    if not directory.is_dir() or (directory / "config.json").exists():
        return None
    files = sorted(directory.glob("*.gguf"))
    if len(files) > 1:
        raise UsageError(f"{source}: {len(files)} .gguf files; leave one")
    return files[0].name if files else None
