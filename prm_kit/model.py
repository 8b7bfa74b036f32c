"""The PRM: a Hugging Face token-classification model, its tokenizer, and the card that says how to read it.

A checkpoint is a directory that plain `AutoModelForTokenClassification` loads (safetensors, no remote code, as many
labels as the head has outputs) plus `prm.json`, the card, which says how the outputs are read: as three classes in
class order unless trained otherwise. The head is trained without a bias and stored with a zero one, so that servers
which expect either find it. B sequences, T tokens, N read positions, D hidden, K outputs.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PreTrainedModel, PreTrainedTokenizerBase

from prm_kit.backbone import copy_trunk, ensure_mark, first_line, load_tokenizer, load_trunk, quiet, with_head
from prm_kit.card import PrmCard, ReadoutName, read_card, tokenizer_fingerprint
from prm_kit.encode import StepEncoder
from prm_kit.errors import InputError, UsageError
from prm_kit.files import whole_directory, write_json
from prm_kit.readout import READOUTS, Readout
from prm_kit.records import NeutralPolicy
from prm_kit.segments import encoder_of
from prm_kit.step_reading import StepReading, default_reading
from prm_kit.weights import read_json, tensor_files


class Prm:
    """A process reward model.

    Attributes:
        model: The `*ForTokenClassification` model: trunk, and the head `score` in float32.
        tokenizer: Its tokenizer.
        card: How it is read and where it comes from.
        encoder: Solutions to token ids, as the card says.
        head_only: Only the head is being trained: the trunk computes no gradient.
    """

    can_share_prefixes = True
    fresh_head = True

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: PrmCard) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.card = card
        self.encoder = encoder_of(tokenizer, card.reading)
        self.head_only = False

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
    def head(self) -> nn.Linear:
        """The linear layer from hidden states to outputs."""
        head: nn.Linear = self.model.score  # type: ignore[assignment]
        return head

    @property
    def computed_parts(self) -> tuple[nn.Module, nn.Module]:
        """The parts that are called one after the other; each holds its weights for one call."""
        return self.trunk, self.head

    @property
    def readout(self) -> Readout:
        """How class probabilities follow from the outputs."""
        return READOUTS[self.card.readout]

    def read_logits(
        self,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor | None,
        row_N: Tensor,
        position_N: Tensor,
        position_ids_BT: Tensor | None = None,
        start_B: Tensor | None = None,
        **attention: Any,
    ) -> Tensor:
        """Run the trunk, and the head at the read positions only.

        Args:
            input_ids_BT: Token ids.
            attention_mask_BT: 1 for tokens, 0 for padding (on the right); None: no padding.
            row_N: Row of each read position.
            position_N: Column of each read position.
            position_ids_BT: Positions for the rotary embedding; None: 0, 1, 2, ...
            start_B: Column at which each solution begins; only an implicit PRM looks at it.
            attention: Handed on to the attention layers.

        Returns:
            Outputs [N, K] in float32, as the card's read-out takes them.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.head_only):
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
        readout: ReadoutName = "classes",
        members: int = 1,
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
            readout: What the head gives; written into the card.
            members: How many heads an ensemble has, at least 2.
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
        labels = READOUTS[readout].id2label(len(READOUTS[readout].labels) * members)
        if not READOUTS[readout].fits(len(labels)):
            raise UsageError(f"members: {members}: an ensemble has 2 or more, any other head 1")
        model = with_head(trunk, next(pad for pad in pads if isinstance(pad, int)), labels, seed=seed)
        card = PrmCard(
            reading=reading,
            mark_id=encoder.mark_id,
            readout=readout,
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
        if card.kind != "token-classification":
            raise InputError(
                f"{path}: this is a PRM of the kind {card.kind}: load it with prm_kit.checkpoints.load_own"
            )
        check_files(path)
        tokenizer = load_tokenizer(path)
        model = _load_weights(path, dtype or default_dtype(device), READOUTS[card.readout])
        _move(model, device)
        try:
            prm = cls(model, tokenizer, card)
        except UsageError as error:
            raise InputError(f"{path}: the tokenizer does not fit prm.json: {error}") from None
        check_tokenizer(path, prm)
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


def _load_weights(path: Path, dtype: torch.dtype, readout: Readout) -> PreTrainedModel:
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
    if not isinstance(head, nn.Linear) or not readout.fits(head.out_features):
        several = "a multiple of " if readout.members else ""
        raise InputError(
            f"{path}: {type(model).__name__} has no head `score` with {several}{len(readout.labels)} outputs"
        )
    labels = {int(index): label for index, label in model.config.id2label.items()}
    expected = readout.id2label(head.out_features)
    if labels != expected:
        raise InputError(f"{path / 'config.json'}: id2label {labels} is not {expected}")
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


def check_files(path: Path) -> None:
    """Refuse a folder with unreadable configuration, code of its own, or weights that are no safetensors.

    Raises:
        InputError: Naming the file.
    """
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in read_json(path / name):
            raise InputError(f"{path / name}: the checkpoint brings its own code (auto_map), which is never run")
    tensor_files(path)


def check_tokenizer(path: Path, prm: Prm) -> None:
    """Refuse a tokenizer that is not the one that the card speaks of.

    Raises:
        InputError: Saying what differs.
    """
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
