"""A training run that can be killed at any moment and goes on as if it had not been.

OUT/state/update-0000120-line-0000132/
  standing.json            where the run stands: `Standing`
  weights.safetensors      the trained weights
  best.safetensors         those that were best on the development set (a hard link where they are the same file)
  optimizer.pt, random.pt  read back with weights_only, so that they can hold no code

A state appears under its name whole or not at all, and the older one goes only after that. The order of the data and
the learning rate are functions of the update, so they need no saving.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prm_kit.errors import InputError, UsageError
from prm_kit.files import whole_directory, write_json


@dataclass
class Standing:
    """Where a run stands.

    Attributes:
        update: Updates done.
        metrics_lines: Lines that metrics.jsonl had.
        evaluated: `update` at the last evaluation, -1 before the first.
        untrained: Development metrics before the first update.
        last: Development metrics of the last evaluation.
        best: Development metrics of the best evaluation, None before the first.
        best_update: `update` at that evaluation.
        stale: Evaluations since then.
        tokens: Real tokens trained on.
        computed_tokens: Tokens that went through the model: with padding, or without what was shared.
        targets: Labelled steps trained on.
    """

    update: int = 0
    metrics_lines: int = 0
    evaluated: int = -1
    untrained: dict[str, float] | None = None
    last: dict[str, float] | None = None
    best: dict[str, float] | None = None
    best_update: int = 0
    stale: int = 0
    tokens: int = 0
    computed_tokens: int = 0
    targets: int = 0


@dataclass
class TrainingState:
    """Everything that changes while training, and how it is saved and read back.

    Attributes:
        folder: OUT/state.
        model: Its parameters that require a gradient are saved; the others never change.
        optimizer: AdamW.
        standing: Where the run stands.
    """

    folder: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    standing: Standing = field(default_factory=Standing)

    def save(self, new_best: bool = False, random: dict[str, Any] | None = None) -> None:
        """Save the run as it stands; a state that is there already is kept.

        Args:
            new_best: The present weights are the best on the development set.
            random: `random_states` to save; None: the present ones.
        """
        path = self.folder / f"update-{self.standing.update:07d}-line-{self.standing.metrics_lines:07d}"
        previous = latest_state(self.folder)
        if path == previous:
            return
        with whole_directory(path) as part:
            save_file(trained_weights(self.model), part / "weights.safetensors")
            if new_best:
                _link(part / "weights.safetensors", part / "best.safetensors")
            elif previous is not None and (previous / "best.safetensors").exists():
                _link(previous / "best.safetensors", part / "best.safetensors")
            torch.save(self.optimizer.state_dict(), part / "optimizer.pt")
            torch.save(random or random_states(), part / "random.pt")
            write_json(part / "standing.json", asdict(self.standing))
        for old in self.folder.glob("update-*"):
            if old != path:
                shutil.rmtree(old)

    def load(self) -> bool:
        """Go back to the latest saved state, random generators included; False if there is none.

        Raises:
            InputError: The state cannot be read.
        """
        path = latest_state(self.folder)
        if path is None:
            return False
        try:
            self.standing = Standing(**_saved_standing(path))
            set_trained_weights(self.model, load_file(path / "weights.safetensors"))
            self.optimizer.load_state_dict(torch.load(path / "optimizer.pt", weights_only=True, map_location="cpu"))
            random = torch.load(path / "random.pt", weights_only=True, map_location="cpu")
        except Exception as error:  # damaged files end in many kinds of error
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise InputError(f"{path}: this saved state cannot be read ({reason}); train into another folder") from None
        torch.set_rng_state(random["cpu"])
        for index, state in enumerate(random["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, index)
        return True

    def take_best(self) -> None:
        """Put the weights that were best on the development set into the model."""
        path = latest_state(self.folder)
        if path is not None and (path / "best.safetensors").exists():
            set_trained_weights(self.model, load_file(path / "best.safetensors"))


def latest_state(folder: Path) -> Path | None:
    """The saved state of the most updates, None if there is none."""
    return max(folder.glob("update-*"), default=None)


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that training changes, on the CPU, by name."""
    return {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def set_trained_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy what `trained_weights` returned back into the model.

    Raises:
        ValueError: The names or shapes are not those of the model.
    """
    mine = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if mine.keys() != weights.keys():
        raise ValueError(f"weights differ in names: {sorted(mine.keys() ^ weights.keys())[:5]}")
    with torch.no_grad():
        for name, parameter in mine.items():
            if parameter.shape != weights[name].shape:
                raise ValueError(f"{name}: {tuple(weights[name].shape)} does not fit {tuple(parameter.shape)}")
            parameter.copy_(weights[name])


def check_same_inputs(path: Path, inputs: dict[str, Any]) -> None:
    """Write down what a run was started with, or refuse to go on with something else.

    Args:
        path: OUT/inputs.json.
        inputs: Settings and hashes of the data, as JSON data.

    Raises:
        UsageError: Naming every key that differs.
    """
    if not path.exists():
        write_json(path, inputs)
        return
    before, now = _flat(json.loads(path.read_text(encoding="utf-8"))), _flat(json.loads(json.dumps(inputs)))
    differ = [
        f"{key} was {before.get(key, 'not there')!r}, now {now.get(key, 'not there')!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key, ...) != now.get(key, ...)
    ]
    if differ:
        raise UsageError(
            f"{path.parent} holds a run of other settings or data: {'; '.join(differ)}. "
            "Train into another folder, or give the old settings and data to go on."
        )


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for name, below in value.items() for k, v in _flat(below, f"{key}.{name}".strip(".")).items()}
    return {key: value}


def _saved_standing(path: Path) -> dict[str, Any]:
    saved: dict[str, Any] = json.loads((path / "standing.json").read_text(encoding="utf-8"))
    return saved


def random_states() -> dict[str, Any]:
    """The states of torch's random generators."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
