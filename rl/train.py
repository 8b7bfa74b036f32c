"""Reinforcement learning of a policy: one loop, top to bottom.

What it does is an `Algorithm`; the loop branches on nothing but whether that has a surrogate, pairs, a critic.

OUT/
  recipe.yaml, versions.json, metrics.jsonl, timings.jsonl, summary.json   as `RunDirectory` leaves them
  inputs.json      settings and hashes of the problems: a run goes on only with the same ones
  rollouts.jsonl   some rollouts of every update with what they earned
  state/           the latest resumable state; gone once the run is done
  checkpoint/      the policy
  nonfinite.json   only where a reward or a loss was not finite: the update and its rollouts
  tensorboard/     the same as metrics.jsonl, where asked for

An update: sample groups, reward them, turn rewards into advantages (or pairs), step down the loss of each minibatch.
B rollouts, T generated tokens.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prm_kit.engines.transformers_engine import TransformersEngine
from prm_kit.errors import PrmKitError, UsageError
from prm_kit.files import complete_lines, value_sha256, whole_directory, whole_file, write_json
from prm_kit.interruption import Interruption
from prm_kit.optimization import adamw, learning_rate_share, need_package
from prm_kit.policy import Policy
from prm_kit.records import Problem
from prm_kit.run_directory import RunDirectory
from prm_kit.train_start import chosen_device, compute_activations_twice
from prm_kit.training_state import TrainingState, check_same_inputs
from rl.algorithms import Algorithm
from rl.batch import Batch
from rl.credit import Credit
from rl.draws import Draws
from rl.gathering import Earned, Gathered, batch_of
from rl.hacking import alarms
from rl.held_out import held_out_accuracy
from rl.learning import Learner, Material, pairs_of
from rl.objective import update_of
from rl.policy_model import ValueModel, check_policy
from rl.presets import CONTESTED, algorithm
from rl.rewarding import Reward, Rewarding, Verify
from rl.rollouts import NotFiniteError, Sampler
from rl.train_settings import RlSettings
from rl.update_metrics import shown_rollouts, update_line

if TYPE_CHECKING:
    from prm_kit.score import StepScorer

Progress = Callable[[int, int, dict[str, Any]], None]
"""Called after every line of metrics.jsonl: updates done, updates in all, the line."""

_KEPT_HISTORY = 10_000

_REFERENCE_SEED = 104_729
"""What the reference policy answers has random numbers of its own: with those of the first rollout of the group it
would say the same as long as both policies are alike, and a baseline must not know what it is compared with."""


def train(
    settings: RlSettings,
    problems: Sequence[Problem],
    verify: Verify,
    out: Path,
    *,
    scorer: StepScorer | None = None,
    held_out: Sequence[Problem] = (),
    rewards: Mapping[str, tuple[float, Reward]] | None = None,
    credit: Credit | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a policy and leave it in OUT/checkpoint. A run that was stopped goes on; one that is done is not redone.

    On the CPU the same settings, problems and thread count give the same metrics.jsonl, interrupted or not.

    Args:
        settings: The run.
        problems: To train on.
        verify: Judges final answers.
        out: The run's directory.
        scorer: Judges steps; needed where the algorithm asks for step rewards.
        held_out: Problems to measure accuracy on; none of them is trained on.
        rewards: Rewards of your own by name, each with its weight.
        credit: A credit rule of your own, instead of the algorithm's.
        about: What else makes this run (the PRM's path and hash, say): a run goes on only with the same.
        progress: See `Progress`.

    Raises:
        UsageError: A problem has no room or is on both sides, the algorithm lacks what it needs or cannot learn with
            these settings, or `out` holds another run.
        PrmKitError: A reward, loss or gradient is not finite.
        KeyboardInterrupt: Stopped by SIGINT or SIGTERM, resumable.
    """
    parts = settings.parts if credit is None else {**settings.parts, "credit": credit}
    composition = algorithm(settings.algorithm, parts)
    _check_learns(settings, composition)
    if settings.tensorboard:
        need_package("tensorboard", "tensorboard: true", "tensorboard")
    if not problems:
        raise UsageError("there is no problem to train on")
    if both := {one.text for one in problems} & {one.text for one in held_out}:
        raise UsageError(f"{len(both)} problems are trained on and held out, the first: {min(both)[:80]!r}")
    run = RunDirectory(out)
    hashes = {"problems": value_sha256(_texts(problems)), "held_out": value_sha256(_texts(held_out))}
    asked = {
        "settings": settings.model_dump(mode="json"),
        "algorithm": composition.parts(),
        "rewards": {name: weight for name, (weight, _) in (rewards or {}).items()},
        "data": hashes,
        "about": dict(about or {}),
    }
    if (out / "summary.json").exists():
        check_same_inputs(out / "inputs.json", asked)
        done: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        return done
    policy = Policy.load(settings.policy, chosen_device(settings.device))
    check_policy(policy.model)
    if settings.gradient_checkpointing:
        compute_activations_twice(policy.model)
    engine = TransformersEngine(policy.model)
    sampler = Sampler(policy, engine, settings.split, settings.max_new_tokens, settings.temperature, settings.seed)
    sampler.check([*problems, *held_out])
    rewarding = Rewarding(
        composition, verify, settings.max_new_tokens, scorer, settings.process, settings.format_checks, rewards or {}
    )
    check_same_inputs(out / "inputs.json", asked)  # not before all else is in order: what is refused leaves no trace
    run.start({"rl": asked["settings"], "algorithm": asked["algorithm"], **hashes, **asked["about"]})
    with run.timed("train"), torch.random.fork_rng(), Interruption() as interruption:
        torch.manual_seed(settings.seed)
        training = _Run(settings, problems, held_out, sampler, rewarding, run, progress)
        summary = training.go(interruption)
    with whole_directory(out / "checkpoint") as part:
        policy.save(part)
    run.finish(summary)
    shutil.rmtree(out / "state", ignore_errors=True)
    return summary


