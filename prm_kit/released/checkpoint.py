"""A published checkpoint on disk: its configuration, tensors and tokenizer, read natively."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from prm_kit.backbone import first_line, load_tokenizer, quiet
from prm_kit.errors import InputError
from prm_kit.weights import read_json, read_tensor, tensor_files

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_CACHED = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")
_KEPT = ["*.safetensors", "*.json", "*.model", "*.jinja", "*.txt"]  # what is fetched: no pickles and no code
_HEADS = re.compile(r"(.*\.)?(lm_head|score|v_head|score_head|reward_head|value_head|classifier)\b.*|.*inv_freq")


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a configuration, safetensors and a tokenizer.

    Attributes:
        name: As it was asked for.
        folder: Where the files are.
        published: Hub id, where it came from the hub; None for other folders.
        device: Where models are put.
        dtype: Number format of the trunk.
        reference: Name or path of the model that scores are relative to, or of an adapter's base; None: the published
            one.
    """

    name: str
    folder: Path
    published: str | None
    device: torch.device
    dtype: torch.dtype
    reference: str | None = None

    @cached_property
    def adapter(self) -> dict[str, Any] | None:
        """The configuration of a PEFT adapter; None where the folder is a whole model."""
        file = self.folder / "adapter_config.json"
        return read_json(file) if file.is_file() else None

    @cached_property
    def base(self) -> Checkpoint | None:
        """The model that an adapter is for."""
        if self.adapter is None:
            return None
        named = str(self.reference or self.adapter.get("base_model_name_or_path") or "")
        beside = self.folder / named
        if not named or beside.resolve() == self.folder.resolve():
            raise InputError(f"{self.name}: an adapter that names no base model; name its folder with `reference`")
        try:
            return open_checkpoint(beside if beside.is_dir() else named, self.device, self.dtype)
        except InputError as error:
            raise InputError(f"{self.name}: its base model: {error}; name its folder with `reference`") from None

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json; of an adapter, its base model's."""
        return self.base.config if self.base else read_json(self.folder / "config.json")

    @cached_property
    def tensors(self) -> dict[str, Path]:
        """The file of each tensor."""
        return tensor_files(self.folder)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; an adapter without one has its base model's."""
        own = any((self.folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
        return load_tokenizer(self.folder) if own or self.base is None else self.base.tokenizer

    @property
    def backend(self) -> Any:
        """The tokenizer's backend of the library tokenizers.

        Raises:
            InputError: It has none.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise InputError(f"{self.name}: a slow tokenizer; convert it to a tokenizer.json first")
        return backend

    def special(self, role: Literal["bos", "eos"]) -> str:
        """The text of a special token that the layout needs.

        Raises:
            InputError: The tokenizer has none.
        """
        token = getattr(self.tokenizer, f"{role}_token")
        if not isinstance(token, str):
            raise InputError(f"{self.name}: the tokenizer names no {role}_token, which this PRM is read with")
        return token

    @property
    def architecture(self) -> str:
        """The first name under `architectures`, or ""."""
        named = self.config.get("architectures")
        return str(named[0]) if isinstance(named, list) and named else ""

    def native_config(self) -> Any:
        """The library's own configuration of this model type; the checkpoint's remote code is left out.

        Raises:
            InputError: The library does not know the model type.
        """
        values = {key: value for key, value in self.config.items() if key != "auto_map"}
        kind = values.pop("model_type", "")
        try:
            config = AutoConfig.for_model(kind, **values)
        except Exception as error:  # foreign values end in many kinds of error
            hint = "; it brings its own code (auto_map), which is never run" if "auto_map" in self.config else ""
            raise InputError(f"{self.folder / 'config.json'}: {first_line(error)}{hint}") from None
        pad = getattr(config, "pad_token_id", None)
        # Padding is masked, so any id does; some published configurations name none, or one beyond the embeddings.
        config.pad_token_id = pad if isinstance(pad, int) and 0 <= pad < config.vocab_size else 0
        return config

    def trunk(self) -> PreTrainedModel:
        """The decoder without any head; an adapter is merged into its base.

        Raises:
            InputError: Tensors are missing, of another shape, or unknown.
        """
        if self.base is not None:
            whole: Any = self.causal()
            return whole.base_model  # type: ignore[no-any-return]
        return self._load(AutoModel)

    def causal(self) -> PreTrainedModel:
        """The whole causal language model; an adapter is merged into its base.

        Raises:
            InputError: As `trunk`; or the adapter needs the package peft, or does not fit.
        """
        if self.base is None:
            return self._load(AutoModelForCausalLM)
        _ = self.tensors  # refuses an adapter that is a pickle
        try:
            from peft import PeftModel, get_peft_model_state_dict
        except ImportError:
            raise InputError(f"{self.name} is an adapter: reading it needs `pip install peft`") from None
        with quiet():
            try:
                adapted: Any = PeftModel.from_pretrained(self.base.causal(), str(self.folder))
                known = set(get_peft_model_state_dict(adapted, save_embedding_layers=True))
                merged: Any = adapted.merge_and_unload()
            except InputError:
                raise
            except Exception as error:
                raise InputError(f"{self.folder}: the adapter cannot be read: {first_line(error)}") from None
        wrong = [name for name in self.tensors if name not in known and not _HEADS.fullmatch(name)]
        wrong += [name for name in known - set(self.tensors) if "lora_" in name]
        if wrong:
            raise InputError(f"{self.folder}: {len(wrong)} tensors do not fit the base model, such as {min(wrong)}")
        return merged.eval()  # type: ignore[no-any-return]

    def trunk_and_rows(self, token_ids: Sequence[int]) -> tuple[PreTrainedModel, Tensor]:
        """The decoder, and the output layer's rows [N, D] of some tokens in float32, without the rest of that layer."""
        if self.base is not None:
            whole: Any = self.causal()
            return whole.base_model, whole.lm_head.weight[list(token_ids)].detach().float()
        tied = self.config.get("tie_word_embeddings", self.native_config().tie_word_embeddings)
        output = self.tensor_named("lm_head.weight") if not tied or self.has("lm_head.weight") else None
        rows = read_tensor(self.tensors, output or self.tensor_named("embed_tokens.weight"), token_ids)
        return self.trunk(), rows.to(self.device)

    def has(self, ending: str) -> bool:
        """Whether there is a tensor whose name ends so, at a dot."""
        return any(name == ending or name.endswith(f".{ending}") for name in self.tensors)

    def tensor_named(self, ending: str) -> str:
        """The one tensor whose name ends so, at a dot.

        Raises:
            InputError: There is none, or there are several.
        """
        found = [name for name in self.tensors if name == ending or name.endswith(f".{ending}")]
        if len(found) != 1:
            raise InputError(f"{self.folder}: {len(found)} tensors called {ending}, not one")
        return found[0]

    def linear(self, prefix: str) -> nn.Linear:
        """A linear layer of the checkpoint in float32, with or without a bias.

        Raises:
            InputError: It is not there, or its tensors have other shapes.
        """
        weight = read_tensor(self.tensors, self.tensor_named(f"{prefix}.weight"))
        bias = read_tensor(self.tensors, self.tensor_named(f"{prefix}.bias")) if self.has(f"{prefix}.bias") else None
        if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
            shapes = f"{list(weight.shape)}" + ("" if bias is None else f" and {list(bias.shape)}")
            raise InputError(f"{self.folder}: {prefix} is no linear layer: its tensors have the shapes {shapes}")
        return linear(weight, bias)

    def _load(self, kind: Any) -> PreTrainedModel:
        with quiet():
            try:
                model, info = kind.from_pretrained(
                    self.folder,
                    config=self.native_config(),
                    dtype=self.dtype,
                    use_safetensors=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
            except InputError:
                raise
            except Exception as error:  # damaged files end in many kinds of error
                raise InputError(f"{self.folder}: the weights cannot be loaded: {first_line(error)}") from None
        wrong = [str(key) for kind in ("missing_keys", "mismatched_keys") for key in info[kind]]
        wrong += [str(key) for key in info["unexpected_keys"] if not _HEADS.fullmatch(str(key))]
        if wrong:
            raise InputError(
                f"{self.folder}: {len(wrong)} tensors are missing, unknown or of another shape, such as {min(wrong)}"
            )
        return model.to(self.device).eval()  # type: ignore[no-any-return]


def linear(weight_KD: Tensor, bias_K: Tensor | None = None) -> nn.Linear:
    """A linear layer in float32 with these weights; no bias is a zero one."""
    outputs, width = weight_KD.shape
    layer = nn.Linear(width, outputs, dtype=torch.float32, device=weight_KD.device)
    with torch.no_grad():
        layer.weight.copy_(weight_KD)
        layer.bias.zero_() if bias_K is None else layer.bias.copy_(bias_K)
    return layer.requires_grad_(False)


def open_checkpoint(
    name_or_path: str | Path, device: torch.device, dtype: torch.dtype, reference: str | None = None
) -> Checkpoint:
    """Find a checkpoint: a folder, or a hub id, "owner/name" or "owner/name@revision".

    Of a hub repository only configuration, tokenizer and safetensors are fetched, into the hub's own cache.

    Raises:
        InputError: There is no such folder, and the hub has no such repository or cannot be reached.
    """
    name = str(name_or_path)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Checkpoint(name, folder, _cached_id(folder), device, dtype, reference)
    asked = _HUB_ID.fullmatch(name)
    if not asked:
        raise InputError(f"{name}: no such folder")
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            found = snapshot_download(
                asked["repo"], revision=asked["revision"], allow_patterns=_KEPT, ignore_patterns="*/*"
            )
    except Exception as error:  # no repository, no access, no network, no space: all say so themselves
        raise InputError(f"{name}: no such folder, and not to be had from the hub: {first_line(error)}") from None
    return Checkpoint(name, Path(found), asked["repo"], device, dtype, reference)


def _cached_id(folder: Path) -> str | None:
    """The hub id of a snapshot in the hub's cache: .../models--owner--name/snapshots/revision."""
    parts = folder.resolve().parts
    match = _CACHED.fullmatch(parts[-3]) if len(parts) > 2 and parts[-2] == "snapshots" else None
    return f"{match['owner']}/{match['name']}" if match else None
