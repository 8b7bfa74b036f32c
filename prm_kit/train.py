"""Train a PRM: one loop, top to bottom. `TrainSettings` says what it does, `TrainingState` how it survives a kill.

OUT/
  recipe.yaml, versions.json, metrics.jsonl, timings.jsonl, summary.json   as `RunDirectory` leaves them
  inputs.json     settings and hashes of the data: a run goes on only with the same ones
  state/          the latest resumable state; gone once the run is done
  checkpoint/     the PRM
  nonfinite.json  only where the loss was not finite: the update and its solutions

N read positions, K outputs of the head.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prm_kit.batching import epoch_updates, updates_per_epoch
from prm_kit.checkpoints import starting_prm
from prm_kit.cuda_extras import check_four_bit, to_four_bit, use_liger
from prm_kit.distributed import World, world_of_torchrun
from prm_kit.errors import InputError, PrmKitError, UsageError
from prm_kit.examples import Example
from prm_kit.files import write_json
from prm_kit.interruption import InterruptedSafelyError, Interruption
from prm_kit.model import Prm
from prm_kit.objectives import Objective, balanced_class_weights
from prm_kit.optimization import adamw, choose_trained, learning_rate_share, merge_adapters, need_package, stage_of
from prm_kit.records import Labelled
from prm_kit.run_directory import RunDirectory
from prm_kit.serve.golden import write_golden
from prm_kit.sharding import Shards, whole_weights
from prm_kit.train_forward import Forward, shares_prefixes, units_of
from prm_kit.train_metrics import StepMetrics, baseline_metrics, is_better
from prm_kit.train_settings import TrainSettings
from prm_kit.train_start import chosen_device, compute_activations_twice, uses_bfloat16
from prm_kit.train_summary import training_summary
from prm_kit.train_update import Gradient, Work, memory_named
from prm_kit.training_data import TrainingData, sample_like, training_data
from prm_kit.training_state import TrainingState, check_same_inputs, set_trained_weights

ProgressCallback = Callable[[int, int, dict[str, Any]], None]
"""Called after every line of metrics.jsonl: updates done, updates in all, the line."""


def train(
    settings: TrainSettings,
    train_set: Iterable[Labelled],
    dev_set: Iterable[Labelled],
    out: Path,
    *,
    manifests: Sequence[str] = (),
    progress: ProgressCallback | None = None,
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
        progress: See `ProgressCallback`.

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
    progress: ProgressCallback | None,
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
    run = _Run(settings, prm, data, directory, progress, world, device)
    with directory.timed("train"), Interruption() as interruption:
        run.learn(interruption)
        summary = run.finish(interruption)
    directory.finish(summary)
    if world.is_first:
        shutil.rmtree(out / "state", ignore_errors=True)
    return summary


FREE_TO_CHANGE = {"micro_batch_tokens", "gradient_checkpointing", "reshard", "liger", "device"}
"""Settings that a run may go on with others of: they change memory and speed, and the result by rounding only."""


class _Run:
    """One run under way."""

    def __init__(
        self,
        settings: TrainSettings,
        prm: Prm,
        data: TrainingData,
        directory: RunDirectory,
        progress: ProgressCallback | None,
        world: World,
        device: torch.device,
    ) -> None:
        self.settings, self.prm, self.data, self.world = settings, prm, data, world
        self.directory, self.progress = directory, progress if world.is_first else None
        self.model: nn.Module = prm.model
        self.parameters = sum(p.numel() for p in self.model.parameters())
        four_bit = settings.lora is not None and settings.lora.four_bit
        if four_bit:
            to_four_bit(prm.model, prm.trunk)
            for part in prm.computed_parts:
                part.to(device)
        self.rebuilds = four_bit or world.size > 1
        self.liger = use_liger(settings.liger, prm.model, device)
        self.adapters = _choose_trained(prm, settings)
        if settings.gradient_checkpointing:
            compute_activations_twice(prm.model)
        bfloat16 = uses_bfloat16(settings.precision, device)
        shards = Shards(*prm.computed_parts, world, device, bfloat16=bfloat16, thrifty=settings.reshard)
        share = bool(settings.share_prefixes)
        members = len(prm.head.weight) // 3 if settings.objective == "ensemble" else 0
        self.forward = Forward(prm, settings.precision, settings.micro_batch_tokens, share, members, settings.seed)
        self.units, self.lengths = units_of(data.train, share, settings.batch_tokens)
        self.per_epoch = updates_per_epoch(self.lengths, settings.batch_tokens)
        self.updates = settings.updates or self.per_epoch * (settings.epochs or 1)
        self.class_weights = _class_weights(settings, data.masses)
        self.objective = Objective(
            settings.objective, self.class_weights, 4.0 if settings.margin is None else settings.margin
        )
        _check_plan(settings, self.updates, self.objective.total(self.forward.targets(data.dev)) if data.dev else 1.0)
        self.work = Work(self.forward, shards, world)
        self.optimizer = adamw(
            self.model,
            prm.head,
            learning_rate=settings.learning_rate,
            head_learning_rate=settings.head_learning_rate or settings.learning_rate,
            weight_decay=settings.weight_decay,
            beta2=settings.beta2,
        )
        torch.manual_seed(settings.seed + 1_000_003 * world.rank)  # dropout differs between processes
        self.state = TrainingState(directory.path / "state", self.model, self.optimizer, world)
        self.resumed = self.state.load()
        self.standing = self.state.standing
        directory.truncate_metrics(self.standing.metrics_lines)
        writes_events = settings.tensorboard and world.is_first
        self.board = _tensorboard(directory.path, self.standing.update) if writes_events else None
        self.plan: tuple[int, list[list[int]]] = (-1, [])
        self.seconds: dict[str, float] = {}
        self.tokens_before = self.standing.tokens

    def learn(self, interruption: Interruption) -> None:
        """The loop: evaluate when due, stop when done, save when due, update."""
        settings, standing = self.settings, self.standing
        eval_every = settings.eval_every or self.per_epoch
        clocks = time.perf_counter(), time.process_time()
        while True:
            random = self.state.random()
            try:
                at_eval = standing.update % eval_every == 0 or standing.update == self.updates
                if self.data.dev and at_eval and standing.evaluated != standing.update:
                    self._judge(interruption)
                if standing.update == self.updates or self._out_of_patience():
                    break
                if settings.checkpoint_every and standing.update % settings.checkpoint_every == 0:
                    self.state.save()
                interruption.asked = any(self.world.gather(interruption.asked))  # all stop, or none
                interruption.check()
                self._update(interruption)
            except InterruptedSafelyError:
                self.state.save(random=random)
                raise
        self.seconds = {
            "wall": round(time.perf_counter() - clocks[0], 3),
            "cpu": round(time.process_time() - clocks[1], 3),
        }
        self.state.save()

    def finish(self, interruption: Interruption) -> dict[str, Any]:
        """Take the best weights, measure them on training data too, save the checkpoint, and sum up."""
        settings, standing, data = self.settings, self.standing, self.data
        keeps_best = settings.keep_best and standing.best is not None
        if keeps_best:
            self.state.take_best()
        sample = sample_like(data.train, max(len(data.dev), 256))
        train_metrics = self._evaluate(sample, interruption)
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self._save_checkpoint()
        if self.board is not None:
            self.board.close()
        return training_summary(
            settings,
            standing,
            data,
            updates=self.updates,
            per_epoch=self.per_epoch,
            share_prefixes=self.forward.share_prefixes,
            class_weights=self.class_weights,
            train_metrics=train_metrics,
            train_prior_metrics=self._baseline(sample),
            dev_metrics=standing.best if keeps_best else standing.last,
            dev_prior_metrics=self._baseline(data.dev) if data.dev else None,
        ) | {
            "parameters": {"all": self.parameters, "trained": trained},
            "device": str(self.prm.device),
            "processes": self.world.size,
            "liger": self.liger,
            "micro_batch_tokens": self.work.forward.token_budget,
            "bfloat16": uses_bfloat16(settings.precision, self.prm.device),
            "checkpoint": "checkpoint",
            "resumed": self.resumed,
            "seconds": self.seconds,
            "tokens_this_run": standing.tokens - self.tokens_before,
        }

    def _update(self, interruption: Interruption) -> None:
        """One optimiser update. Interrupted, it leaves the weights as they were."""
        settings, standing = self.settings, self.standing
        units = self._units(standing.update)
        examples = [example for unit in units for example in unit]
        # While only the head learns, the backbone computes no gradient, so the optimiser knows nothing of it yet.
        self.prm.head_only = standing.update < settings.head_updates
        share = learning_rate_share(
            *stage_of(standing.update, self.updates, settings.head_updates),
            warmup=settings.warmup,
            schedule=settings.schedule,
            final=settings.final_learning_rate,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        total = self.objective.total(self.forward.targets(examples))
        self.model.train()

        def loss_of(batch: Sequence[Example]) -> Tensor:
            logits_NK, targets = self.forward.logits(batch)
            return self.objective.loss(logits_NK, targets) / total

        check = self._check_of(interruption)
        found = self.work.gradient(units, loss_of, self.optimizer, settings.max_gradient_norm, check)
        if not found.is_finite:
            self._refuse_nonfinite(found)
        self.optimizer.step()
        standing.update += 1
        standing.tokens += sum(len(example.ids) for example in examples)
        standing.computed_tokens += found.computed_tokens
        steps = sum(len(example.positions) for example in examples)
        standing.targets += steps
        if standing.update % settings.log_every == 0 or standing.update == self.updates:
            self._log(
                "train",
                {
                    "loss": found.loss,
                    "gradient_norm": found.norm,
                    "learning_rate": settings.learning_rate * share,
                    "steps": steps,
                    "tokens": standing.tokens,
                },
            )

    def _judge(self, interruption: Interruption) -> None:
        """Evaluate on the development set, keep the account of the best, and save."""
        standing = self.standing
        metrics = self._evaluate(self.data.dev, interruption)
        standing.evaluated = standing.update
        standing.last = metrics
        standing.untrained = metrics if standing.update == 0 else standing.untrained
        better = is_better(self.settings.metric, metrics, standing.best)
        if better:
            standing.best, standing.best_update, standing.stale = metrics, standing.update, 0
        else:
            standing.stale += 1
        self._log("dev", metrics)
        if (better and self.settings.keep_best) or self.settings.checkpoint_every is None:
            self.state.save(new_best=better and self.settings.keep_best)

    def _evaluate(self, examples: Sequence[Example], interruption: Interruption) -> dict[str, float]:
        metrics = StepMetrics(self.objective)
        self.model.eval()
        self.work.evaluate(
            examples, lambda batch: metrics.add(*self.forward.logits(batch)), self._check_of(interruption)
        )
        metrics.sums = np.array(self.world.sum(metrics.sums.tolist()))
        return metrics.result()

    def _baseline(self, examples: Sequence[Example]) -> dict[str, float]:
        targets = self.forward.targets
        return baseline_metrics(self.objective, targets(self.data.train), targets(examples))

    def _check_of(self, interruption: Interruption) -> Callable[[], None]:
        """What may stop the work in the middle; several processes stop together, as they agree between updates."""
        return interruption.check if self.world.size == 1 else lambda: None

    def _save_checkpoint(self) -> None:
        """Leave the PRM as one plain directory. What is in slices or in 4 bits is put into a whole model first."""
        prm, adapters = self.prm, self.adapters
        if self.rebuilds:
            weights = whole_weights(self.model, self.world)
            if not self.world.is_first:
                return
            prm = starting_prm(self.settings, torch.device("cpu"))
            adapters = _choose_trained(prm, self.settings)
            set_trained_weights(prm.model, weights)
            prm.card = self.prm.card
        if adapters is not None:
            merge_adapters(adapters)
        prm.model.requires_grad_(True).train(mode=False)
        prm.save(self.directory.path / "checkpoint")
        if type(prm) is Prm:  # what other servers can serve
            write_golden(prm, self.directory.path / "checkpoint")

    def _units(self, update: int) -> list[list[Example]]:
        epoch, position = divmod(update, self.per_epoch)
        if self.plan[0] != epoch:
            settings = self.settings
            pool = 1 if self.forward.share_prefixes else settings.bucket_updates
            self.plan = epoch, epoch_updates(self.lengths, settings.batch_tokens, pool, settings.seed, epoch)
        return [[self.data.train[index] for index in self.units[unit]] for unit in self.plan[1][position]]

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.standing.stale >= self.settings.patience

    def _log(self, part: str, values: dict[str, Any]) -> None:
        line = {"update": self.standing.update, "part": part, **values}
        self.directory.log(**line)
        self.standing.metrics_lines += 1
        if self.board is not None:
            for key, value in values.items():
                self.board.add_scalar(f"{part}/{key}", value, self.standing.update)
        if self.progress is not None:
            self.progress(self.standing.update, self.updates, line)

    def _refuse_nonfinite(self, found: Gradient) -> None:
        path, solutions = self.directory.path / "nonfinite.json", found.suspects
        if self.world.is_first:
            write_json(
                path,
                {
                    "update": self.standing.update,
                    "loss": str(found.loss),
                    "gradient_norm": str(found.norm),
                    "learning_rates": [group["lr"] for group in self.optimizer.param_groups],
                    "solutions": solutions,
                },
            )
        raise PrmKitError(
            f"update {self.standing.update}: the loss ({found.loss}) or its gradient ({found.norm}) is not finite; "
            f"the weights were left as they were. All {len(solutions)} solutions are in {path}: "
            f"{', '.join(solutions[:3])}{', ...' if len(solutions) > 3 else ''}. "
            "Try a lower learning_rate, or precision: float32."
        )


def _choose_trained(prm: Prm, settings: TrainSettings) -> Any:
    return choose_trained(
        prm.model, prm.head, train_layers=settings.train_layers, lora=settings.lora, fresh_head=prm.fresh_head
    )


def _class_weights(settings: TrainSettings, masses: Sequence[float]) -> list[float] | None:
    if settings.class_weights == "none":
        return None
    return balanced_class_weights(masses) if settings.class_weights == "balanced" else list(settings.class_weights)


def _check_dev(settings: TrainSettings, has_dev: bool) -> None:
    idle = [name for name in ("patience", "eval_every") if getattr(settings, name) is not None]
    if idle and not has_dev:
        raise UsageError(f"{', '.join(idle)}: nothing to evaluate on: the development set has no usable label")


def _check_plan(settings: TrainSettings, updates: int, dev_total: float) -> None:
    """Refuse a run of which a part would do nothing."""
    if settings.head_updates >= updates:
        raise UsageError(f"head_updates: {settings.head_updates} of {updates} updates: none is left for the rest")
    if dev_total == 0:
        raise UsageError(
            f"no step of the development set counts for objective {settings.objective} with class_weights "
            f"{settings.class_weights}: its loss would always be 0"
        )


def _tensorboard(path: Path, update: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(path / "tensorboard"), purge_step=update)
