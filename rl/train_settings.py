"""What an RL run is asked: one class, no torch. `rl.train` is the loop that it drives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from prm_kit.settings import Settings
from prm_kit.train_settings import LoraSettings
from rl.process_weight import Schedule
from rl.stopping import StopRules

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Branching(Settings):
    """Rollouts of a problem of which some continue others: each root is left at the end of a step, and continued anew.

    Attributes:
        roots: Rollouts of the problem itself.
        branches: Continuations of each root, all from the same place.
        at: Where a root is left: "random", after a step drawn at random; "value", before the step that the PRM values
            least; "entropy", before the step with the policy's most uncertain token.
    """

    roots: Positive
    branches: Positive
    at: Literal["random", "value", "entropy"] = "random"

    @property
    def rollouts(self) -> int:
        """Rollouts of a problem in all; a branch writes only what follows its prefix."""
        return self.roots * (1 + self.branches)


class RlSettings(Settings):
    """One run of reinforcement learning.

    Attributes:
        policy: Folder or hub id of a causal language model to start from.
        system_prompt: What the policy's chat template tells it before a problem; null: what it was trained with.
        reference: Folder or hub id of the reference policy, where the algorithm has one; null: the policy at the start.
        reference_every: Updates after which the policy as it is becomes the reference; null: never.
        algorithm: A preset; `prm-kit rl algorithms` lists them.
        parts: Parts of the preset to replace, by name: {"weights": {"process": 0.3}, "credit": "min_form"}.
        updates: How many batches of rollouts are learnt from; more than the value model's warm-up.
        stop: What ends the run before that; see `StopRules`.
        problems: Groups of an update.
        group_size: Rollouts of each problem; null: what the algorithm starts from, or what `branching` adds up to.
        branching: Rollouts that share prefixes; null: all of a group are independent. See `rl.branching`.
        minibatches: Optimiser steps that a batch of rollouts is cut into.
        passes: How often a batch of rollouts is gone through.
        engine: Who samples: "transformers", in this process, or "vllm", a server (`prm_kit.engines.vllm_engine`).
        engine_url: Root of the vLLM server, such as "http://127.0.0.1:8000".
        engine_folder: The folder that the vLLM server was started on, a copy of the policy: it gets the weights after
            every update.
        parts_of_round: Parts that the groups of an update are sampled in: what one part earned is found out while the
            next is sampled, unless the PRM runs in this process and would only slow both down.
        most_rounds: Where the algorithm filters groups: how often at most an update samples to fill its batch.
        max_new_tokens: Most tokens of a rollout.
        temperature: Of the sampling. What learns is the policy at 1: at another temperature the rollouts are not quite
            its own.
        split: How completions are cut into steps.
        process: How a completion gets its process reward, where steps are not credited: "mean" or "min" of the values
            of its steps; or "self-consistency", which asks no PRM: 1 where the most rollouts of the group have its
            answer.
        process_weight: Of the process reward. "constant": the algorithm's own; "automatic": halved whenever an alarm
            says that the policy serves the PRM, at last 0; {from: 0.5, to: 0, over: 50}: in a line over 50 updates.
        format_checks: What the format reward asks for, by name.
        recompute_old: Compute the old log-probabilities anew instead of taking what the engine sampled with.
        learning_rate: Peak, of AdamW.
        critic_learning_rate: Peak for the value model.
        prm_learning_rate: Peak for a PRM that learns along.
        warmup: Share of the updates over which the rates rise from 0; afterwards `schedule`.
        schedule: "constant", or "linear" or "cosine" down to 0.
        beta2: How long AdamW remembers squared gradients.
        weight_decay: On matrices.
        max_gradient_norm: Gradients are scaled down to this length; null: never.
        micro_batch_tokens: Tokens, padding included, that go through a model at once; changes no result.
        lora: Train low-rank adapters of policy and value model only; the reference policy is then the policy without
            them, and the checkpoint has them merged. null: all weights.
        spread: What each of several processes holds of the models that learn: a slice ("sharded", FSDP2, least memory)
            or everything ("replicated", least traffic: for small models).
        reshard: With slices: give up each other's weights and gradients after every layer (least memory), not once an
            optimiser step (least traffic).
        precision: "auto" (bfloat16 autocast on CUDA, float32 on CPU), "float32", or "bfloat16". Weights stay float32.
        gradient_checkpointing: Compute activations twice to save memory.
        share_prompts: Compute what rollouts have in common once where they are learnt from; null: on the CPU, where the
            model's family allows it. It changes no result beyond rounding.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1".
        seed: Of the order of problems, of the sampling and of the value model.
        eval_every: Updates between evaluations on held-out problems; null: before the first and after the last only.
        eval_samples: Sampled rollouts of each held-out problem, beside a greedy one.
        checkpoint_every: Updates between resumable states; null: none.
        shown: Rollouts of each update that are kept in rollouts.jsonl.
        tensorboard: Write TensorBoard events into OUT/tensorboard too.
    """

    policy: str
    system_prompt: str | None = None
    reference: str | None = None
    reference_every: Positive | None = None
    algorithm: str = "grpo"
    parts: dict[str, Any] = Field(default_factory=dict)
    updates: Positive = 100
    stop: StopRules = StopRules()
    problems: Positive = 32
    group_size: Positive | None = None
    branching: Branching | None = None
    minibatches: Positive = 1
    passes: Positive = 1
    engine: Literal["transformers", "vllm"] = "transformers"
    engine_url: str | None = None
    engine_folder: str | None = None
    parts_of_round: Positive = 1
    most_rounds: Positive = 8
    max_new_tokens: Positive = 512
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    split: str = "auto"
    process: Literal["mean", "min", "self-consistency"] = "mean"
    process_weight: Schedule = "constant"
    format_checks: tuple[str, ...] = ("step_structure", "reasoning_first")
    recompute_old: bool = False
    learning_rate: float = Field(1e-6, gt=0, allow_inf_nan=False)
    critic_learning_rate: float = Field(1e-5, gt=0, allow_inf_nan=False)
    prm_learning_rate: float = Field(1e-6, gt=0, allow_inf_nan=False)
    warmup: Share = 0.0
    schedule: Literal["linear", "cosine", "constant"] = "constant"
    beta2: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    max_gradient_norm: float | None = Field(1.0, gt=0)
    micro_batch_tokens: Positive = 16384
    lora: LoraSettings | None = None
    spread: Literal["sharded", "replicated"] = "sharded"
    reshard: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    share_prompts: bool | None = None
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    seed: int = Field(0, ge=0)
    eval_every: Positive | None = None
    eval_samples: Positive = 4
    checkpoint_every: Positive | None = 10
    shown: int = Field(4, ge=0)
    tensorboard: bool = False

    @field_validator("lora")
    @classmethod
    def _adapters_that_sample_as_they_learn(cls, lora: LoraSettings | None) -> LoraSettings | None:
        if lora is not None and lora.dropout > 0:
            raise ValueError("dropout would make another policy of the one that sampled; leave it at 0")
        if lora is not None and lora.four_bit:
            raise ValueError("four_bit is for training a PRM; a policy is sampled from with the weights that it has")
        return lora

    @model_validator(mode="after")
    def _minibatches_hold_a_problem(self) -> RlSettings:
        if self.minibatches > self.problems:
            raise ValueError(f"minibatches: {self.minibatches} of {self.problems} problems: each needs one at least")
        return self

    @model_validator(mode="after")
    def _a_server_has_an_address(self) -> RlSettings:
        if len({self.engine == "vllm", self.engine_url is not None, self.engine_folder is not None}) > 1:
            raise ValueError("engine: vllm, engine_url and engine_folder go together")
        if self.engine == "vllm" and self.lora is not None:
            raise ValueError("engine: vllm is given whole weights after every update; leave lora out")
        for name, kept in (("policy", self.policy), ("reference", self.reference)):
            if self.engine_folder and kept and Path(self.engine_folder).resolve() == Path(kept).resolve():
                raise ValueError(f"engine_folder is written to after every update; copy the {name}, {kept}, to another")
        return self


FREE_TO_CHANGE = {
    "parts_of_round", "engine_url", "engine_folder", "micro_batch_tokens", "gradient_checkpointing", "share_prompts",
    "spread", "reshard", "device",
}  # fmt: skip
"""Settings that a run may go on with others of: they change memory and speed, and the result by rounding only."""
