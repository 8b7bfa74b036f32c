"""A checkpoint in the form that vLLM and SGLang load: the same weights as hard links, another line in config.json.

Written after the sources of vLLM 0.33 and SGLang 0.5.23; not yet run against a real server, which is what the golden
scores beside each export and `prm-kit serve-check` are for.

- vLLM serves `*ForTokenClassification` as it is, with softmax over two or more outputs, sigmoid over one, and nothing
  where `problem_type` is "regression".
- vLLM's own `Qwen2ForProcessRewardModel` has two classes and two layers, `score.0` (hidden to hidden, ReLU) and
  `score.2` (hidden to 2), and reads at `<extra_0>`. A linear head fits exactly: with d the difference of its rows,
  d x = relu(d x) - relu(-d x), and the softmax of (0, d x) is that of the two logits. Three classes do not fit.
- SGLang knows `*ForSequenceClassification` alone, whose heads for Qwen have a bias that must be stored.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from prm_kit.card import PrmCard, read_card
from prm_kit.errors import InputError, UsageError, unknown_name
from prm_kit.files import whole_directory, write_json
from prm_kit.model import Prm
from prm_kit.released.convert import check_replaceable
from prm_kit.segments import SegmentEncoder
from prm_kit.serve.golden import ACTIVATIONS, FILE_NAME, golden_items, write_items

VLLM_FAMILIES = ("Qwen2", "Qwen3", "Qwen3Moe", "Llama", "Mistral", "Gemma2", "Gemma3", "Phi3")
SGLANG_FAMILIES = ("Llama", "Qwen2", "Qwen3")

QWEN_MARK = ("<extra_0>", 151_651)
"""Text and id of the mark that vLLM's Qwen PRM reads at."""


@dataclass(frozen=True)
class Export:
    """What was exported.

    Attributes:
        out: The folder.
        command: How the server is started with it.
        golden: How many golden scores lie beside it.
        notes: What the server does otherwise than this project.
    """

    out: Path
    command: str
    golden: int
    notes: tuple[str, ...]


def export(target: str, checkpoint: Path, out: Path) -> Export:
    """Export a checkpoint.

    Args:
        target: A name in `TARGETS`.
        checkpoint: A checkpoint of ours.
        out: Folder to make; one that is there must be a checkpoint of ours, and is replaced.

    Raises:
        UsageError: Unknown target, the checkpoint does not fit it, or `out` is something else.
        InputError: No sound checkpoint.
    """
    if target not in TARGETS:
        raise unknown_name("target", target, TARGETS)
    if out.resolve() == checkpoint.resolve():
        raise UsageError(f"--out {out} is the checkpoint itself")
    check_replaceable(out)
    return TARGETS[target](checkpoint, out)


def export_vllm(checkpoint: Path, out: Path) -> Export:
    """Token classification, as it is.

    Raises:
        UsageError: A family that vLLM cannot serve so, or a read-out that its activation does not fit.
    """
    card, config = _read(checkpoint, "vLLM", VLLM_FAMILIES, tuple(ACTIVATIONS))
    if card.readout == "unbounded":
        config["problem_type"] = "regression"
    pooler = json.dumps({"tok_pooling_type": "STEP", "step_tag_id": card.mark_id})
    golden = _write(checkpoint, out, config)
    return Export(out, f"vllm serve {out} --runner pooling --pooler-config '{pooler}'", golden, _notes(card))


def export_sglang(checkpoint: Path, out: Path) -> Export:
    """Sequence classification with the same weights.

    Raises:
        UsageError: A family that SGLang cannot read at every mark, or scores that are no probabilities.
    """
    card, config = _read(checkpoint, "SGLang", SGLANG_FAMILIES, ("classes", "binary", "sigmoid"))
    head = _head(checkpoint)
    if head["score.bias"].any():
        raise UsageError(f"{checkpoint}: the head's bias must be stored and zero: SGLang leaves others at random")
    config["architectures"] = [config["architectures"][0].replace("TokenClassification", "SequenceClassification")]
    golden = _write(checkpoint, out, config)
    command = f"python -m sglang.launch_server --model {out} --is-embedding --disable-radix-cache"
    return Export(out, f"{command} --chunked-prefill-size -1", golden, _notes(card))


def export_vllm_qwen(checkpoint: Path, out: Path) -> Export:
    """The Qwen PRM that vLLM knows by itself, from a head of two classes or one.

    Raises:
        UsageError: Another trunk than Qwen2, three classes, or another mark.
    """
    card, config = _read(checkpoint, "Qwen2ForProcessRewardModel", ("Qwen2",), ("binary", "sigmoid"))
    if (card.reading.mark, card.mark_id) != QWEN_MARK:
        raise UsageError(
            f"{checkpoint}: Qwen2ForProcessRewardModel reads at {QWEN_MARK[0]} (id {QWEN_MARK[1]}), "
            f"not at {card.reading.mark} (id {card.mark_id}); export to vllm instead"
        )
    head = _head(checkpoint)
    weight_KD, bias_K = head["score.weight"].float(), head["score.bias"].float()
    rows_2D = weight_KD if len(weight_KD) == 2 else torch.cat([torch.zeros_like(weight_KD), weight_KD])
    bias_2 = bias_K if len(bias_K) == 2 else torch.cat([torch.zeros_like(bias_K), bias_K])
    two = {"id2label": {"0": "wrong", "1": "right"}, "label2id": {"wrong": 0, "right": 1}}
    config = config | two | {"architectures": ["Qwen2ForProcessRewardModel"]}
    golden = _write(checkpoint, out, config, _two_layers(rows_2D, bias_2))
    return Export(out, f"vllm serve {out} --runner pooling", golden, _notes(card))


