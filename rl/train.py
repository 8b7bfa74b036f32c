"""Reinforcement learning of a policy: everything is put together and checked here, and `Loop` goes round.

OUT/
  recipe.yaml, versions.json, metrics.jsonl, timings.jsonl, summary.json   as `RunDirectory` leaves them
  inputs.json      settings, hashes of problems and policy: a run goes on only with the same ones
  rollouts.jsonl   some rollouts of every update with what they earned
  state/           the latest resumable state; gone once the run is done
  checkpoint/      the policy
  nonfinite.json   only where a reward or a loss was not finite: the update and its rollouts
  tensorboard/     the same as metrics.jsonl, where asked for
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prm_kit.distributed import World, world_of_torchrun
from prm_kit.errors import InputError, UsageError
from prm_kit.files import folder_sha256, value_sha256
from prm_kit.interruption import Interruption
from prm_kit.metrics_log import Progress
from prm_kit.optimization import need_package
from prm_kit.policy import Policy
from prm_kit.records import Problem
from prm_kit.run_directory import RunDirectory
from prm_kit.tasks.task import folded
from prm_kit.train_start import chosen_device, compute_activations_twice
from prm_kit.train_update import memory_named
from prm_kit.training_state import check_same_inputs
from rl.credit import Credit
from rl.loop import Loop
from rl.models import Models, PolicyEngine
from rl.online_prm import save_online_prm
from rl.phases import Phases, Timed
from rl.policy_model import check_policy
from rl.preconditions import check_learns
from rl.presets import algorithm
from rl.rewarding import Reward, Rewarding, Verify
from rl.rewards import AnswersEqual
from rl.rollouts import Sampler
from rl.rounds import Rounds
from rl.shared_prompts import shares_prompts
from rl.train_settings import FREE_TO_CHANGE, RlSettings

if TYPE_CHECKING:
    from prm_kit.score import StepScorer

_NO_MEMORY = (
    "no memory: lower micro_batch_tokens (learning) or group_size (sampling), or set gradient_checkpointing: true or "
    "lora, or train with more processes; the same command goes on from the last saved state"
)


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
    agree: AnswersEqual | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a policy and leave it in OUT/checkpoint. A run that was stopped goes on; one that is done is not redone.

    On the CPU the same settings, problems, thread count and number of processes give the same metrics.jsonl,
    interrupted or not. Under torchrun every process calls this with the same arguments: each samples and rewards its
    part of the groups, all know what came out, and the loss of an update is dealt among them, which changes the result
    by rounding only.

    Args:
        settings: The run.
        problems: To train on.
        verify: Judges final answers.
        out: The run's directory.
        scorer: Judges steps; needed where the algorithm asks for step rewards.
        held_out: Problems to measure accuracy on; none of them is trained on.
        rewards: Rewards of your own by name, each with its weight.
        credit: A credit rule of your own, instead of the algorithm's.
        agree: Whether two final answers are the same; needed for `process: self-consistency`.
        about: What else makes this run (the PRM's path and hash, say): a run goes on only with the same.
        progress: See `Progress`.

    Raises:
        UsageError: A problem has no room or is on both sides, the algorithm lacks what it needs or cannot learn with
            these settings, or `out` holds another run.
        PrmKitError: A reward, loss or gradient is not finite, memory does not suffice, or another process is gone.
        KeyboardInterrupt: Stopped by SIGINT or SIGTERM, resumable.
    """
    parts = settings.parts if credit is None else {**settings.parts, "credit": credit}
    composition = algorithm(settings.algorithm, parts)
    check_learns(settings, composition, held_out=bool(held_out), scored=scorer is not None)
    if settings.tensorboard:
        need_package("tensorboard", "tensorboard: true", "tensorboard")
    if not problems:
        raise UsageError("there is no problem to train on")
    if both := {folded(one.text) for one in problems} & {folded(one.text) for one in held_out}:
        raise UsageError(f"{len(both)} problems are trained on and held out, the first: {min(both)[:80]!r}")
    with world_of_torchrun() as world, memory_named(_NO_MEMORY):
        rewarding = Rewarding(
            composition, verify, settings.max_new_tokens, scorer, settings.process, settings.format_checks,
            rewards or {}, agree,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            return _train(settings, problems, held_out, rewarding, out, about or {}, progress, world)


def _train(
    settings: RlSettings,
    problems: Sequence[Problem],
    held_out: Sequence[Problem],
    rewarding: Rewarding,
    out: Path,
    about: Mapping[str, Any],
    progress: Progress | None,
    world: World,
) -> dict[str, Any]:
    run = RunDirectory(out, writes=world.is_first)
    hashes = {"problems": value_sha256(_texts(problems)), "held_out": value_sha256(_texts(held_out))}
    # A policy that was trained anew in its own folder is another start, and another reference.
    starts = {"policy": settings.policy, "reference": settings.reference}
    models_sha256 = {
        name: folder_sha256(Path(folder)) for name, folder in starts.items() if folder and Path(folder).is_dir()
    }
    if any(other != [hashes, models_sha256] for other in world.gather([hashes, models_sha256])):
        raise InputError(
            "the processes of this run were given different problems or policies: they must all read the same"
        )
    asked = {
        "settings": settings.model_dump(mode="json", exclude=FREE_TO_CHANGE),
        "algorithm": rewarding.algorithm.parts(),
        "rewards": {name: weight for name, (weight, _) in rewarding.more.items()},
        "data": hashes,
        "models": models_sha256,
        "about": dict(about),
    }
    if world.agree((out / "summary.json").exists()):
        check_same_inputs(out / "inputs.json", asked)
        done: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        return done
    device = chosen_device(settings.device, world)
    policy = Policy.load(settings.policy, device, system_prompt=settings.system_prompt)
    check_policy(policy.model)
    shares_prompts(settings.share_prompts, policy.model, policy.model.device)  # refused now or never
    if settings.gradient_checkpointing:
        compute_activations_twice(policy.model)
    models = Models.of(policy, settings, rewarding.algorithm, world)
    phases = Phases()
    engine = Timed(PolicyEngine(models), "generate", "generation", phases)
    sampler = Sampler(policy, engine, settings.split, settings.max_new_tokens, settings.temperature, settings.seed)
    if rewarding.scorer is not None:
        rewarding = replace(rewarding, scorer=Timed(rewarding.scorer, "score", "scoring", phases))
    sampler.check([*problems, *held_out])
    with world.in_turn():  # not before all else is in order: what is refused leaves no trace
        check_same_inputs(out / "inputs.json", asked)
    run.start({"rl": settings.model_dump(mode="json"), "algorithm": asked["algorithm"], **hashes, **about})
    branching = settings.branching
    group_size = branching.roots if branching else settings.group_size or rewarding.algorithm.group_size
    reference = Timed(PolicyEngine(models, of_reference=True), "generate", "generation", phases)
    rounds = Rounds(settings, problems, group_size, sampler, rewarding, reference, models.device, world)
    with run.timed("train"), Interruption() as interruption:
        summary = Loop(settings, held_out, rounds, models, run, phases, progress).go(interruption)
    models.save(out / "checkpoint")
    if (online := rewarding.algorithm.online_prm) is not None:
        save_online_prm(models, online, out / "prm")
    run.finish(summary)
    if world.is_first:
        shutil.rmtree(out / "state", ignore_errors=True)
    return summary


def _texts(problems: Sequence[Problem]) -> list[tuple[str, str | None]]:
    return [(problem.text, problem.reference_answer) for problem in problems]
