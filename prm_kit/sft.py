"""Supervised fine-tuning of a policy on demonstrations, readable top to bottom.

Tensor names end in their dimensions: B demonstrations, T tokens, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy

from prm_kit.batching import epoch_updates, micro_batches, updates_per_epoch
from prm_kit.errors import InputError, UsageError
from prm_kit.files import value_sha256, whole_directory
from prm_kit.policy import Policy
from prm_kit.run_directory import RunDirectory
from prm_kit.sft_settings import SftSettings
from prm_kit.tasks.task import Demonstration
from prm_kit.training_state import TrainingState, check_same_inputs

Progress = Callable[[int, int, str], None]
"""Called after each update with (updates done, updates in all, what to say)."""

_IGNORED = -100


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
        progress: Told of every update.

    Returns:
        The summary: updates, tokens, and loss and token accuracy on `dev` before and after.

    Raises:
        UsageError: There is nothing to imitate, or `out` holds a run of other settings or data.
        InputError: A demonstration has no completion or more than `max_tokens`.
    """
    if not demonstrations:
        raise UsageError("no demonstrations to imitate")
    device = _device(settings.device)
    policy = Policy.load(settings.policy, device)
    train_set = encode_demonstrations(policy, demonstrations, settings.max_tokens)
    dev_set = encode_demonstrations(policy, dev, settings.max_tokens)
    out.mkdir(parents=True, exist_ok=True)
    check_same_inputs(
        out / "inputs.json",
        {"settings": settings.model_dump(), "train": value_sha256(demonstrations), "dev": value_sha256(dev)},
    )
    run = RunDirectory(out)
    run.start(settings.model_dump())
    with run.timed("train"):
        summary = _train(settings, policy, train_set, dev_set, run, progress)
    with whole_directory(out / "checkpoint") as part:
        policy.save(part)
    run.finish(summary)
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
    for number, (demonstration, prompt, completion) in enumerate(zip(demonstrations, prompts, completions, strict=True)):
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
    progress: Progress | None,
) -> dict[str, Any]:
    torch.manual_seed(settings.seed)
    model = policy.model
    optimizer = _optimizer(model, settings)
    state = TrainingState(run.path / "state", model, optimizer)
    autocast = _autocast(settings.precision, model.device)
    before = json.dumps(evaluate_demonstrations(model, dev_set, settings.micro_batch_tokens)) if dev_set else "null"
    state.load()
    run.truncate_metrics(state.standing.metrics_lines)
    lengths = [len(demonstration.ids) for demonstration in train_set]
    an_epoch = updates_per_epoch(lengths, settings.batch_tokens)
    in_all = an_epoch * settings.epochs
    model.train()
    for epoch in range(state.standing.update // an_epoch, settings.epochs):
        updates = epoch_updates(lengths, settings.batch_tokens, settings.bucket_updates, settings.seed, epoch)
        for members in updates[state.standing.update - epoch * an_epoch :]:
            rate = learning_rate((state.standing.update + 1) / in_all, settings)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batches = micro_batches(members, lengths, settings.micro_batch_tokens)
            loss, tokens = _accumulate(model, [[train_set[i] for i in batch] for batch in batches], autocast)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_gradient_norm or float("inf"))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.standing.update += 1
            state.standing.tokens += sum(lengths[i] for i in members)
            done = state.standing.update
            if done % settings.log_every == 0 or done == in_all:
                run.log(update=done, loss=loss, learning_rate=rate, gradient_norm=float(norm), target_tokens=tokens)
            if settings.checkpoint_every and done % settings.checkpoint_every == 0:
                state.standing.metrics_lines = run.metrics_lines()
                state.save()
            if progress:
                progress(done, in_all, f"loss {loss:.3f}")
    model.eval()
    after = evaluate_demonstrations(model, dev_set, settings.micro_batch_tokens) if dev_set else None
    return {
        "updates": in_all,
        "demonstrations": len(train_set),
        "tokens": state.standing.tokens,
        "dev": {"before": json.loads(before), "after": after, "n": len(dev_set)},
    }


def _accumulate(
    model: Any, batches: list[list[EncodedDemonstration]], autocast: Callable[[], AbstractContextManager[Any]]
) -> tuple[float, int]:
    """Gradients of the mean loss over all completion tokens of an update, however it is cut into micro-batches."""
    tokens = sum(len(d.ids) - d.prompt_length for batch in batches for d in batch)
    total = 0.0
    for batch in batches:
        with autocast():
            logits_BTV, targets_BT = completion_logits(model, batch)
            loss = cross_entropy(
                logits_BTV.float().flatten(0, 1), targets_BT.flatten(), ignore_index=_IGNORED, reduction="sum"
            )
        (loss / tokens).backward()
        total += loss.item()
    return total / tokens, tokens


def completion_logits(model: Any, batch: Sequence[EncodedDemonstration]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, T', V] that predict the completions, and their targets [B, T'] (-100: not a completion token).

    Padded on the right without a mask: under causal attention nothing real sees the padding. T' starts at the first
    completion token of any row, so the vocabulary is not spread over the prompts that all rows have.
    """
    longest = max(len(d.ids) for d in batch)
    first = min(d.prompt_length for d in batch)
    ids_BT = torch.zeros(len(batch), longest, dtype=torch.long)
    targets_BT = torch.full((len(batch), longest), _IGNORED, dtype=torch.long)
    for row, demonstration in enumerate(batch):
        ids = torch.tensor(demonstration.ids)
        ids_BT[row, : len(ids)] = ids
        targets_BT[row, demonstration.prompt_length : len(ids)] = ids[demonstration.prompt_length :]
    # position t predicts token t + 1: the last position is kept by the model and dropped here
    output = model(input_ids=ids_BT.to(model.device), use_cache=False, logits_to_keep=longest - first + 1)
    return output.logits[:, :-1], targets_BT[:, first:].to(model.device)


@torch.inference_mode()
def evaluate_demonstrations(
    model: Any, demonstrations: Sequence[EncodedDemonstration], token_budget: int
) -> dict[str, float]:
    """Mean loss (nats) and accuracy per completion token."""
    was_training = model.training
    model.eval()
    lengths = [len(demonstration.ids) for demonstration in demonstrations]
    loss = hits = tokens = 0.0
    for batch in micro_batches(range(len(lengths)), lengths, token_budget):
        logits_BTV, targets_BT = completion_logits(model, [demonstrations[i] for i in batch])
        real_BT = targets_BT != _IGNORED
        loss += cross_entropy(logits_BTV[real_BT].float(), targets_BT[real_BT], reduction="sum").item()
        hits += (logits_BTV.argmax(-1) == targets_BT)[real_BT].sum().item()
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


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device {name!r}: this machine has no CUDA device")
    return torch.device(name)


def _autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    if precision == "bfloat16" or (precision == "auto" and device.type == "cuda"):
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext
