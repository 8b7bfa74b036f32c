"""The models of a run: what learns, what is sampled from, what is compared with, and where their weights lie.

In one process the policy that learns is the one that is sampled from. Several processes hold either a whole copy each
("replicated"), whose gradients are added up, or a slice each ("sharded", FSDP2). Then each samples from a whole copy
without gradients, which is told the trained weights after every update: four bytes a parameter of memory, and one
exchange of the trained weights (with LoRA of the adapters alone) an update.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prm_kit.distributed import World
from prm_kit.engines.engine import Limits, Rollout
from prm_kit.engines.transformers_engine import TransformersEngine
from prm_kit.engines.vllm_engine import VllmEngine
from prm_kit.errors import PrmKitError, UsageError
from prm_kit.files import whole_directory
from prm_kit.optimization import adamw, choose_trained, merge_adapters
from prm_kit.policy import Policy
from prm_kit.sharding import Shards, whole
from prm_kit.train_start import autocast, uses_bfloat16
from rl.algorithms import Algorithm
from rl.policy_model import Rows, ValueModel, log_probabilities, log_probabilities_and_entropies
from rl.train_settings import RlSettings


class PolicyModel(nn.Module):
    """A causal language model that says how likely rollouts are: all its weights are read in one call."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Rows, *, entropies: bool = False) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities [B, T] float32, and where asked for the entropies [B, T]."""
        if entropies:
            return log_probabilities_and_entropies(self.model, rows)
        return log_probabilities(self.model, rows), None


