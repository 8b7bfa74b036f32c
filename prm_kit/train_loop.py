"""One training run under way: evaluate when due, stop when done, save when due, update; again.

N read positions, K outputs of the head.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prm_kit.distributed import World
from prm_kit.errors import UsageError
from prm_kit.examples import Example
from prm_kit.interruption import InterruptedSafelyError, Interruption
from prm_kit.metrics_log import Progress
from prm_kit.objectives import Objective, balanced_class_weights
from prm_kit.optimization import adamw, learning_rate_share, stage_of
from prm_kit.run_directory import RunDirectory
from prm_kit.train_forward import Forward
from prm_kit.train_journal import TrainJournal
from prm_kit.train_metrics import StepMetrics, baseline_metrics, is_better
from prm_kit.train_model import TrainedModel
from prm_kit.train_plan import TrainPlan
from prm_kit.train_settings import TrainSettings
from prm_kit.train_summary import training_summary
from prm_kit.train_update import Work
from prm_kit.training_data import TrainingData, sample_like
from prm_kit.training_state import TrainingState


class TrainLoop:
    """Everything that a run holds while it goes."""

    def __init__(
        self,
        settings: TrainSettings,
        trained: TrainedModel,
        data: TrainingData,
        directory: RunDirectory,
        progress: Progress | None,
        world: World,
    ) -> None:
        self.settings, self.trained, self.data, self.world = settings, trained, data, world
        self.directory, self.prm = directory, trained.prm
        self.model: nn.Module = trained.prm.model
        share = bool(settings.share_prefixes)
        members = len(self.prm.head.weight) // 3 if settings.objective == "ensemble" else 0
        self.forward = Forward(self.prm, settings.precision, settings.micro_batch_tokens, share, members, settings.seed)
        self.plan = TrainPlan(settings, data.train)
        self.class_weights = _class_weights(settings, data.masses)
        self.objective = Objective(
            settings.objective, self.class_weights, 4.0 if settings.margin is None else settings.margin
        )
        dev_total = self.objective.total(self.forward.targets(data.dev)) if data.dev else 1.0
        _check_plan(settings, self.plan.updates, dev_total)
        self.work = Work(self.forward, trained.shards, world)
        self.optimizer = adamw(
            self.model,
            self.prm.head,
            learning_rate=settings.learning_rate,
            head_learning_rate=settings.head_learning_rate or settings.learning_rate,
            weight_decay=settings.weight_decay,
            beta2=settings.beta2,
        )
        torch.manual_seed(settings.seed + 1_000_003 * world.rank)  # dropout differs between processes
        self.state = TrainingState(directory.path / "state", self.model, self.optimizer, world)
        self.resumed = self.state.load()
        self.standing = self.state.standing
        self.journal = TrainJournal(
            directory, self.standing, self.plan.updates, world, tensorboard=settings.tensorboard, progress=progress
        )
        self.seconds: dict[str, float] = {}
        self.tokens_before = self.standing.tokens

    def learn(self, interruption: Interruption) -> None:
        """The loop: evaluate when due, stop when done, save when due, update."""
        settings, standing = self.settings, self.standing
        eval_every = settings.eval_every or self.plan.per_epoch
        clocks = time.perf_counter(), time.process_time()
        while True:
            random = self.state.random()
            try:
                at_eval = standing.update % eval_every == 0 or standing.update == self.plan.updates
                if self.data.dev and at_eval and standing.evaluated != standing.update:
                    self._judge(interruption)
                if standing.update == self.plan.updates or self._out_of_patience():
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
        trained_parameters = self.trained.trained_parameters  # adapters are merged when it is saved
        self.trained.save(self.directory.path / "checkpoint")
        self.journal.close()
        return training_summary(
            settings,
            standing,
            data,
            updates=self.plan.updates,
            per_epoch=self.plan.per_epoch,
            share_prefixes=self.forward.share_prefixes,
            class_weights=self.class_weights,
            train_metrics=train_metrics,
            train_prior_metrics=self._baseline(sample),
            dev_metrics=standing.best if keeps_best else standing.last,
            dev_prior_metrics=self._baseline(data.dev) if data.dev else None,
        ) | {
            "parameters": {"all": self.trained.parameters, "trained": trained_parameters},
            "device": str(self.prm.device),
            "processes": self.world.size,
            "liger": self.trained.liger,
            "micro_batch_tokens": self.work.forward.token_budget,
            "bfloat16": self.trained.bfloat16,
            "checkpoint": "checkpoint",
            "resumed": self.resumed,
            "seconds": self.seconds,
            "tokens_this_run": standing.tokens - self.tokens_before,
        }

    def _update(self, interruption: Interruption) -> None:
        """One optimiser update. Interrupted, it leaves the weights as they were."""
        settings, standing = self.settings, self.standing
        units = self.plan.units(standing.update)
        examples = [example for unit in units for example in unit]
        # While only the head learns, the backbone computes no gradient, so the optimiser knows nothing of it yet.
        self.prm.head_only = standing.update < settings.head_updates
        share = learning_rate_share(
            *stage_of(standing.update, self.plan.updates, settings.head_updates),
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
            self.journal.refuse_nonfinite(found, [group["lr"] for group in self.optimizer.param_groups])
        self.optimizer.step()
        standing.update += 1
        standing.tokens += sum(len(example.ids) for example in examples)
        standing.computed_tokens += found.computed_tokens
        steps = sum(len(example.positions) for example in examples)
        standing.targets += steps
        if standing.update % settings.log_every == 0 or standing.update == self.plan.updates:
            self.journal.log(
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
        self.journal.log("dev", metrics)
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

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.standing.stale >= self.settings.patience


def _class_weights(settings: TrainSettings, masses: Sequence[float]) -> list[float] | None:
    if settings.class_weights == "none":
        return None
    return balanced_class_weights(masses) if settings.class_weights == "balanced" else list(settings.class_weights)


def _check_plan(settings: TrainSettings, updates: int, dev_total: float) -> None:
    """Refuse a run of which a part would do nothing."""
    if settings.head_updates >= updates:
        raise UsageError(f"head_updates: {settings.head_updates} of {updates} updates: none is left for the rest")
    if dev_total == 0:
        raise UsageError(
            f"no step of the development set counts for objective {settings.objective} with class_weights "
            f"{settings.class_weights}: its loss would always be 0"
        )
