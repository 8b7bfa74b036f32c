"""One run under way: sample groups, reward them, turn rewards into advantages (or pairs), step down the loss; again.

The loop branches on nothing but whether the algorithm has a surrogate, pairs, a critic. B rollouts, T generated tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prm_kit.engines.engine import occurrences
from prm_kit.interruption import Interruption
from prm_kit.metrics_log import Progress
from prm_kit.optimization import learning_rate_share
from prm_kit.records import Problem
from prm_kit.run_directory import RunDirectory
from prm_kit.training_state import TrainingState
from rl.alarms import first_alarms
from rl.batch import Batch
from rl.dealing import dealt
from rl.draws import Draws
from rl.gathering import Earned, Gathered
from rl.held_out import Figures, better, held_out_figures, held_out_line
from rl.journal import Journal
from rl.learning import Learner, Material, pairs_of
from rl.models import Models
from rl.objective import update_of
from rl.online_prm import OnlineJudge
from rl.phases import Phases
from rl.presets import CONTESTED
from rl.process_weight import process_weight, weighed
from rl.rollouts import check_finite
from rl.rounds import Rounds
from rl.stopping import stop_reason
from rl.train_settings import RlSettings
from rl.update_metrics import shown_rollouts, update_line

_KEPT_HISTORY = 10_000
"""Groups whose mean rewards are remembered for filters that adapt."""


class Loop:
    """Everything that a run holds while it goes."""

    def __init__(
        self,
        settings: RlSettings,
        held_out: Sequence[Problem],
        rounds: Rounds,
        models: Models,
        directory: RunDirectory,
        phases: Phases,
        progress: Progress | None,
    ) -> None:
        self.phases, self.directory = phases, directory
        self.settings, self.held_out, self.rounds, self.models = settings, held_out, rounds, models
        self.algorithm, self.world = rounds.rewarding.algorithm, models.world
        optimizer = models.optimizer()
        self.learner = Learner(self.algorithm, settings, models, optimizer)
        self.judge = None
        if self.algorithm.online_prm is not None:
            self.judge = OnlineJudge(self.algorithm.online_prm, self.learner.passes, optimizer)
        self.state = TrainingState(directory.path / "state", models.trained, optimizer, self.world)
        if settings.reference_every and models.reference is not None:
            self.state.kept = models.reference
        self.stopped: str | None = None
        self.resumed = self.state.load()
        models.sync()
        self.standing = self.state.standing
        self.journal = Journal(
            directory, self.standing, settings.updates, self.world, tensorboard=settings.tensorboard, progress=progress
        )
        memory = self.standing.extra.setdefault("draws", {})
        self.draws = Draws(len(rounds.problems), settings.seed, self.algorithm.problem_filter, memory)

    def go(self, interruption: Interruption) -> dict[str, Any]:
        """All updates, and the summary."""
        settings, standing = self.settings, self.standing
        while True:
            every = settings.eval_every
            due = standing.update in (0, settings.updates) or (every is not None and standing.update % every == 0)
            if self.held_out and due and standing.evaluated < standing.update:
                self._evaluate()
            if standing.update >= settings.updates:
                break
            self.stopped = stop_reason(settings.stop, self.journal.lines)
            if self.stopped is not None:
                if self.held_out and standing.evaluated < standing.update:
                    self._evaluate()
                break
            interruption.asked = any(self.world.gather(interruption.asked))  # all stop, or none
            if interruption.asked:
                self.state.save()
            interruption.check()
            self._update(standing.update)
            self.phases.tell(self.directory, standing.update)
            standing.update += 1
            if settings.reference_every and standing.update % settings.reference_every == 0:
                self.models.refresh_reference()
            if settings.checkpoint_every and standing.update % settings.checkpoint_every == 0:
                self.state.save()
        self.journal.close()
        return self._summary()

    def _update(self, number: int) -> None:
        """Sample, reward, learn, tell."""
        settings, journal = self.settings, self.journal
        weight = process_weight(settings.process_weight, self.algorithm.weights.process, number, journal.lines)
        algorithm = weighed(self.algorithm, weight)
        rounds = replace(self.rounds, rewarding=replace(self.rounds.rewarding, algorithm=algorithm))
        with journal.kept_example(number):
            gathered = rounds.gather(number, self.draws)
            check_finite([row.sampled for row in gathered.rows])
        if not gathered.trained:
            counts = {name.replace(" ", "_"): n for name, n in sorted(gathered.counts.items())}
            journal.log("train", {"skipped": 1, **counts})
            return
        with self.phases.of("log-probabilities"):
            batch = self._batch(gathered)
        told = {"learning_rate": self._set_rates(number)}
        if self.judge is not None and algorithm.online_prm is not None:
            with journal.kept_example(number), self.phases.of("online PRM"):
                batch, of_prm = self.judge.judged([row.sampled for row in gathered.rows], batch)
            told |= of_prm
        history = self.standing.extra.setdefault("group_rewards", [])
        update = update_of(algorithm, batch, history) if algorithm.surrogate is not None else None
        pairs = pairs_of(algorithm, gathered.rows, settings.seed * 1_000_003 + number)
        line = update_line(gathered, batch, update, len(pairs))
        if settings.process_weight != "constant":
            line["process_weight"] = weight
        with journal.kept_example(number), self.phases.of("learning"):
            line |= told | self.learner.learn(Material(gathered.rows, batch, update, pairs), number)
        by_group: dict[int, list[Earned]] = {}
        for row in gathered.roots:
            by_group.setdefault(row.sampled.group, []).append(row)
        history += [sum(row.reward for row in rows) / len(rows) for rows in by_group.values()]
        del history[:-_KEPT_HISTORY]
        self.standing.tokens += int((batch.mask_BT & batch.trained_B[:, None]).sum())
        journal.show(number, shown_rollouts(gathered.trained, settings.shown))
        journal.log("train", line)

    def _batch(self, gathered: Gathered) -> Batch:
        """The rows as tensors, with what the algorithm needs of old policy, reference policy and value model."""
        batch, models, frozen = self.rounds.batch(gathered), self.models, self.learner.passes.frozen
        rollouts = [row.sampled for row in gathered.rows]
        if self.settings.recompute_old or self.algorithm.rollout_weight is not None:
            batch = replace(batch, old_BT=frozen(models.learner, rollouts))
        if "reference policy" in self.algorithm.needs:
            with models.reference_policy() as reference:
                batch = replace(batch, reference_BT=frozen(reference, rollouts))
        if models.value is not None:
            batch = replace(batch, values_BT=frozen(models.value, rollouts))
        return batch

    def _set_rates(self, number: int) -> float:
        """Set every model's learning rate for an update; that of the policy."""
        settings = self.settings
        share = learning_rate_share(
            number, settings.updates, warmup=settings.warmup, schedule=settings.schedule, final=0.0
        )
        for group in self.learner.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        return settings.learning_rate * share

    def _evaluate(self) -> None:
        """Measure the policy on held-out problems, each process on its part of them."""
        rounds, told = self.rounds, self.standing.extra.setdefault("held_out", {})

        turns = occurrences([one.text for one in self.held_out])

        def measured(places: range) -> Figures:
            asked, its_turns = self.held_out[places.start : places.stop], turns[places.start : places.stop]
            return held_out_figures(rounds.sampler, rounds.rewarding, asked, self.settings.eval_samples, its_turns)

        parts = dealt(self.world, len(self.held_out), measured)
        found = {name: [value for part in parts for value in part[name]] for name in parts[0]}
        line = held_out_line(found, told.get("best"))
        told.setdefault("before", found)
        told["after"], told["best"] = found, better(found, told.get("best"))
        self.standing.evaluated = self.standing.update
        self.journal.log("held_out", line)

    def _summary(self) -> dict[str, Any]:
        lines, trained = self.journal.lines, self.journal.trained
        return {
            "algorithm": self.algorithm.name,
            "meant": CONTESTED.get(self.algorithm.name),
            "parts": self.algorithm.parts(),
            "updates": self.standing.update,
            "stopped": self.stopped,
            "skipped": sum("skipped" in line for line in lines),
            "rollouts": int(sum(line.get("sampled", 0) for line in lines if line["part"] == "train")),
            "tokens": self.standing.tokens,
            "processes": self.world.size,
            "resumed": self.resumed,
            "held_out": self.standing.extra.get("held_out", {}),
            "last": trained[-1] if trained else {},
            "alarms": first_alarms(lines),
            "inversion": self.rounds.rewarding.inversion(),
        }