@dataclass
class Models:
    """The models of a run.

    Attributes:
        settings: LoRA, precision, how weights are spread.
        policy: To sample from, whole in every process.
        learner: The policy that learns; it shares the weights of `policy` unless they are sharded.
        value: The value model; None without a critic.
        prm: The PRM that learns along; None without one.
        reference: A policy that stays as it was; None where nothing compares, or with LoRA, where it is `policy`
            without its adapters.
        adapters: Of `policy`; None without LoRA.
        world: The processes.
        shards: Of every model that is in slices.
        server: Samples from the policy; None: this process does.
    """

    settings: RlSettings
    policy: Policy
    learner: PolicyModel
    value: ValueModel | None
    prm: PolicyModel | None
    reference: PolicyModel | None
    adapters: Any
    world: World
    shards: dict[int, Shards] = field(default_factory=dict)
    server: VllmEngine | None = None

    @classmethod
    def of(cls, policy: Policy, settings: RlSettings, algorithm: Algorithm, world: World) -> Models:
        """Make what an algorithm needs of the policy to start from, whose weights are alike in all processes."""
        lora, needs, model = settings.lora, algorithm.needs, policy.model
        value = ValueModel(model) if algorithm.critic is not None else None
        prm = PolicyModel(copy.deepcopy(model)) if algorithm.online_prm is not None else None
        compares = needs & {"reference policy", "reference rollout"}
        reference = None
        if compares and lora is None:
            reference = PolicyModel(_reference(policy, settings).eval().requires_grad_(False))
        adapters = None
        if lora is not None:
            head = model.get_output_embeddings()
            adapters = choose_trained(model, head, train_layers=None, lora=lora, fresh_head=False)
            if value is not None:
                choose_trained(value, value.head, train_layers=None, lora=lora)  # type: ignore[arg-type]
                value.head.requires_grad_(True)
            if prm is not None:
                head = prm.model.get_output_embeddings()
                choose_trained(prm.model, head, train_layers=None, lora=lora, fresh_head=False)
        in_slices = world.size > 1 and settings.spread == "sharded"
        learner = PolicyModel(copy.deepcopy(model) if in_slices else model)
        found = cls(settings, policy, learner, value, prm, reference, adapters, world)
        if settings.engine_url is not None and settings.engine_folder is not None:
            found.server = VllmEngine(settings.engine_url, Path(settings.engine_folder))
        if in_slices:
            sampled = "reference rollout" in needs
            for one in (learner, value, prm, None if sampled else reference):
                if one is not None:
                    found.shards[id(one)] = found._shards(one, model.device)
            model.requires_grad_(False)
        return found

    def _shards(self, model: nn.Module, device: torch.device) -> Shards:
        bfloat16 = uses_bfloat16(self.settings.precision, device)
        return Shards(model, None, self.world, device, bfloat16=bfloat16, thrifty=self.settings.reshard)

    @property
    def device(self) -> torch.device:
        """Where all of them are."""
        device: torch.device = self.policy.model.device
        return device

    @property
    def trained(self) -> nn.ModuleDict:
        """What learns, under the names that its state is saved with."""
        models: dict[str, nn.Module] = {"policy": self.learner.model}
        models |= {"value": self.value} if self.value is not None else {}
        models |= {"prm": self.prm.model} if self.prm is not None else {}
        return nn.ModuleDict(models)

    def optimizer(self) -> torch.optim.AdamW:
        """Over all that learns."""
        settings = self.settings
        common = {"weight_decay": settings.weight_decay, "beta2": settings.beta2}
        rate, value_rate, prm_rate = settings.learning_rate, settings.critic_learning_rate, settings.prm_learning_rate
        value = self.value or nn.Module()
        both = nn.ModuleList([self.learner.model, value])
        found = adamw(both, value, learning_rate=rate, head_learning_rate=value_rate, **common)
        if self.prm is not None:
            of_prm = adamw(self.prm.model, nn.Module(), learning_rate=prm_rate, head_learning_rate=prm_rate, **common)
            for group in of_prm.param_groups:
                found.add_param_group(group)
        return found

    def sync(self) -> None:
        """Tell the policy that is sampled from, and the server that samples, what has been learnt; all together."""
        self._copy_learnt()
        if self.server is None:
            return
        failed: PrmKitError | None = None
        if self.world.is_first:
            try:
                self.server.sync(self.policy.save)
            except PrmKitError as error:
                failed = error
        for failure in self.world.gather(failed):
            if failure is not None:
                raise failure

    def _copy_learnt(self) -> None:
        if self.learner.model is self.policy.model:
            return
        mine = dict(self.policy.model.named_parameters())
        with torch.no_grad():
            for name, parameter in self.learner.model.named_parameters():
                if parameter.requires_grad:
                    mine[name].copy_(whole(parameter.detach()))

    def refresh_reference(self) -> None:
        """Make the policy as it is the one to compare with; all processes together."""
        if self.reference is None:
            return
        now = self.learner.model if id(self.reference) in self.shards else self.policy.model
        with torch.no_grad():
            for mine, theirs in zip(self.reference.model.parameters(), now.parameters(), strict=True):
                mine.copy_(theirs)

    @contextmanager
    def reference_policy(self) -> Iterator[PolicyModel]:
        """The policy to compare with."""
        if self.reference is not None:
            yield self.reference
            return
        self.adapters.disable_adapter_layers()
        try:
            yield self.learner if self.learner.model is self.policy.model else PolicyModel(self.policy.model)
        finally:
            self.adapters.enable_adapter_layers()

    def save(self, path: Path) -> None:
        """Leave the policy as one plain checkpoint, adapters merged; the run is over then."""
        if not self.world.is_first:
            return
        if self.adapters is not None:
            merge_adapters(self.adapters)
        with whole_directory(path) as part:
            self.policy.save(part)

    # How passes over a model in slices are kept in step; nothing where it is whole.

    def expect(self, model: nn.Module, last: bool) -> None:
        """Say before a pass with a gradient whether it is the model's last one of an optimiser step."""
        if (shards := self.shards.get(id(model))) is not None:
            shards.expect(last)

    def release(self, model: nn.Module) -> None:
        """Give up the others' slices after passes without a gradient."""
        if (shards := self.shards.get(id(model))) is not None:
            shards.release()

    @property
    def gradient_share(self) -> float:
        """Factor on a loss so that gradients come out as sums over the processes."""
        return float(self.world.size) if self.shards else 1.0

    def add_gradients(self) -> None:
        """Add up the gradients of whole copies; what is in slices is added up by its backward pass."""
        if self.world.size > 1 and not self.shards:
            gradients = [p.grad for p in self.trained.parameters() if p.grad is not None]
            self.world.add(gradients)


def _reference(policy: Policy, settings: RlSettings) -> Any:
    """The model of the reference policy.

    Raises:
        UsageError: It reads other ids than the policy, so that the same rollout would be another text.
    """
    if settings.reference is None:
        return copy.deepcopy(policy.model)
    other = Policy.load(settings.reference, policy.model.device)
    if other.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise UsageError(f"reference: {settings.reference} has another vocabulary than the policy")
    return other.model


@dataclass(frozen=True)
class PolicyEngine:
    """Samples from the policy of a run, or from the one that it is compared with, in the run's number format.

    Attributes:
        models: Of the run.
        of_reference: Sample from the reference policy.
    """

    models: Models
    of_reference: bool = False

    def generate(self, prefixes: Sequence[Sequence[int]], n: int, limits: Limits) -> list[list[Rollout]]:
        """Sample `n` rollouts of every prefix (see `Engine.generate`)."""
        if self.models.server is not None and not self.of_reference:
            return self.models.server.generate(prefixes, n, limits)
        with autocast(self.models.settings.precision, self.models.device):
            if not self.of_reference:
                return TransformersEngine(self.models.policy.model).generate(prefixes, n, limits)
            with self.models.reference_policy() as reference:
                return TransformersEngine(reference.model).generate(prefixes, n, limits)
