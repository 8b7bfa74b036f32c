"""The PRM: a Hugging Face token-classification model, its tokenizer, and the card that says how to read it.

A checkpoint is a directory that plain `AutoModelForTokenClassification` loads (safetensors, no remote code, three
labels in class order) plus `prm.json`, the card. The head is trained without a bias and stored with a zero one, so
that servers which expect either find it. B sequences, T tokens, N read positions, D hidden, K = 3 classes.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PreTrainedModel, PreTrainedTokenizerBase

from prm_kit.backbone import ID2LABEL, copy_trunk, ensure_mark, first_line, load_tokenizer, load_trunk, quiet, with_head
from prm_kit.card import PrmCard, read_card, tokenizer_fingerprint
from prm_kit.encode import StepEncoder, StepReading, default_reading
from prm_kit.errors import InputError, UsageError
from prm_kit.files import whole_directory, write_json
from prm_kit.records import NeutralPolicy


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

    @property
    def head(self) -> nn.Module:
        """The linear layer from hidden states to classes."""
        head: nn.Module = self.model.score  # type: ignore[assignment]
        return head

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
            logits_NK: Tensor = self.head(hidden_BTD[row_N, position_N].float())
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
            InputError: The backbone cannot be loaded.
            UsageError: The family has no token-classification head called `score`, or the tokenizer does not fit.
        """
        dtype = dtype or default_dtype(device)
        if isinstance(source, PreTrainedModel):
            if tokenizer is None:
                raise UsageError("a built model needs its tokenizer")
            trunk, base = copy_trunk(source), source.config.name_or_path
        else:
            trunk, base = load_trunk(source, dtype), str(source)
        tokenizer = copy.deepcopy(tokenizer) if tokenizer is not None else load_tokenizer(str(source))
        reading = reading or default_reading(tokenizer)
        ensure_mark(tokenizer, trunk, reading.mark)
        _move(trunk, device, dtype)
        encoder = StepEncoder(tokenizer, reading)
        pads = (tokenizer.pad_token_id, tokenizer.eos_token_id, encoder.mark_id)
        model = with_head(trunk, next(pad for pad in pads if isinstance(pad, int)), seed)
        card = PrmCard(
            reading=reading,
            mark_id=encoder.mark_id,
            neutral_policy=neutral_policy,
            target=target,
            max_tokens=max_tokens or getattr(model.config, "max_position_embeddings", None),
            base_model=base or "",
            tokenizer_sha256=tokenizer_fingerprint(encoder),
        )
        return cls(model, tokenizer, card)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Prm:
        """Load a checkpoint directory, in evaluation mode.

        Args:
            path: The directory.
            device: Where to put it.
            dtype: Of the trunk; None: float32 on the CPU, bfloat16 elsewhere. The head is always float32.

        Raises:
            InputError: Not a PRM checkpoint, weights that are not safetensors or are damaged or incomplete, remote
                code, or a tokenizer or configuration that does not fit the card.
        """
        path = Path(path)
        card = read_card(path)
        _check_files(path)
        tokenizer = load_tokenizer(path)
        model = _load_weights(path, dtype or default_dtype(device))
        _move(model, device)
        try:
            prm = cls(model, tokenizer, card)
        except UsageError as error:
            raise InputError(f"{path}: the tokenizer does not fit prm.json: {error}") from None
        _check_tokenizer(path, prm)
        return prm

    def save(self, path: str | Path) -> None:
        """Write the checkpoint directory, whole or not at all; one that is there is replaced."""
        with whole_directory(Path(path)) as part, quiet():
            self.model.save_pretrained(part)
            self.tokenizer.save_pretrained(part)
            write_json(part / "prm.json", self.card.model_dump(mode="json"))


def default_dtype(device: str | torch.device) -> torch.dtype:
    """The trunk's number format unless asked otherwise: float32 on the CPU, bfloat16 elsewhere."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def _move(module: nn.Module, device: str | torch.device, dtype: torch.dtype | None = None) -> None:
    module.to(device=torch.device(device), dtype=dtype)


def _load_weights(path: Path, dtype: torch.dtype) -> PreTrainedModel:
    with quiet():
        try:
            model: Any
            model, info = AutoModelForTokenClassification.from_pretrained(
                path, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
        except Exception as error:  # damaged files end in many kinds of error
            raise InputError(f"{path}: the weights cannot be loaded: {first_line(error)}") from None
    wrong = sorted(str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[kind])
    if wrong:
        raise InputError(f"{path}: {len(wrong)} tensors are missing, unknown or of another shape, such as {wrong[0]}")
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or head.out_features != len(ID2LABEL):
        raise InputError(f"{path}: {type(model).__name__} has no head `score` with {len(ID2LABEL)} outputs")
    labels = {int(index): label for index, label in model.config.id2label.items()}
    if labels != ID2LABEL:
        raise InputError(f"{path / 'config.json'}: id2label {labels} is not {ID2LABEL}")
    if dtype != torch.float32:
        model.score = _float32_head(path, head)
    model.score.bias.requires_grad = False
    model.train(mode=False)
    return model  # type: ignore[no-any-return]


def _float32_head(path: Path, rounded: nn.Linear) -> nn.Linear:
    """The head as it was stored: the library has rounded it to the number format of the trunk."""
    head = nn.Linear(rounded.in_features, rounded.out_features, dtype=torch.float32)
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            kept = {key: tensors.get_tensor(key).float() for key in tensors.keys() if key.startswith("score.")}  # noqa: SIM118
        head.load_state_dict({key.removeprefix("score."): value for key, value in kept.items()}, strict=False)
    return head


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


def _check_tokenizer(path: Path, prm: Prm) -> None:
    card, encoder = prm.card, prm.encoder
    if encoder.mark_id != card.mark_id:
        raise InputError(
            f"{path}: the mark {card.reading.mark!r} is token {encoder.mark_id} of the tokenizer, "
            f"but {card.mark_id} in prm.json: another tokenizer"
        )
    embeddings: Any = prm.model.get_input_embeddings()
    if card.mark_id >= embeddings.num_embeddings:
        raise InputError(f"{path}: the mark's id {card.mark_id} is beyond the {embeddings.num_embeddings} embeddings")
    if card.tokenizer_sha256 and tokenizer_fingerprint(encoder) != card.tokenizer_sha256:
        raise InputError(f"{path}: the tokenizer gives other ids than the one that the PRM was trained with")
