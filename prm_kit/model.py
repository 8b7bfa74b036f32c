"""The PRM: a Hugging Face token-classification model, its tokenizer, and the card that says how to read it.

A checkpoint is a directory that plain `AutoModelForTokenClassification` loads (safetensors, no remote code, three
labels in class order) plus `prm.json`, the card. The head is trained without a bias and stored with a zero one, so
that servers which expect either find it. T tokens, N read positions, D hidden, K classes.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from pydantic import Field, ValidationError
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prm_kit import __version__
from prm_kit.encode import StepEncoder, StepReading, default_reading
from prm_kit.errors import InputError, PrmKitError, UsageError
from prm_kit.files import whole_directory, write_json
from prm_kit.records import LABEL_VALUES, Solution
from prm_kit.settings import Settings

NeutralPolicy = Literal["keep", "positive", "negative", "drop", "half"]

ID2LABEL = {0: "-1", 1: "0", 2: "+1"}
"""What the three outputs mean, in the project's class order."""

_PROBE = Solution.from_steps("Find x² if 3x = 12.", ["Step 1: x = 12 / 3 = 4.", "因此 x² = 16\n\\boxed{16}"])
"""What the card keeps the token ids of: another tokenizer shows itself by them."""


class PrmCard(Settings):
    """prm.json: everything about a PRM that its weights do not say.

    Attributes:
        reading: Mark and template.
        mark_id: Token id of the mark.
        labels: What the classes stand for, in class order.
        neutral_policy: What training made of the label 0.
        target: What it was trained on: labels of steps, or final correctness alone (an outcome model).
        max_tokens: Most tokens of a sequence; None: no limit known.
        aggregation: How step scores make a solution's score unless asked otherwise.
        temperature: Logits are divided by it before the softmax (calibration).
        base_model: Name or path of the backbone.
        training_data: Hashes of the manifests of the training data.
        probe_ids: Token ids of a fixed solution, to recognise the tokenizer by.
        prm_kit: Version that wrote the card.
    """

    schema_version: Literal[1] = 1
    reading: StepReading
    mark_id: int
    labels: tuple[int, ...] = LABEL_VALUES
    neutral_policy: NeutralPolicy = "keep"
    target: Literal["steps", "outcome"] = "steps"
    max_tokens: int | None = Field(default=None, gt=0)
    aggregation: Literal["min", "last", "product", "mean"] = "min"
    temperature: float = Field(default=1.0, gt=0)
    base_model: str = ""
    training_data: tuple[str, ...] = ()
    probe_ids: tuple[int, ...] = ()
    prm_kit: str = __version__


