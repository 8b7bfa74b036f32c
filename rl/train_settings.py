"""What an RL run is asked: one class, no torch. `rl.train` is the loop that it drives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from prm_kit.settings import Settings

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class RlSettings(Settings):
    """One run of reinforcement learning.

    Attributes:
        policy: Folder or hub id of a causal language model to start from; it is the reference policy too.
        algorithm: A preset; `prm-kit rl algorithms` lists them.
        parts: Parts of the preset to replace, by name: {"weights": {"process": 0.3}, "credit": "min_form"}.
        updates: How many batches of rollouts are learnt from; more than the value model's warm-up.
        problems: Groups of an update.
        group_size: Rollouts of each problem; null: what the algorithm starts from.
        minibatches: Optimiser steps that a batch of rollouts is cut into.
        passes: How often a batch of rollouts is gone through.
        most_rounds: Where the algorithm filters groups: how often at most an update samples to fill its batch.
        max_new_tokens: Most tokens of a rollout.
        temperature: Of the sampling. What learns is the policy at 1: at another temperature the rollouts are not quite
            its own.
        split: How completions are cut into steps.
        process: How the values of a completion's steps become its process reward, where steps are not credited: "mean"
            or "min".
        format_checks: What the format reward asks for, by name.
        recompute_old: Compute the old log-probabilities anew instead of taking what the engine sampled with.
        learning_rate: Peak, of AdamW.
        critic_learning_rate: Peak for the value model.
        warmup: Share of the updates over which the rates rise from 0; afterwards `schedule`.
        schedule: "constant", or "linear" or "cosine" down to 0.
        beta2: How long AdamW remembers squared gradients.
        weight_decay: On matrices.
        max_gradient_norm: Gradients are scaled down to this length; null: never.
        micro_batch_tokens: Tokens, padding included, that go through a model at once; changes no result.
        precision: "auto" (bfloat16 autocast on CUDA, float32 on CPU), "float32", or "bfloat16".
        gradient_checkpointing: Compute activations twice to save memory.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1".
        seed: Of the order of problems, of the sampling and of the value model.
        eval_every: Updates between evaluations on held-out problems; null: before the first and after the last only.
        eval_samples: Sampled rollouts of each held-out problem, beside a greedy one.
        checkpoint_every: Updates between resumable states; null: none.
        shown: Rollouts of each update that are kept in rollouts.jsonl.
        tensorboard: Write TensorBoard events into OUT/tensorboard too.
    """

    policy: str
    algorithm: str = "grpo"
    parts: dict[str, Any] = Field(default_factory=dict)
    updates: Positive = 100
    problems: Positive = 32
    group_size: Positive | None = None
    minibatches: Positive = 1
    passes: Positive = 1
    most_rounds: Positive = 8
    max_new_tokens: Positive = 512
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    split: str = "auto"
    process: Literal["mean", "min"] = "mean"
    format_checks: tuple[str, ...] = ("step_structure", "reasoning_first")
    recompute_old: bool = False
    learning_rate: float = Field(1e-6, gt=0, allow_inf_nan=False)
    critic_learning_rate: float = Field(1e-5, gt=0, allow_inf_nan=False)
    warmup: Share = 0.0
    schedule: Literal["linear", "cosine", "constant"] = "constant"
    beta2: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    max_gradient_norm: float | None = Field(1.0, gt=0)
    micro_batch_tokens: Positive = 16384
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    seed: int = Field(0, ge=0)
    eval_every: Positive | None = None
    eval_samples: Positive = 4
    checkpoint_every: Positive | None = 10
    shown: int = Field(4, ge=0)
    tensorboard: bool = False

    @model_validator(mode="after")
    def _minibatches_hold_a_problem(self) -> RlSettings:
        if self.minibatches > self.problems:
            raise ValueError(f"minibatches: {self.minibatches} of {self.problems} problems: each needs one at least")
        return self
