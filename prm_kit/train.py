"""Train a PRM: one loop, top to bottom. `TrainSettings` says what it does, `TrainingState` how it survives a kill.

OUT/
  recipe.yaml, versions.json, metrics.jsonl, timings.jsonl, summary.json   as `RunDirectory` leaves them
  inputs.json     settings and hashes of the data: a run goes on only with the same ones
  state/          the latest resumable state; gone once the run is done
  checkpoint/     the PRM
  nonfinite.json  only where the loss was not finite: the update and its solutions

N read positions, K = 3 classes in the order (-1, 0, +1).
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prm_kit.batching import epoch_updates, updates_per_epoch
from prm_kit.errors import PrmKitError, UsageError
from prm_kit.examples import Example, class_masses
from prm_kit.files import write_json
from prm_kit.interruption import InterruptedSafelyError, Interruption
from prm_kit.model import Prm
from prm_kit.objectives import balanced_class_weights, class_mass, step_cross_entropy
from prm_kit.optimization import adamw, choose_trained, learning_rate_share, merge_adapters, need_package
from prm_kit.records import Labelled
from prm_kit.run_directory import RunDirectory
from prm_kit.train_forward import Forward, shares_prefixes, units_of
from prm_kit.train_metrics import ClassMetrics, is_better, prior_metrics
from prm_kit.train_settings import TrainSettings
from prm_kit.train_start import chosen_device, compute_activations_twice, starting_prm, uses_bfloat16
from prm_kit.train_summary import training_summary
from prm_kit.training_data import TrainingData, sample_like, training_data
from prm_kit.training_state import TrainingState, check_same_inputs, random_states

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

    On the CPU the same settings, data and thread count give the same metrics.jsonl, byte for byte, interrupted or not.

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
        PrmKitError: The loss is not finite.
        KeyboardInterrupt: Stopped by SIGINT or SIGTERM, resumable.
    """
    directory = RunDirectory(out)
    device = chosen_device(settings.device)
    if settings.tensorboard:
        need_package("tensorboard", "tensorboard: true", "tensorboard")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        with directory.timed("load"):
            prm = starting_prm(settings.backbone, settings.seed, device)
        with directory.timed("encode"):
            data = training_data(train_set, dev_set, prm.encoder, settings, settings.max_tokens or prm.card.max_tokens)
        _check_dev(settings, bool(data.dev))
        check_same_inputs(out / "inputs.json", {"settings": settings.model_dump(), "data": data.fingerprint()})
        if (out / "summary.json").exists():
            done: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
            return done
        directory.start({"train": settings.model_dump(mode="json"), "data": data.fingerprint()})
        prm.card = prm.card.model_copy(
            update={
                "neutral_policy": settings.neutral_policy,
                "target": settings.target,
                "max_tokens": settings.max_tokens or prm.card.max_tokens,
                "training_data": tuple(manifests) or (data.fingerprint()["train"],),
            }
        )
        run = _Run(settings, prm, data, directory, progress)
        with directory.timed("train"), Interruption() as interruption:
            run.learn(interruption)
            summary = run.finish(interruption)
        directory.finish(summary)
        shutil.rmtree(out / "state", ignore_errors=True)
    return summary


