"""Train a PRM: everything is put together and checked here, and `TrainLoop` goes round.

`TrainSettings` says what it does, `TrainingState` how it survives a kill.

OUT/
  recipe.yaml, versions.json, metrics.jsonl, timings.jsonl, summary.json   as `RunDirectory` leaves them
  inputs.json     settings and hashes of the data: a run goes on only with the same ones
  state/          the latest resumable state; gone once the run is done
  checkpoint/     the PRM
  nonfinite.json  only where the loss was not finite: the update and its solutions
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from prm_kit.checkpoints import starting_prm
from prm_kit.cuda_extras import check_four_bit
from prm_kit.distributed import World, world_of_torchrun
from prm_kit.errors import InputError, UsageError
from prm_kit.interruption import Interruption
from prm_kit.metrics_log import Progress
from prm_kit.optimization import need_package
from prm_kit.records import Labelled
from prm_kit.run_directory import RunDirectory
from prm_kit.train_forward import shares_prefixes
from prm_kit.train_loop import TrainLoop
from prm_kit.train_model import TrainedModel
from prm_kit.train_settings import TrainSettings
from prm_kit.train_start import chosen_device
from prm_kit.train_update import memory_named
from prm_kit.training_data import training_data
from prm_kit.training_state import check_same_inputs

FREE_TO_CHANGE = {"micro_batch_tokens", "gradient_checkpointing", "reshard", "liger", "device"}
"""Settings that a run may go on with others of: they change memory and speed, and the result by rounding only."""


def train(
    settings: TrainSettings,
    train_set: Iterable[Labelled],
    dev_set: Iterable[Labelled],
    out: Path,
    *,
    manifests: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a PRM and leave it in OUT/checkpoint. A run that was stopped goes on; one that is done is not redone.

    On the CPU the same settings, data, thread count and number of processes give the same metrics.jsonl, byte for byte,
    interrupted or not. Under torchrun every process calls this with the same arguments; the work of each update is
    dealt among them, which changes the result by rounding only.

    Args:
        settings: What to do.
        train_set: To learn from.
        dev_set: To choose the best weights by and to stop early; may be empty. Split by problem.
        out: The run's directory.
        manifests: Hashes of the data sets' manifests, for the checkpoint's card.
        progress: See `Progress`.

    Returns:
        The summary, as in OUT/summary.json.

    Raises:
        UsageError: OUT holds another run, an optional package is missing, or the settings do not fit the data.
        InputError: The data or the backbone cannot be used.
        PrmKitError: The loss is not finite, memory does not suffice, or another process is gone.
        KeyboardInterrupt: Stopped by SIGINT or SIGTERM, resumable.
    """
    if settings.tensorboard:
        need_package("tensorboard", "tensorboard: true", "tensorboard")
    with world_of_torchrun() as world, memory_named():
        device = chosen_device(settings.device, world)
        if settings.lora is not None and settings.lora.four_bit:
            check_four_bit(world, device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(settings.seed)
            return _train(settings, train_set, dev_set, out, manifests, progress, world, device)


def _train(
    settings: TrainSettings,
    train_set: Iterable[Labelled],
    dev_set: Iterable[Labelled],
    out: Path,
    manifests: Sequence[str],
    progress: Progress | None,
    world: World,
    device: torch.device,
) -> dict[str, Any]:
    directory = RunDirectory(out, writes=world.is_first)
    with directory.timed("load"):
        in_place = world.size == 1 and not (settings.lora and settings.lora.four_bit)
        prm = starting_prm(settings, device if in_place else torch.device("cpu"))
    with directory.timed("encode"):
        data = training_data(train_set, dev_set, prm.encoder, settings, settings.max_tokens or prm.card.max_tokens)
    _check_dev(settings, bool(data.dev))
    share = shares_prefixes(settings.share_prefixes, prm, data.train, device)
    settings = settings.model_copy(update={"share_prefixes": share})  # decides what an update is made of
    if any(other != data.fingerprint() for other in world.gather(data.fingerprint())):
        raise InputError("the processes of this run were given different data: they must all read the same files")
    with world.in_turn():
        asked = settings.model_dump(exclude=FREE_TO_CHANGE)
        check_same_inputs(out / "inputs.json", {"settings": asked, "data": data.fingerprint()})
    if world.agree((out / "summary.json").exists()):
        done: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        return done
    directory.start({"train": settings.model_dump(mode="json"), "data": data.fingerprint()})
    prm.card = prm.card.model_copy(
        update={
            "neutral_policy": settings.neutral_policy,
            "target": settings.target,
            "max_tokens": settings.max_tokens or prm.card.max_tokens,
            "training_data": tuple(
                dict.fromkeys([*prm.card.training_data, *(manifests or [data.fingerprint()["train"]])])
            ),
            "temperature": 1.0,  # that of a PRM to go on from was found for other weights
        }
    )
    trained = TrainedModel(settings, prm, world, device)
    loop = TrainLoop(settings, trained, data, directory, progress, world)
    with directory.timed("train"), Interruption() as interruption:
        loop.learn(interruption)
        summary = loop.finish(interruption)
    directory.finish(summary)
    if world.is_first:
        shutil.rmtree(out / "state", ignore_errors=True)
    return summary


def _check_dev(settings: TrainSettings, has_dev: bool) -> None:
    idle = [name for name in ("patience", "eval_every") if getattr(settings, name) is not None]
    if idle and not has_dev:
        raise UsageError(f"{', '.join(idle)}: nothing to evaluate on: the development set has no usable label")