class Prm:
    """A process reward model.

    Attributes:
        model: The `*ForTokenClassification` model: trunk, and the head `score` in float32.
        tokenizer: Its tokenizer.
        card: How it is read and where it comes from.
        encoder: Solutions to token ids, as the card says.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: PrmCard) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.card = card
        self.encoder = StepEncoder(tokenizer, card.reading)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def trunk(self) -> nn.Module:
        """The decoder without the head."""
        trunk: nn.Module = getattr(self.model, self.model.base_model_prefix)
        return trunk

    def read_logits(
        self,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor | None,
        row_N: Tensor,
        position_N: Tensor,
        position_ids_BT: Tensor | None = None,
        **attention: Any,
    ) -> Tensor:
        """Run the trunk, and the head at the read positions only.

        Args:
            input_ids_BT: Token ids.
            attention_mask_BT: 1 for tokens, 0 for padding (on the right); None: no padding.
            row_N: Row of each read position.
            position_N: Column of each read position.
            position_ids_BT: Positions for the rotary embedding; None: 0, 1, 2, ...
            attention: Handed on to the attention layers.

        Returns:
            Logits [N, 3] in float32, classes in the order (-1, 0, +1).
        """
        hidden_BTD = self.trunk(
            input_ids=input_ids_BT,
            attention_mask=attention_mask_BT,
            position_ids=position_ids_BT,
            use_cache=False,
            **attention,
        ).last_hidden_state
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            logits_NK: Tensor = self.model.score(hidden_BTD[row_N, position_N].float())
        return logits_NK

    @classmethod
    def from_backbone(
        cls,
        source: str | Path | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        reading: StepReading | None = None,
        neutral_policy: NeutralPolicy = "keep",
        target: Literal["steps", "outcome"] = "steps",
        max_tokens: int | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Prm:
        """Put a fresh head on a causal language model.

        Args:
            source: Directory (safetensors, or one .gguf file), hub id, or a built model, whose trunk is copied.
            tokenizer: Its tokenizer; needed with a built model, otherwise loaded from `source`. It is copied.
            reading: Mark and template; None: `default_reading`. A mark that the vocabulary lacks is added, and the
                embeddings are resized if they have no row for it.
            neutral_policy: Written into the card.
            target: Written into the card.
            max_tokens: Most tokens of a sequence; None: what the backbone's configuration says.
            seed: Seed of the head's weights.
            device: Where to put it.
            dtype: Of the trunk; None: float32 on the CPU, bfloat16 elsewhere. The head is always float32.

        Raises:
            InputError: The checkpoint cannot be loaded.
            UsageError: The family has no token-classification head called `score`, or the tokenizer does not fit.
        """
        dtype = dtype or default_dtype(device)
        if isinstance(source, PreTrainedModel):
            if tokenizer is None:
                raise UsageError("a built model needs its tokenizer")
            trunk, base = copy.deepcopy(source.base_model), str(source.config.name_or_path or "")
        else:
            trunk, base = _load_trunk(source, dtype), str(source)
            tokenizer = tokenizer or _load_tokenizer(source)
        tokenizer = copy.deepcopy(tokenizer)
        reading = reading or default_reading(tokenizer)
        _ensure_mark(tokenizer, trunk, reading.mark)
        trunk.to(device=device, dtype=dtype)
        encoder = StepEncoder(tokenizer, reading)
        model = _with_head(trunk, tokenizer, encoder.mark_id, seed)
        card = PrmCard(
            reading=reading,
            mark_id=encoder.mark_id,
            neutral_policy=neutral_policy,
            target=target,
            max_tokens=max_tokens or getattr(model.config, "max_position_embeddings", None),
            base_model=base,
            probe_ids=tuple(encoder.encode([_PROBE])[0].ids),
        )
        return cls(model, tokenizer, card)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Prm:
        """Load a checkpoint directory, in evaluation mode.

        Args:
            path: The directory.
            device: Where to put it.
            dtype: Of the trunk; None: float32 on the CPU, bfloat16 elsewhere.

        Raises:
            InputError: Not a PRM checkpoint, weights that are not safetensors or are damaged or incomplete, remote
                code, or a tokenizer or configuration that does not fit the card.
        """
        path = Path(path)
        card = read_card(path)
        _check_files(path)
        tokenizer = _load_tokenizer(path)
        with _quiet():
            try:
                model, info = AutoModelForTokenClassification.from_pretrained(
                    path,
                    dtype=torch.float32,
                    use_safetensors=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
            except Exception as error:  # damaged files end in many kinds of error
                raise InputError(f"{path}: the weights cannot be loaded: {_first_line(error)}") from None
        if info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"]:
            wrong = sorted(map(str, [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]))
            raise InputError(f"{path}: {len(wrong)} tensors are missing, unknown or of another shape: {wrong[0]}")
        _check_config(path, model)
        _move(model, device, dtype or default_dtype(device))
        model.score.bias.requires_grad_(False)
        model.eval()
        try:
            prm = cls(model, tokenizer, card)
        except UsageError as error:
            raise InputError(f"{path}: the tokenizer does not fit prm.json: {error}") from None
        _check_tokenizer(path, prm)
        return prm

    def save(self, path: str | Path) -> None:
        """Write the checkpoint directory, whole or not at all; one that is there is replaced."""
        with whole_directory(Path(path)) as part, _quiet():
            self.model.save_pretrained(part)
            self.tokenizer.save_pretrained(part)
            write_json(part / "prm.json", self.card.model_dump(mode="json"))


def default_dtype(device: str | torch.device) -> torch.dtype:
    """The trunk's number format unless asked otherwise: float32 on the CPU, bfloat16 elsewhere."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def read_card(path: str | Path) -> PrmCard:
    """Read the card of a checkpoint directory.

    Raises:
        InputError: It is missing or malformed.
    """
    file = Path(path) / "prm.json"
    if not file.is_file():
        raise InputError(f"{path}: no PRM checkpoint: prm.json is missing")
    try:
        card = PrmCard.model_validate_json(file.read_bytes())
    except ValidationError as failure:
        first = failure.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{file}: {key}: {first['msg']}") from None
    if card.labels != LABEL_VALUES:
        raise InputError(f"{file}: labels {card.labels} are not {LABEL_VALUES}")
    return card


