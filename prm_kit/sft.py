"""Supervised fine-tuning of a policy on demonstrations, readable top to bottom.

Tensor names end in their dimensions: B demonstrations, T tokens, V vocabulary.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy

from prm_kit.batching import epoch_updates, micro_batches, updates_per_epoch
from prm_kit.errors import InputError, PrmKitError, UsageError
from prm_kit.files import value_sha256, whole_directory
from prm_kit.interruption import Interruption
from prm_kit.policy import Policy
from prm_kit.run_directory import RunDirectory
from prm_kit.sft_settings import SftSettings
from prm_kit.tasks.task import Demonstration
from prm_kit.train_start import autocast, chosen_device
from prm_kit.training_state import TrainingState, check_same_inputs

Progress = Callable[[int, int, dict[str, Any]], None]
"""Called after every line of metrics.jsonl: updates done, updates in all, the line."""

_IGNORED = -100  # what cross_entropy leaves out


class EncodedDemonstration(NamedTuple):
    """Ids of prompt and completion, and how many of them are the prompt."""

    ids: list[int]
    prompt_length: int


def fine_tune(
    settings: SftSettings,
    demonstrations: Sequence[Demonstration],
    dev: Sequence[Demonstration],
    out: Path,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a policy to imitate `demonstrations`; a run that was interrupted goes on from its last saved state.

    Args:
        settings: The run.
        demonstrations: What to imitate.
        dev: Demonstrations to measure the loss on before and after; may be empty.
        out: Gets checkpoint/ (a `Policy`), metrics.jsonl, timings.jsonl and summary.json.
        progress: See `Progress`.

    Returns:
        The summary: updates, tokens, and loss and token accuracy on `dev` before and after.

    Raises:
        UsageError: There is nothing to imitate, or `out` holds a run of other settings or data.
        InputError: A demonstration has no completion or more than `max_tokens`.
        PrmKitError: The loss is not finite.
        KeyboardInterrupt: Stopped by SIGINT or SIGTERM, resumable.
    """
    if not demonstrations:
        raise UsageError("no demonstrations to imitate")
    policy = Policy.load(settings.policy, chosen_device(settings.device), system_prompt=settings.system_prompt)
    train_set = encode_demonstrations(policy, demonstrations, settings.max_tokens)
    dev_set = encode_demonstrations(policy, dev, settings.max_tokens)
    run = RunDirectory(out)
    hashes = {"train": value_sha256(demonstrations), "dev": value_sha256(dev)}
    check_same_inputs(out / "inputs.json", {"settings": settings.model_dump(), "data": hashes})
    if (out / "summary.json").exists():
        done: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        return done
    run.start({"sft": settings.model_dump(mode="json"), "data": hashes})
    with run.timed("train"), torch.random.fork_rng(), Interruption() as interruption:
        summary = _train(settings, policy, train_set, dev_set, run, interruption, progress)
    with whole_directory(out / "checkpoint") as part:
        policy.save(part)
    run.finish(summary)
    shutil.rmtree(out / "state", ignore_errors=True)
    return summary


def encode_demonstrations(
    policy: Policy, demonstrations: Sequence[Demonstration], max_tokens: int | None
) -> list[EncodedDemonstration]:
    """Turn demonstrations into ids: prompt, completion, end of sequence.

    Raises:
        InputError: A completion is blank, or prompt and completion have more than `max_tokens`.
    """
    prompts = policy.prompt_ids([demonstration.problem for demonstration in demonstrations])
    completions = policy.completion_ids([demonstration.completion for demonstration in demonstrations])
    found = []
    for number, (demonstration, prompt, completion) in enumerate(
        zip(demonstrations, prompts, completions, strict=True)
    ):
        if not demonstration.completion.strip():
            raise InputError(f"demonstration {number}: its completion is blank")
        if max_tokens is not None and len(prompt) + len(completion) > max_tokens:
            raise InputError(
                f"demonstration {number}: {len(prompt) + len(completion)} tokens, more than the {max_tokens} allowed"
            )
        found.append(EncodedDemonstration(prompt + completion, len(prompt)))
    return found


def learning_rate(share_done: float, settings: SftSettings) -> float:
    """Learning rate after a share of the updates: rises over `warmup`, stays, falls from `decay_from` on."""
    if share_done < settings.warmup:
        return settings.learning_rate * share_done / settings.warmup
    if share_done <= settings.decay_from or settings.decay_from == 1.0:
        return settings.learning_rate
    fallen = (share_done - settings.decay_from) / (1.0 - settings.decay_from)
    return settings.learning_rate * (1.0 - fallen * (1.0 - settings.final_learning_rate))