def _check_learns(settings: RlSettings, composition: Algorithm) -> None:
    who = f"algorithm {composition.name}"
    if composition.on_policy_only and settings.passes > 1:
        raise UsageError(f"passes: {settings.passes}: the surrogate of {who} is right for one pass over a rollout only")
    waits = 0 if composition.critic is None else composition.critic.warm_up
    if waits >= settings.updates:
        raise UsageError(
            f"updates: {settings.updates}: {who} trains nothing but its value model for the first {waits}; ask for "
            "more updates, or for less with parts.critic.warm_up"
        )


def _texts(problems: Sequence[Problem]) -> list[tuple[str, str | None]]:
    return [(problem.text, problem.reference_answer) for problem in problems]


class _Run:
    """Everything that a run holds while it goes."""

    def __init__(
        self,
        settings: RlSettings,
        problems: Sequence[Problem],
        held_out: Sequence[Problem],
        sampler: Sampler,
        rewarding: Rewarding,
        directory: RunDirectory,
        progress: Progress | None,
    ) -> None:
        self.settings, self.problems, self.held_out = settings, problems, held_out
        self.sampler, self.rewarding, self.algorithm = sampler, rewarding, rewarding.algorithm
        self.directory, self.progress = directory, progress
        self.policy = sampler.policy.model
        self.device = self.policy.device
        self.group_size = settings.group_size or self.algorithm.group_size
        needs = self.algorithm.needs
        self.reference = None
        if needs & {"reference policy", "reference rollout"}:
            self.reference = copy.deepcopy(self.policy).eval().requires_grad_(False)
        self.value = ValueModel(self.policy) if self.algorithm.critic is not None else None
        model = nn.ModuleDict({"policy": self.policy} | ({"value": self.value} if self.value else {}))
        optimizer = adamw(
            model,
            self.value or nn.Module(),
            learning_rate=settings.learning_rate,
            head_learning_rate=settings.critic_learning_rate,
            weight_decay=settings.weight_decay,
            beta2=settings.beta2,
        )
        self.learner = Learner(self.algorithm, settings, self.policy, self.value, optimizer)
        self.state = TrainingState(directory.path / "state", model, optimizer)
        self.lines: list[dict[str, Any]] = []
        self.board: Any = None

    def go(self, interruption: Interruption) -> dict[str, Any]:
        """All updates, and the summary."""
        settings = self.settings
        resumed = self.state.load()
        standing = self.state.standing
        self._forget_after(standing.update, standing.metrics_lines)
        if settings.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.directory.path / "tensorboard"), purge_step=standing.update)
        memory = standing.extra.setdefault("draws", {})
        self.draws = Draws(len(self.problems), settings.seed, self.algorithm.problem_filter, memory)
        while True:
            every = settings.eval_every
            due = standing.update in (0, settings.updates) or (every is not None and standing.update % every == 0)
            if self.held_out and due and standing.evaluated < standing.update:
                self._evaluate()
            if standing.update >= settings.updates:
                break
            if interruption.asked:
                self.state.save()
            interruption.check()
            self._update(standing.update)
            standing.update += 1
            if settings.checkpoint_every and standing.update % settings.checkpoint_every == 0:
                self.state.save()
        if self.board is not None:
            self.board.close()
        trained = self._trained_lines()
        return {
            "algorithm": self.algorithm.name,
            "meant": CONTESTED.get(self.algorithm.name),
            "parts": self.algorithm.parts(),
            "updates": settings.updates,
            "skipped": len(self.lines) - len(trained),
            "rollouts": int(sum(line.get("sampled", 0) for line in self.lines)),
            "tokens": standing.tokens,
            "resumed": resumed,
            "held_out": standing.extra.get("held_out", {}),
            "last": trained[-1] if trained else {},
            "alarms": list(dict.fromkeys(text for line in self.lines for text in line.get("alarms", ()))),
            "inversion": self.rewarding.inversion(),
        }

    def _update(self, number: int) -> None:
        """Sample, reward, learn, tell."""
        with self._kept_example(number):
            gathered = self._gather(number)
        if not gathered.trained:
            self._log("train", {"skipped": 1, **{k.replace(" ", "_"): n for k, n in sorted(gathered.counts.items())}})
            return
        batch = self._batch(gathered)
        history = self.state.standing.extra.setdefault("group_rewards", [])
        update = update_of(self.algorithm, batch, history) if self.algorithm.surrogate is not None else None
        pairs = pairs_of(self.algorithm, gathered.rows, self.settings.seed * 1_000_003 + number)
        line = update_line(gathered, batch, update, len(pairs))
        with self._kept_example(number):
            line |= self._learn(Material(gathered.rows, batch, update, pairs), number)
        by_group: dict[int, list[Earned]] = {}
        for row in gathered.trained:
            by_group.setdefault(row.sampled.group, []).append(row)
        history += [sum(row.reward for row in rows) / len(rows) for rows in by_group.values()]
        del history[:-_KEPT_HISTORY]
        self.state.standing.tokens += int((batch.mask_BT & batch.trained_B[:, None]).sum())
        with (self.directory.path / "rollouts.jsonl").open("a", encoding="utf-8") as file:
            for shown in shown_rollouts(gathered.trained, self.settings.shown):
                file.write(json.dumps({"update": number, **shown}, ensure_ascii=False) + "\n")
        self._log("train", line)

    def _gather(self, number: int) -> Gathered:
        """Groups for an update; where the algorithm filters them, as many rounds as it takes (or as are allowed)."""
        gathered = Gathered()
        filtering = self.algorithm.group_filter
        rounds = self.settings.most_rounds if filtering is not None else 1
        for turn in range(rounds):
            chosen = self.draws.next(self.settings.problems - len(gathered.groups))
            one_round = number * self.settings.most_rounds + turn
            groups = self.sampler.groups([self.problems[i] for i in chosen], self.group_size, round=one_round)
            rewarded = self.rewarding.rewards([one for group in groups for one in group])
            # Also of groups that do not train: those that everybody solved are the ones to leave out.
            of_sample = iter(rewarded.correct)
            for problem, group in zip(chosen, groups, strict=True):
                verdicts = [next(of_sample) for _ in group]
                self.draws.tell({problem: [float(right) for right in verdicts if right is not None]})
            gathered.add(chosen, groups, rewarded)
            if filtering is not None and gathered.rows:
                gathered.keep(filtering(self._plain_batch(gathered)))
            if len(gathered.groups) >= self.settings.problems:
                break
        compared = self.algorithm.needs & {"greedy rollout", "reference rollout"}
        if compared and gathered.rows:
            numbers = gathered.groups
            sampler = self.sampler
            if "reference rollout" in compared:
                engine = TransformersEngine(self.reference)
                sampler = replace(sampler, engine=engine, seed=sampler.seed + _REFERENCE_SEED)
            asked = [self.problems[gathered.problem_of_group[group]] for group in numbers]
            groups = sampler.groups(
                asked, 1, round=number * self.settings.most_rounds, greedy="greedy rollout" in compared
            )
            rollouts = [one for group in groups for one in group]
            gathered.add_references(rollouts, numbers, self.rewarding.rewards(rollouts))
        return gathered

    def _plain_batch(self, gathered: Gathered) -> Batch:
        scored = self.rewarding.scorer is not None
        return batch_of(gathered.rows, self.settings.max_new_tokens, self.device, scored=scored)

    def _batch(self, gathered: Gathered) -> Batch:
        """The rows as tensors, with what the algorithm needs of old policy, reference policy and value model."""
        batch = self._plain_batch(gathered)
        rollouts = [row.sampled for row in gathered.rows]
        if self.settings.recompute_old or self.algorithm.rollout_weight is not None:
            batch = replace(batch, old_BT=self.learner.frozen(self.policy, rollouts))
        if "reference policy" in self.algorithm.needs:
            batch = replace(batch, reference_BT=self.learner.frozen(self.reference, rollouts))
        if self.value is not None:
            batch = replace(batch, values_BT=self.learner.frozen(self.value, rollouts))
        return batch

    def _learn(self, material: Material, number: int) -> dict[str, float]:
        settings = self.settings
        share = learning_rate_share(
            number, settings.updates, warmup=settings.warmup, schedule=settings.schedule, final=0.0
        )
        for group in self.learner.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        return self.learner.learn(material, number) | {"learning_rate": settings.learning_rate * share}

    @contextmanager
    def _kept_example(self, number: int) -> Iterator[None]:
        try:
            yield
        except NotFiniteError as error:
            path = self.directory.path / "nonfinite.json"
            shown = [{"problem": one.problem.text, "completion": one.solution.completion} for one in error.rollouts]
            write_json(path, {"update": number, "reason": str(error), "rollouts": shown})
            raise PrmKitError(
                f"update {number}: {error}. The rollouts are in {path}; the same command starts again from the last "
                "saved state. For a loss or a gradient, try a lower learning_rate, or precision: float32."
            ) from None

    def _evaluate(self) -> None:
        standing = self.state.standing
        found = held_out_accuracy(self.sampler, self.rewarding.verify, self.held_out, self.settings.eval_samples)
        means = {name: sum(shares) / len(shares) for name, shares in found.items()}
        told = standing.extra.setdefault("held_out", {})
        told.setdefault("before", found)
        told["after"] = found
        standing.evaluated = standing.update
        self._log("held_out", means)

    def _log(self, part: str, values: dict[str, Any]) -> None:
        line = {"update": self.state.standing.update, "part": part, **values}
        if part == "train":
            self.lines.append(line)
            if "skipped" not in values and (found := alarms(self._trained_lines())):
                line["alarms"] = found
        self.directory.log(**line)
        if self.board is not None:
            for key, value in values.items():
                if isinstance(value, int | float):
                    self.board.add_scalar(f"{part}/{key}", value, self.state.standing.update)
        self.state.standing.metrics_lines += 1
        if self.progress is not None:
            self.progress(self.state.standing.update, self.settings.updates, line)

    def _trained_lines(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if "skipped" not in line]

    def _forget_after(self, update: int, lines: int) -> None:
        """Cut metrics.jsonl and rollouts.jsonl to where the saved state stands."""
        self.directory.truncate_metrics(lines)
        path = self.directory.path / "metrics.jsonl"
        if lines:
            told = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            self.lines = [line for line in told if line["part"] == "train"]
        shown = self.directory.path / "rollouts.jsonl"
        if shown.exists():
            with shown.open("a+", encoding="utf-8") as file:
                numbered = complete_lines(file, shown, lambda line: (line["update"], line), "rollout")
                kept = [line for number, line in numbered if number < update]
            with whole_file(shown) as file:
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