def _two_layers(rows_2D: Tensor, bias_2: Tensor) -> dict[str, Tensor]:
    """A linear head of two rows as hidden to hidden, ReLU, hidden to 2, with equal softmax."""
    width = rows_2D.shape[1]
    first_DD, second_2D = torch.zeros(width, width), torch.zeros(2, width)
    first_DD[0] = rows_2D[1] - rows_2D[0]
    first_DD[1] = -first_DD[0]
    second_2D[1, 0], second_2D[1, 1] = 1.0, -1.0
    bias = torch.stack([torch.tensor(0.0), bias_2[1] - bias_2[0]])
    return {"score.0.weight": first_DD, "score.0.bias": torch.zeros(width)} | {
        "score.2.weight": second_2D,
        "score.2.bias": bias,
    }


def _read(
    checkpoint: Path, server: str, families: tuple[str, ...], readouts: tuple[str, ...]
) -> tuple[PrmCard, dict[str, Any]]:
    card = read_card(checkpoint)
    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    name = (config.get("architectures") or ["?"])[0]
    if name not in [f"{family}ForTokenClassification" for family in families]:
        raise UsageError(f"{checkpoint}: {server} cannot serve {name}; it can: {', '.join(families)}")
    if card.readout not in readouts:
        outputs = "three classes" if card.readout == "classes" else f"the read-out {card.readout!r}"
        raise UsageError(f"{checkpoint}: {server} cannot express {outputs}; it can: {', '.join(readouts)}")
    config["prm"] = card.model_dump(mode="json")
    return card, config


def _write(checkpoint: Path, out: Path, config: dict[str, Any], head: dict[str, Tensor] | None = None) -> int:
    """Link the checkpoint's files, with another configuration, perhaps another head, and golden scores."""
    prm = Prm.load(checkpoint)
    if isinstance(prm.encoder, SegmentEncoder) and not prm.encoder.is_read_at_a_special_token:
        raise UsageError(
            f"{checkpoint}: its published layout reads steps at {prm.encoder.reading.mark or 'their own text'!r}, "
            "which is no special token: a server that looks for it in the ids would find others; use `prm-kit serve`"
        )
    items = golden_items(prm)
    with whole_directory(out) as part:
        for file in sorted(checkpoint.iterdir()):
            rewritten = head is not None and ".safetensors" in file.name
            if file.is_file() and file.name not in ("config.json", FILE_NAME) and not rewritten:
                _link(file, part / file.name)
        if head is not None:
            _rewrite(checkpoint, part, head)
            items = [item.model_copy(update={"outputs": _two_outputs(item.outputs)}) for item in items]
        write_json(part / "config.json", config)
        write_items(items, part)
    return len(items)


def _rewrite(checkpoint: Path, part: Path, head: dict[str, Tensor]) -> None:
    """Write the weights with another head, one file at a time, and the index that names the file of each tensor."""
    place: dict[str, str] = {}
    files = [*_weights(checkpoint), None]
    for number, file in enumerate(files, 1):
        tensors = head if file is None else _tensors(file, head=False)
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        save_file(tensors, part / name, {"format": "pt"})
        place |= dict.fromkeys(tensors, name)
    size = sum(path.stat().st_size for path in part.glob("*.safetensors"))
    write_json(part / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": place})


def _two_outputs(outputs: list[list[float]] | None) -> list[list[float]] | None:
    return outputs and [row if len(row) == 2 else [1 - row[0], row[0]] for row in outputs]


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(file, target)


def _head(checkpoint: Path) -> dict[str, Tensor]:
    found = {name: tensor for file in _weights(checkpoint) for name, tensor in _tensors(file, head=True).items()}
    if missing := {"score.weight", "score.bias"} - set(found):
        raise InputError(f"{checkpoint}: the tensor {min(missing)} is missing")
    return found


def _weights(checkpoint: Path) -> list[Path]:
    return sorted(checkpoint.glob("*.safetensors"))


def _tensors(file: Path, *, head: bool) -> dict[str, Tensor]:
    with safe_open(file, framework="pt") as tensors:
        return {key: tensors.get_tensor(key) for key in tensors.keys() if key.startswith("score.") == head}  # noqa: SIM118


def _notes(card: PrmCard) -> tuple[str, ...]:
    if card.temperature == 1.0:
        return ()
    return (f"the server does not divide by the card's temperature {card.temperature:g}",)


TARGETS: dict[str, Callable[[Path, Path], Export]] = {
    "vllm": export_vllm,
    "vllm-qwen-prm": export_vllm_qwen,
    "sglang": export_sglang,
}