def _train(
    settings: SftSettings,
    policy: Policy,
    train_set: list[EncodedDemonstration],
    dev_set: list[EncodedDemonstration],
    run: RunDirectory,
    interruption: Interruption,
    progress: Progress | None,
) -> dict[str, Any]:
    torch.manual_seed(settings.seed)
    model, budget = policy.model, settings.micro_batch_tokens
    optimizer = _optimizer(model, settings)
    state = TrainingState(run.path / "state", model, optimizer)
    before = evaluate_demonstrations(model, dev_set, budget)
    resumed = state.load()
    standing = state.standing
    run.truncate_metrics(standing.metrics_lines)
    lengths = [len(demonstration.ids) for demonstration in train_set]
    per_epoch = updates_per_epoch(lengths, settings.batch_tokens)
    in_all = per_epoch * settings.epochs
    model.train()
    for epoch in range(standing.update // per_epoch, settings.epochs):
        updates = epoch_updates(lengths, settings.batch_tokens, settings.bucket_updates, settings.seed, epoch)
        for members in updates[standing.update - epoch * per_epoch :]:
            if interruption.asked:
                state.save()
            interruption.check()
            rate = learning_rate((standing.update + 1) / in_all, settings)
            batches = [[train_set[i] for i in batch] for batch in micro_batches(members, lengths, budget)]
            measured = _update(model, optimizer, batches, rate, settings)
            standing.update += 1
            standing.tokens += sum(lengths[i] for i in members)
            if standing.update % settings.log_every == 0 or standing.update == in_all:
                run.log(update=standing.update, **measured)
                standing.metrics_lines += 1
                if progress:
                    progress(standing.update, in_all, measured)
            if settings.checkpoint_every and standing.update % settings.checkpoint_every == 0:
                state.save()
    return {
        "updates": in_all,
        "demonstrations": len(train_set),
        "tokens": standing.tokens,
        "resumed": resumed,
        "dev": {
            "before": before,
            "after": evaluate_demonstrations(model.eval(), dev_set, budget),
            "n": len(dev_set),
        },
    }


def _update(
    model: Any,
    optimizer: torch.optim.Optimizer,
    batches: list[list[EncodedDemonstration]],
    rate: float,
    settings: SftSettings,
) -> dict[str, Any]:
    """One step down the mean loss over all completion tokens of an update, however it is cut into micro-batches."""
    tokens = sum(len(d.ids) - d.prompt_length for batch in batches for d in batch)
    loss_sum = 0.0
    for batch in batches:
        with autocast(settings.precision, model.device):
            logits_BTV, target_BT = completion_logits(model, batch)
        loss = cross_entropy(
            logits_BTV.float().flatten(0, 1), target_BT.flatten(), ignore_index=_IGNORED, reduction="sum"
        )
        (loss / tokens).backward()  # type: ignore[no-untyped-call]
        loss_sum += loss.item()
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_gradient_norm or math.inf))
    if not math.isfinite(loss_sum) or not math.isfinite(norm):
        raise PrmKitError(f"the loss ({loss_sum}) or its gradient ({norm}) is not finite: lower the learning rate")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": loss_sum / tokens, "learning_rate": rate, "gradient_norm": norm, "target_tokens": tokens}


def completion_logits(model: Any, batch: Sequence[EncodedDemonstration]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, T', V] that predict the completions, and their targets [B, T'] (-100: not a completion token).

    Padded on the right without a mask: under causal attention nothing real sees the padding. T' starts at the first
    completion token of any row, so the vocabulary is not spread over the prompts that all rows have.
    """
    longest = max(len(d.ids) for d in batch)
    first = min(d.prompt_length for d in batch)
    ids_BT = torch.zeros(len(batch), longest, dtype=torch.long)
    target_BT = torch.full((len(batch), longest), _IGNORED, dtype=torch.long)
    for row, demonstration in enumerate(batch):
        ids = torch.tensor(demonstration.ids)
        ids_BT[row, : len(ids)] = ids
        target_BT[row, demonstration.prompt_length : len(ids)] = ids[demonstration.prompt_length :]
    # position t predicts token t + 1: the last position is kept by the model and dropped here
    output = model(input_ids=ids_BT.to(model.device), use_cache=False, logits_to_keep=longest - first + 1)
    return output.logits[:, :-1], target_BT[:, first:].to(model.device)


@torch.inference_mode()
def evaluate_demonstrations(
    model: Any, demonstrations: Sequence[EncodedDemonstration], token_budget: int
) -> dict[str, float] | None:
    """Mean loss (nats) and accuracy per completion token; None of no demonstrations."""
    if not demonstrations:
        return None
    was_training = model.training
    model.eval()
    lengths = [len(demonstration.ids) for demonstration in demonstrations]
    loss = hits = tokens = 0.0
    for batch in micro_batches(range(len(lengths)), lengths, token_budget):
        logits_BTV, target_BT = completion_logits(model, [demonstrations[i] for i in batch])
        real_BT = target_BT != _IGNORED
        loss += cross_entropy(logits_BTV[real_BT].float(), target_BT[real_BT], reduction="sum").item()
        hits += (logits_BTV.argmax(-1) == target_BT)[real_BT].sum().item()
        tokens += real_BT.sum().item()
    model.train(was_training)
    return {"loss": loss / tokens, "token_accuracy": hits / tokens}


def _optimizer(model: Any, settings: SftSettings) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95), fused=True)
