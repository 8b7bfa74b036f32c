"""What a PRM training run is asked: one class, no torch. `prm_kit.train` is the loop that it drives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from prm_kit.card import StepScore
from prm_kit.objective_kinds import OBJECTIVE_KINDS, ObjectiveName
from prm_kit.records import NeutralPolicy
from prm_kit.settings import Settings
from prm_kit.targets import Target

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ClassWeight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LoraSettings(Settings):
    """Low-rank adapters on the backbone (arXiv 2106.09685); merged into the saved checkpoint.

    Attributes:
        rank: Rank of the update of each matrix.
        alpha: The update is scaled by alpha / rank.
        dropout: On the adapters' input.
        targets: Names of the linear layers, or "all-linear".
        four_bit: Hold the backbone in 4 bits while its adapters learn (QLoRA, arXiv 2305.14314); the checkpoint has
            them merged into the weights as they were. Needs CUDA and bitsandbytes.
    """

    rank: Positive = 16
    alpha: Positive = 32
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    four_bit: bool = False


class TrainSettings(Settings):
    """One training run of a PRM (or of its ORM baseline).

    Attributes:
        backbone: Folder or hub id of a Hugging Face model, or of a PRM to go on from.
        objective: What is learnt: "cross-entropy" (three classes), "ordinal" (three classes in order, two cumulative
            logits), "binary" (right or wrong), "bce" and "mse" (one probability, from shares of votes or rollouts as
            they are), "pqm" (a ranking of the steps of a solution), "ensemble" (several heads, which disagree where
            they are unsure), "causal" (as binary, by two tokens of the language model's own output layer), "implicit"
            (a language model whose log-ratio to a reference is the reward, from outcomes).
        margin: Of "pqm": by how much a wrong step has to stay below a right one; null: 4.
        members: Of "ensemble": how many heads; null: 5.
        verdict_tokens: Of "causal": what stands for wrong and for right, one token each; null: "-" and "+".
        beta: Of "implicit": what the log-ratio is multiplied by; null: 0.05.
        reference: Of "implicit": folder or hub id of the reference; null: the backbone as it was.
        step_score: Of "implicit": a step's score is the reward up to and with it ("cumulative", also for null) or
            what it adds ("difference").
        target: "steps" (a PRM) or "outcome" (an ORM of the same backbone and data: the last step only).
        neutral_policy: What becomes of label 0: keep, positive, negative, drop, half (half +1, half -1). Objectives
            that know right and wrong only refuse "keep": the 0 must go somewhere.
        mask_after_first_error: Leave out labels after the first -1 of an annotation.
        class_weights: "none", "balanced" (inverse of the class share), or three numbers for (-1, 0, +1).
        epochs: Passes over the data; exactly one of `epochs` and `updates`. Neither given: 1.
        updates: Number of optimiser updates.
        batch_tokens: Tokens per update, on average (updates of an epoch are cut evenly). Padding does not count; a
            prefix that is shared counts once.
        micro_batch_tokens: Tokens that go through the model at once. Changes memory and speed, not the result; one
            process that runs out of CUDA memory goes on with less.
        bucket_updates: Updates that are drawn together and sorted by length, so that little is padded. 1: none.
        share_prefixes: Compute what sequences of one problem have in common (its text, the trunk of branches) once, and
            put them into one update. null: on the CPU, if it saves a quarter of the tokens and the family is known.
            A run goes on only as it began.
        max_tokens: Longest sequence; null: what the backbone says that it takes.
        too_long: "refuse" stops the run, "window" reads late steps through a window, "drop" leaves out and counts.
        learning_rate: Peak, of AdamW.
        head_learning_rate: Peak for the new head; null: the same. One update of Adam moves a logit by about this rate
            times the sum of the absolute hidden values (800 in SmolLM2-135M): 1e-3 there swings it by 0.8 and diverges.
        warmup: Share of the updates over which the learning rate rises from 0.
        schedule: What follows: "linear" or "cosine" down to `final_learning_rate`, or "constant".
        final_learning_rate: Share of the peak at the end.
        beta2: How long AdamW remembers squared gradients; less (0.95) follows a loss that falls in jumps.
        weight_decay: On matrices; vectors (norms, biases) have none.
        max_gradient_norm: Gradients are scaled down to this length; null: never.
        precision: "auto" (bfloat16 autocast on CUDA, float32 on CPU), "float32", or "bfloat16". Weights stay float32.
        gradient_checkpointing: Compute activations twice to save memory.
        head_updates: So many first updates train the new head alone; then all that is to be trained, with a warm-up
            and a schedule of its own.
        liger: "auto" (Liger's kernels on CUDA, where they are installed and know the family), or "off".
        reshard: With several processes: give up each other's weights and gradients after every layer (least memory),
            not once an update (least traffic).
        train_layers: Train only so many upper layers of the backbone, the norm above them and the head; 0: the head
            alone; null: everything, embeddings included. Layers below the lowest trained one keep no activations.
        lora: Train low-rank adapters and the head only; null: all weights.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1".
        seed: Of the head, the order of the data and dropout.
        eval_every: Updates between evaluations on the development set; null: once an epoch.
        metric: What the development set is judged by: "loss" (less is better) or "macro_f1".
        patience: Evaluations without a better `metric` before training stops; null: never stops early.
        keep_best: Leave the weights that were best on the development set, not the last ones.
        checkpoint_every: Updates between resumable checkpoints; null: at evaluations only.
        log_every: Updates between lines in metrics.jsonl.
        tensorboard: Write TensorBoard events into OUT/tensorboard too.
    """

    backbone: str
    objective: ObjectiveName = "cross-entropy"
    margin: float | None = Field(None, ge=0, allow_inf_nan=False)
    members: int | None = Field(None, ge=2)
    verdict_tokens: tuple[str, str] | None = None
    beta: float | None = Field(None, gt=0, allow_inf_nan=False)
    reference: str | None = None
    step_score: StepScore | None = None
    target: Target = "steps"
    neutral_policy: NeutralPolicy = "keep"
    mask_after_first_error: bool = False
    class_weights: Literal["none", "balanced"] | tuple[ClassWeight, ClassWeight, ClassWeight] = "none"
    epochs: Positive | None = None
    updates: Positive | None = None
    batch_tokens: Positive = 16384
    micro_batch_tokens: Positive = 8192
    bucket_updates: Positive = 32
    share_prefixes: bool | None = None
    max_tokens: Positive | None = None
    too_long: Literal["refuse", "window", "drop"] = "refuse"
    learning_rate: float = Field(2e-5, gt=0, allow_inf_nan=False)
    head_learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    warmup: Share = 0.05
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    final_learning_rate: Share = 0.0
    beta2: float = Field(0.999, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0, allow_inf_nan=False)
    max_gradient_norm: float | None = Field(1.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    liger: Literal["auto", "off"] = "auto"
    reshard: bool = False
    head_updates: int = Field(0, ge=0)
    train_layers: int | None = Field(None, ge=0)
    lora: LoraSettings | None = None
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    seed: int = Field(0, ge=0, lt=2**63)
    eval_every: Positive | None = None
    metric: Literal["loss", "macro_f1"] = "loss"
    patience: Positive | None = None
    keep_best: bool = True
    checkpoint_every: Positive | None = None
    log_every: Positive = 1
    tensorboard: bool = False

    @model_validator(mode="before")
    @classmethod
    def _one_epoch_unless_told(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("epochs") is None and values.get("updates") is None:
            return {**values, "epochs": 1}
        return values

    @model_validator(mode="after")
    def _refuse_what_contradicts(self) -> TrainSettings:
        contradictions = {
            "epochs and updates contradict each other: give one": self.epochs is not None and self.updates is not None,
            "train_layers and lora contradict each other: lora has adapters in every layer": (
                self.train_layers is not None and self.lora is not None
            ),
            "train_layers 0 with gradient_checkpointing: a frozen backbone keeps no activations": (
                self.train_layers == 0 and self.gradient_checkpointing
            ),
            "train_layers 0 trains the head only: set learning_rate, not head_learning_rate": (
                self.train_layers == 0 and self.head_learning_rate is not None
            ),
            "neutral_policy does nothing with target outcome: an outcome is right or wrong": (
                self.target == "outcome" and self.neutral_policy != "keep"
            ),
            "mask_after_first_error does nothing with target outcome: one step is read": (
                self.target == "outcome" and self.mask_after_first_error
            ),
            "final_learning_rate does nothing with schedule constant": (
                self.schedule == "constant" and self.final_learning_rate > 0
            ),
            "micro_batch_tokens is less than max_tokens: the longest sequence would not fit": (
                self.max_tokens is not None and self.micro_batch_tokens < self.max_tokens
            ),
            "class_weights are all 0": not isinstance(self.class_weights, str) and not any(self.class_weights),
            "train_layers 0 with head_updates: the head alone is trained anyway": (
                self.train_layers == 0 and self.head_updates > 0
            ),
            "head_updates leaves no update for the rest": (
                self.updates is not None and self.updates <= self.head_updates and self.head_updates > 0
            ),
            **self._objective_contradictions(),
        }
        said = [reason for reason, is_so in contradictions.items() if is_so]
        if said:
            raise ValueError("; ".join(said))
        return self

    def _objective_contradictions(self) -> dict[str, bool]:
        name, kind = self.objective, OBJECTIVE_KINDS[self.objective]
        every = dict.fromkeys(setting for other in OBJECTIVE_KINDS.values() for setting in other.extra_settings)
        foreign = [s for s in every if getattr(self, s) is not None and s not in kind.extra_settings]
        steps = self.target == "steps"
        return {
            f"{', '.join(foreign)}: objective {name} has no such setting": bool(foreign),
            f"objective {name} knows right and wrong only: say with neutral_policy where label 0 goes "
            "(positive, negative, half or drop)": (
                steps and not kind.knows_neutral and not kind.outcome_only and self.neutral_policy == "keep"
            ),
            f"objective {name} learns from final answers: set target: outcome": kind.outcome_only and steps,
            f"objective {name} compares the steps of a solution: target outcome reads one": (
                kind.whole_solutions and not steps
            ),
            f"objective {name} compares right steps with wrong ones: neutral_policy half is neither": (
                kind.whole_solutions and self.neutral_policy == "half"
            ),
            f"objective {name} needs whole solutions: too_long window cuts them": (
                (kind.whole_solutions or kind.outcome_only) and self.too_long == "window"
            ),
            f"objective {name} has no class_weights": not kind.class_weights and self.class_weights != "none",
            f"objective {name} gives no classes: metric macro_f1 is not defined": (
                not kind.classifies and self.metric == "macro_f1"
            ),
            f"objective {name} puts no new head on the backbone: head_updates, head_learning_rate and train_layers 0 "
            "have nothing to train": kind.checkpoint == "implicit"
            and (self.head_updates > 0 or self.head_learning_rate is not None or self.train_layers == 0),
            f"objective {name} reads every token after its own prefix: share_prefixes cannot be": (
                kind.checkpoint == "implicit" and bool(self.share_prefixes)
            ),
        }
