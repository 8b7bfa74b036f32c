"""A training run that can be killed at any moment and goes on as if it had not been.

OUT/state/update-0000120-line-0000132/
  standing.json   where the run stands: `Standing`
  weights/        the trained weights, a safetensors file for every process that trained them
  best/           those that were best on the development set (hard links where they are the same)
  optimizer/      AdamW's state, as the weights; from the first update on
  kept/           weights that do not learn and yet change, where a loop has such; as the weights
  random-0.pt     the random generators of process 0; read with weights_only, so that it can hold no code

A state appears under its name whole or not at all, and the older one goes only after that. The order of the data and
the learning rate are functions of the update, so they need no saving. Any number of processes can go on with the state
of any other number (torch.distributed.checkpoint deals the slices anew); only the random generators then start afresh,
which matters to dropout alone, and sums over processes are rounded in another order.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from prm_kit.distributed import World
from prm_kit.errors import InputError, UsageError
from prm_kit.files import write_json

_MOMENTS = ("exp_avg", "exp_avg_sq")


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
        extra: What a loop of another kind has to remember; JSON data.
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
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainingState:
    """Everything that changes while training, and how it is saved and read back.

    Attributes:
        folder: OUT/state.
        model: Its parameters that require a gradient are saved; the others never change.
        optimizer: AdamW.
        world: The processes of the run; all of them save and load together.
        standing: Where the run stands.
        kept: A model that does not learn and yet changes: all its weights are saved too.
    """

    folder: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    world: World = field(default_factory=World)
    standing: Standing = field(default_factory=Standing)
    kept: nn.Module | None = None

    def save(self, new_best: bool = False, random: dict[str, Any] | None = None) -> None:
        """Save the run as it stands; a state that is there already is kept.

        Args:
            new_best: The present weights are the best on the development set.
            random: What `random` returned, to be saved; None: the present states.
        """
        path = self.folder / f"update-{self.standing.update:07d}-line-{self.standing.metrics_lines:07d}"
        previous = self.world.agree(latest_state(self.folder))
        if path == previous:
            return
        with self.world.whole_directory(path) as part:
            _write(trained_weights(self.model), part / "weights", self.world)
            if self.standing.update:
                _write(_optimizer_tensors(self.model, self.optimizer), part / "optimizer", self.world)
            if self.kept is not None:
                _write(_all_weights(self.kept), part / "kept", self.world)
            torch.save(random or self.random(), part / f"random-{self.world.rank}.pt")
            if self.world.is_first:
                if new_best:
                    _link(part / "weights", part / "best")
                elif previous is not None and (previous / "best").exists():
                    _link(previous / "best", part / "best")
                write_json(part / "standing.json", asdict(self.standing))
        if self.world.is_first:
            for old in self.folder.glob("update-*"):
                if old != path:
                    shutil.rmtree(old)

    def load(self) -> bool:
        """Go back to the latest saved state, random generators included; False if there is none.

        Raises:
            InputError: The state cannot be read.
        """
        path = self.world.agree(latest_state(self.folder))
        if path is None:
            return False
        try:
            self.standing = Standing(**_saved_standing(path))
            _read(trained_weights(self.model), path / "weights", self.world)
            if self.standing.update:
                self._load_optimizer(path / "optimizer")
            if self.kept is not None:
                _read(_all_weights(self.kept), path / "kept", self.world)
            same_size = len(list(path.glob("random-*.pt"))) == self.world.size
            mine = path / f"random-{self.world.rank}.pt"
            random = torch.load(mine, weights_only=True, map_location="cpu") if same_size else None
        except Exception as error:  # damaged files end in many kinds of error
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise InputError(f"{path}: this saved state cannot be read ({reason}); train into another folder") from None
        if random is not None:
            torch.set_rng_state(random["cpu"])
            if random["cuda"] is not None and self._device.type == "cuda":
                torch.cuda.set_rng_state(random["cuda"], self._device)
        return True

    def random(self) -> dict[str, Tensor | None]:
        """The states of torch's random generators, of the CPU and of the model's device."""
        device = self._device
        return {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def take_best(self) -> None:
        """Put the weights that were best on the development set into the model."""
        path = self.world.agree(latest_state(self.folder))
        if path is not None and (path / "best").exists():
            _read(trained_weights(self.model), path / "best", self.world)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _load_optimizer(self, path: Path) -> None:
        saved = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
        for name, p in self.model.named_parameters():
            if f"{name}.step" in saved:  # a weight that had no gradient yet has no state
                step = torch.zeros((), device=p.device)
                self.optimizer.state[p] = {"step": step, **{key: torch.zeros_like(p) for key in _MOMENTS}}
        _read(_optimizer_tensors(self.model, self.optimizer), path, self.world)


def latest_state(folder: Path) -> Path | None:
    """The saved state of the most updates, None if there is none."""
    return max(folder.glob("update-*"), default=None)


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that training changes, by name; they share the model's memory."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def _all_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def set_trained_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights into a model that `trained_weights` would name alike.

    Raises:
        ValueError: The names or shapes are not those of the model.
    """
    mine = trained_weights(model)
    if mine.keys() != weights.keys():
        raise ValueError(f"weights differ in names: {sorted(mine.keys() ^ weights.keys())[:5]}")
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


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's state by the names of the weights; they share its memory. Its settings come from the run's."""
    found = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter)
        if state:  # the step as a vector: safetensors cannot cut a slice out of a scalar
            found[f"{name}.step"] = state["step"].view(1)
            found |= {f"{name}.{key}": state[key] for key in _MOMENTS}
    return found


def _write(tensors: dict[str, Tensor], path: Path, world: World) -> None:
    with _plain_errors():
        writer = HuggingFaceStorageWriter(str(path), save_distributed=True)
        save(dict(tensors), storage_writer=writer, no_dist=world.size == 1)


def _read(tensors: dict[str, Tensor], path: Path, world: World) -> None:
    """Read into the tensors, slices of any other number of processes too."""
    with _plain_errors():
        load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(path)), no_dist=world.size == 1)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise what went wrong, not torch's collection of it, and do not warn that one process is alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except CheckpointException as error:
            raise next(iter(error.failures.values()))[0] from None


def _link(source: Path, target: Path) -> None:
    """Copy a folder of files; hard links where the file system has them."""
    target.mkdir()
    for file in source.iterdir():
        try:
            os.link(file, target / file.name)
        except OSError:
            shutil.copyfile(file, target / file.name)
