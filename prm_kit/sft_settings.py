"""What a supervised fine-tuning run of a policy is asked: one class, no torch. `prm_kit.sft` is the loop it drives."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from prm_kit.settings import Settings

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class SftSettings(Settings):
    """One run over demonstrations; the loss is taken on the completions only.

    Attributes:
        policy: Folder or hub id of a causal language model.
        system_prompt: What the policy's chat template tells it before a problem; null: as it was trained, or plain.
        epochs: Passes over the demonstrations.
        batch_tokens: Real tokens per update, on average.
        micro_batch_tokens: Padded tokens that go through the model at once. Changes memory and speed, not the result.
        bucket_updates: Updates that are drawn together and sorted by length, so that little is padded. 1: none.
        max_tokens: Longest prompt with completion; a longer demonstration is refused. Null: no limit.
        learning_rate: Peak, of AdamW.
        warmup: Share of the updates over which the learning rate rises from 0.
        decay_from: Share of the updates after which it falls linearly; `warmup` gives the plain linear schedule.
        final_learning_rate: Share of the peak at the end.
        weight_decay: On matrices; vectors (norms, biases) have none.
        max_gradient_norm: Gradients are scaled down to this length; null: never.
        precision: "auto" (bfloat16 autocast on CUDA, float32 on CPU), "float32", or "bfloat16". Weights stay float32.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1".
        seed: Of the order of the data and dropout.
        checkpoint_every: Updates between resumable states; null: none.
        log_every: Updates between lines in metrics.jsonl.
    """

    policy: str
    system_prompt: str | None = None
    epochs: Positive = 1
    batch_tokens: Positive = 16384
    micro_batch_tokens: Positive = 8192
    bucket_updates: Positive = 8
    max_tokens: Positive | None = None
    learning_rate: float = Field(2e-5, gt=0, allow_inf_nan=False)
    warmup: Share = 0.05
    decay_from: Share = 0.05
    final_learning_rate: Share = 0.05
    weight_decay: float = Field(0.01, ge=0, allow_inf_nan=False)
    max_gradient_norm: float | None = Field(1.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    seed: int = Field(0, ge=0)
    checkpoint_every: Positive | None = None
    log_every: Positive = 10

    @model_validator(mode="after")
    def _refuse_what_contradicts(self) -> SftSettings:
        if self.decay_from < self.warmup:
            raise ValueError("decay_from is less than warmup: the learning rate would fall before it has risen")
        return self