def _load_trunk(source: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    gguf = _gguf_file(source)
    with _quiet():
        try:
            if gguf:
                whole = AutoModelForCausalLM.from_pretrained(
                    source, gguf_file=gguf, dtype=dtype, quantization_config=GgufConfig(dequantize=True)
                )
                trunk: PreTrainedModel = whole.base_model
                return trunk
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            if getattr(config, "auto_map", None):
                raise InputError(f"{source}: the model brings its own code (auto_map), which is never run")
            trunk = AutoModel.from_pretrained(source, dtype=dtype, use_safetensors=True, trust_remote_code=False)
        except PrmKitError:
            raise
        except Exception as error:  # damaged, absent or foreign: many kinds of error
            raise InputError(f"{source}: the backbone cannot be loaded: {_first_line(error)}") from None
    return trunk


def _load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    gguf = _gguf_file(source)
    try:
        with _quiet():
            return AutoTokenizer.from_pretrained(  # type: ignore[no-any-return]
                source, trust_remote_code=False, **({"gguf_file": gguf} if gguf else {})
            )
    except Exception as error:  # as above
        raise InputError(f"{source}: the tokenizer cannot be loaded: {_first_line(error)}") from None


def _gguf_file(source: str | Path) -> str | None:
    directory = Path(source)
    if not directory.is_dir() or (directory / "config.json").exists():
        return None
    files = sorted(directory.glob("*.gguf"))
    if len(files) > 1:
        raise UsageError(f"{source}: {len(files)} .gguf files; leave one")
    return files[0].name if files else None


def _ensure_mark(tokenizer: PreTrainedTokenizerBase, trunk: PreTrainedModel, mark: str) -> None:
    if mark in {token.content for token in tokenizer.added_tokens_decoder.values()}:
        return
    tokenizer.add_tokens([mark], special_tokens=True)
    index = tokenizer.convert_tokens_to_ids(mark)
    embedding = trunk.get_input_embeddings().weight
    known = min(index, len(embedding))
    mean_D = embedding[:known].detach().float().mean(dim=0)
    if index >= len(embedding):
        trunk.resize_token_embeddings(index + 1, mean_resizing=False)
    with torch.no_grad():
        trunk.get_input_embeddings().weight[index] = mean_D


def _with_head(trunk: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mark_id: int, seed: int) -> PreTrainedModel:
    config = trunk.config
    family = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING.get(type(config), None)
    if family is None:
        raise UsageError(f"transformers has no token-classification head for {config.model_type!r} models")
    config.id2label = dict(ID2LABEL)
    config.label2id = {label: index for index, label in ID2LABEL.items()}
    config.classifier_dropout = config.hidden_dropout = 0.0
    pads = (tokenizer.pad_token_id, tokenizer.eos_token_id, mark_id)
    config.pad_token_id = next(pad for pad in pads if pad is not None)
    with torch.device("meta"):
        model: PreTrainedModel = family(config)
    if not isinstance(getattr(model, "score", None), nn.Linear):
        raise UsageError(f"the head of {family.__name__} is not called `score`: servers could not load it")
    setattr(model, model.base_model_prefix, trunk)
    hidden = model.score.in_features
    head = nn.Linear(hidden, len(ID2LABEL), device="cpu", dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.normal_(0.0, 0.1 / hidden**0.5, generator=generator)
        head.bias.zero_()
    head.bias.requires_grad_(False)
    model.score = head.to(trunk.device)
    model.eval()
    return model


def _move(model: PreTrainedModel, device: str | torch.device, dtype: torch.dtype) -> None:
    getattr(model, model.base_model_prefix).to(dtype=dtype)
    model.to(device)


def _check_files(path: Path) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        try:
            found = json.loads((path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path / name}: cannot be read: {error}") from None
        if "auto_map" in found:
            raise InputError(f"{path / name}: the checkpoint brings its own code (auto_map), which is never run")
    if not any(path.glob("*.safetensors")):
        pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for file in path.glob(pattern))
        reason = f"{pickles[0]} is a pickle, which can run code" if pickles else "there are none"
        raise InputError(f"{path}: the weights must be safetensors; {reason}")


def _check_config(path: Path, model: PreTrainedModel) -> None:
    if not isinstance(getattr(model, "score", None), nn.Linear) or model.score.out_features != len(ID2LABEL):
        raise InputError(f"{path}: {type(model).__name__} has no head `score` with {len(ID2LABEL)} outputs")
    found = {int(index): label for index, label in model.config.id2label.items()}
    if found != ID2LABEL:
        raise InputError(f"{path / 'config.json'}: id2label {found} is not {ID2LABEL}")


def _check_tokenizer(path: Path, prm: Prm) -> None:
    card = prm.card
    if prm.encoder.mark_id != card.mark_id:
        raise InputError(
            f"{path}: the mark {card.reading.mark!r} is token {prm.encoder.mark_id} of the tokenizer, "
            f"but {card.mark_id} in prm.json: another tokenizer"
        )
    if card.mark_id >= prm.model.get_input_embeddings().weight.shape[0]:
        raise InputError(f"{path}: the mark's id {card.mark_id} is beyond the embeddings")
    if card.probe_ids and tuple(prm.encoder.encode([_PROBE])[0].ids) != card.probe_ids:
        raise InputError(f"{path}: the tokenizer gives other ids than the one that the PRM was trained with")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's progress bars and its report of the new head off the terminal."""
    logging = transformers.utils.logging
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