class _Run:
    """One run under way."""

    def __init__(
        self,
        settings: TrainSettings,
        prm: Prm,
        data: TrainingData,
        directory: RunDirectory,
        progress: ProgressCallback | None,
    ) -> None:
        self.settings, self.prm, self.data = settings, prm, data
        self.directory, self.progress = directory, progress
        share = shares_prefixes(settings.share_prefixes, prm, data.train)
        self.forward = Forward(prm, settings.precision, settings.micro_batch_tokens, share)
        self.units, self.lengths = units_of(data.train, share, settings.batch_tokens)
        self.per_epoch = updates_per_epoch(self.lengths, settings.batch_tokens)
        self.updates = settings.updates or self.per_epoch * (settings.epochs or 1)
        self.class_weights = _class_weights(settings, data.masses)
        self.class_weight_K = None if self.class_weights is None else torch.tensor(self.class_weights).to(prm.device)
        self.model: nn.Module = prm.model
        head = prm.model.score
        assert isinstance(head, nn.Linear)
        self.adapters = choose_trained(prm.model, head, train_layers=settings.train_layers, lora=settings.lora)
        if settings.gradient_checkpointing:
            compute_activations_twice(prm.model)
        self.optimizer = adamw(
            self.model,
            head,
            learning_rate=settings.learning_rate,
            head_learning_rate=settings.head_learning_rate or settings.learning_rate,
            weight_decay=settings.weight_decay,
            beta2=settings.beta2,
        )
        self.state = TrainingState(directory.path / "state", self.model, self.optimizer)
        self.resumed = self.state.load()
        self.standing = self.state.standing
        directory.truncate_metrics(self.standing.metrics_lines)
        self.board = _tensorboard(directory.path, self.standing.update) if settings.tensorboard else None
        self.plan: tuple[int, list[list[int]]] = (-1, [])
        self.seconds: dict[str, float] = {}
        self.tokens_before = self.standing.tokens

    def learn(self, interruption: Interruption) -> None:
        """The loop: evaluate when due, stop when done, save when due, update."""
        settings, standing = self.settings, self.standing
        eval_every = settings.eval_every or self.per_epoch
        clocks = time.perf_counter(), time.process_time()
        while True:
            random = random_states()
            try:
                at_eval = standing.update % eval_every == 0 or standing.update == self.updates
                if self.data.dev and at_eval and standing.evaluated != standing.update:
                    self._judge(interruption)
                if standing.update == self.updates or self._out_of_patience():
                    break
                if settings.checkpoint_every and standing.update % settings.checkpoint_every == 0:
                    self.state.save()
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
        if self.adapters is not None:
            merge_adapters(self.adapters)
        self.model.requires_grad_(True).eval()
        self.prm.save(self.directory.path / "checkpoint")
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
            train_prior_metrics=prior_metrics(data.prior, class_masses(sample), self.class_weights),
            dev_metrics=standing.best if keeps_best else standing.last,
        ) | {
            "parameters": {"all": sum(p.numel() for p in self.model.parameters()), "trained": trained},
            "device": str(self.prm.device),
            "bfloat16": uses_bfloat16(settings.precision, self.prm.device),
            "checkpoint": "checkpoint",
            "resumed": self.resumed,
            "seconds": self.seconds,
            "tokens_this_run": standing.tokens - self.tokens_before,
        }

    def _update(self, interruption: Interruption) -> None:
        """One optimiser update. Interrupted, it leaves the weights as they were."""
        settings, standing = self.settings, self.standing
        examples = self._examples(standing.update)
        share = learning_rate_share(
            standing.update,
            self.updates,
            warmup=settings.warmup,
            schedule=settings.schedule,
            final=settings.final_learning_rate,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        batches = self.forward.batches(examples)
        total = self._weight(examples)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for batch in batches:
            interruption.check()
            with self.forward.attention():
                logits_NK, target_NK = self.forward.logits(batch)
                loss = step_cross_entropy(logits_NK, class_mass(target_NK, self.class_weight_K), total)
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(
            [p for group in self.optimizer.param_groups for p in group["params"]],
            settings.max_gradient_norm or math.inf,
            foreach=True,
        )
        loss_sum, gradient_norm = float(torch.stack(losses).sum()), float(norm)
        if not (math.isfinite(loss_sum) and math.isfinite(gradient_norm)):
            self._refuse_nonfinite(batches, [float(loss) for loss in losses], gradient_norm)
        self.optimizer.step()
        standing.update += 1
        standing.tokens += sum(len(example.ids) for example in examples)
        standing.computed_tokens += sum(self.forward.computed_tokens(batch) for batch in batches)
        steps = sum(len(example.positions) for example in examples)
        standing.targets += steps
        if standing.update % settings.log_every == 0 or standing.update == self.updates:
            self._log(
                "train",
                {
                    "loss": loss_sum,
                    "gradient_norm": gradient_norm,
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
        metrics = ClassMetrics(self.class_weights)
        self.model.eval()
        with torch.inference_mode(), self.forward.attention():
            for batch in self.forward.batches(examples):
                interruption.check()
                logits_NK, target_NK = self.forward.logits(batch)
                metrics.add(torch.log_softmax(logits_NK, dim=-1).cpu().numpy(), target_NK.cpu().numpy())
        return metrics.result()

    def _weight(self, examples: Sequence[Example]) -> float:
        masses = class_masses(examples)
        return float(sum(m * w for m, w in zip(masses, self.class_weights or [1.0] * 3, strict=True)))

    def _examples(self, update: int) -> list[Example]:
        epoch, position = divmod(update, self.per_epoch)
        if self.plan[0] != epoch:
            settings = self.settings
            pool = 1 if self.forward.share_prefixes else settings.bucket_updates
            self.plan = epoch, epoch_updates(self.lengths, settings.batch_tokens, pool, settings.seed, epoch)
        return [self.data.train[index] for unit in self.plan[1][position] for index in self.units[unit]]

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

    def _refuse_nonfinite(self, batches: list[list[Example]], losses: list[float], gradient_norm: float) -> None:
        bad = [batch for batch, loss in zip(batches, losses, strict=True) if not math.isfinite(loss)] or batches
        solutions = list(dict.fromkeys(example.solution_id for batch in bad for example in batch))
        path = self.directory.path / "nonfinite.json"
        write_json(
            path,
            {
                "update": self.standing.update,
                "losses": [str(loss) for loss in losses],
                "gradient_norm": str(gradient_norm),
                "learning_rates": [group["lr"] for group in self.optimizer.param_groups],
                "solutions": solutions,
            },
        )
        raise PrmKitError(
            f"update {self.standing.update}: the loss ({sum(losses)}) or its gradient ({gradient_norm}) is not finite; "
            f"the weights were left as they were. All {len(solutions)} solutions are in {path}: "
            f"{', '.join(solutions[:3])}{', ...' if len(solutions) > 3 else ''}. "
            "Try a lower learning_rate, or precision: float32."
        )


def _class_weights(settings: TrainSettings, masses: Sequence[float]) -> list[float] | None:
    if settings.class_weights == "none":
        return None
    return balanced_class_weights(masses) if settings.class_weights == "balanced" else list(settings.class_weights)


def _check_dev(settings: TrainSettings, has_dev: bool) -> None:
    idle = [name for name in ("patience", "eval_every") if getattr(settings, name) is not None]
    if idle and not has_dev:
        raise UsageError(f"{', '.join(idle)}: nothing to evaluate on: the development set has no usable label")


def _tensorboard(path: Path, update: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(path / "tensorboard"), purge_step=update)
