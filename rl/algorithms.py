"""Algorithms: frozen compositions of the functions of this package. To see one: `prm-kit rl show NAME`.

A composition holds the functions themselves. Nobody asks what it is called: whoever runs it calls its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from prm_kit.errors import UsageError, nearest
from prm_kit.settings import validated
from rl import advantages, compatibility, credit, filters, loss_reduction, pair_losses, pairs, regularizers, surrogates
from rl.covariance import Hold
from rl.parts import check_value, described, name_of, part_from
from rl.rewards import LENGTH_PENALTIES, LengthPenalty, RewardWeights

ValueLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(values_BT, old_values_BT, target_BT, mask_BT) -> loss_BT."""


OUTCOME_ONLY = RewardWeights(process=0.0, format=0.0)


@dataclass(frozen=True)
class Divergence:
    """A divergence from the reference policy in the loss."""

    estimate: regularizers.Divergence
    weight: float


@dataclass(frozen=True)
class RewardPenalty:
    """A divergence from the reference policy that the reward loses."""

    estimate: regularizers.RewardPenalty
    weight: float


@dataclass(frozen=True)
class Pairs:
    """A pair loss, alone or beside the policy gradient."""

    builder: pairs.PairBuilder
    loss: pair_losses.PairLoss
    weight: float = 1.0


@dataclass(frozen=True)
class Critic:
    """How the value model learns.

    Attributes:
        loss: Of each token.
        lam: Lambda of its targets; 1 is the Monte-Carlo return.
        warm_up: Updates that only the value model gets, before the policy's first.
    """

    loss: ValueLoss
    lam: float = 1.0
    warm_up: int = 0


@dataclass(frozen=True)
class OnlinePrm:
    """An implicit PRM that starts as the policy and learns from the outcomes of the run's own rollouts.

    Every token is then a step, rewarded by itself; no scorer is asked.

    Attributes:
        beta: What its log-ratio to the reference policy is multiplied by.
        learn_first: Learn from an update's rollouts before judging them, for one more pass over them.
    """

    beta: float = 0.05
    learn_first: bool = False


@dataclass(frozen=True)
class Algorithm:
    """One algorithm.

    Attributes:
        name: What it is called.
        what: What it is, in a sentence.
        source: Where it comes from (arXiv id, or the handbook).
        weights: Of the rewards. Where steps are credited, `weights.process` weighs the process advantage and the
            composed reward has no process part; see `composed_weights`.
        wrong: Final reward of a wrong answer.
        length_penalty: Added to the reward.
        estimator: Advantage of the composed reward; None on the pure pair route.
        credit: Step rewards to step credit; None: their mean is a part of the reward.
        process_estimator: Advantage of the credit; one that is 0 by `weights.process` is refused.
        finish: What is done to the sum of both.
        group_filter: Which groups train; the loop samples until it has enough.
        row_filter: Which rows of a group train.
        problem_filter: Which problems stay for the next epoch.
        surrogate: Token loss; None on the pure pair route.
        hold: Tokens whose log-probability is held back.
        rollout_weight: Correction of an engine that does not sample what the trainer computes.
        reduction: Token losses to a scalar.
        divergence: KL in the loss.
        reward_penalty: KL in the reward.
        entropy_weight: Of the entropy bonus.
        likelihood_weight: Of -log pi on right rollouts, averaged over their tokens.
        critic: How the value model learns; None: there is none.
        online_prm: Who rewards the tokens that `credit` makes advantages of; None: a scorer judges steps.
        pairs: Pair loss.
        group_size: Rollouts of each problem to start from.
    """

    name: str
    what: str
    source: str
    weights: RewardWeights = OUTCOME_ONLY
    wrong: float = 0.0
    length_penalty: LengthPenalty | None = None
    estimator: advantages.Estimator | None = None
    credit: credit.Credit | None = None
    process_estimator: advantages.Estimator | None = None
    finish: advantages.Estimator | None = None
    group_filter: filters.GroupFilter | None = None
    row_filter: filters.RowFilter | None = None
    problem_filter: filters.ProblemFilter | None = None
    surrogate: surrogates.Surrogate | None = None
    hold: Hold | None = None
    rollout_weight: surrogates.RolloutWeight | None = None
    reduction: loss_reduction.Reduction = loss_reduction.token_mean
    divergence: Divergence | None = None
    reward_penalty: RewardPenalty | None = None
    entropy_weight: float = 0.0
    likelihood_weight: float = 0.0
    critic: Critic | None = None
    online_prm: OnlinePrm | None = None
    pairs: Pairs | None = None
    group_size: int = 8

    def __post_init__(self) -> None:
        who = f"algorithm {self.name}"
        if (self.estimator is None) != (self.surrogate is None):
            raise UsageError(f"{who}: an estimator and a surrogate belong together")
        if self.estimator is None and self.pairs is None:
            raise UsageError(f"{who}: neither a surrogate nor pairs: nothing would be learnt")
        if (self.credit is None) != (self.process_estimator is None):
            raise UsageError(f"{who}: credit and process_estimator belong together")
        if self.credit is not None:
            if self.estimator is None:
                raise UsageError(f"{who}: credit of steps wants an estimator: the pair route has no advantages")
            compatibility.check_cell(name_of(self.credit), name_of(self.process_estimator))
            if self.weights.process == 0:
                raise UsageError(f"{who}: steps are credited with weight 0; set weights.process")
        if self.online_prm is not None and self.credit is None:
            raise UsageError(f"{who}: an online PRM rewards tokens, which only a credit rule reads: set parts.credit")
        by_sequence = name_of(self.surrogate) in ("gspo", "gmpo")
        if self.hold is not None and (self.surrogate is None or self.on_policy_only):
            raise UsageError(f"{who}: hold keeps tokens near the old policy: it wants a surrogate with that ratio")
        if by_sequence and self.reduction is not loss_reduction.sequence_mean:
            raise UsageError(f"{who}: {name_of(self.surrogate)} is reduced with sequence_mean, not {self._reduction}")
        if name_of(self.surrogate) == "gmpo" and (several := self._per_token()):
            raise UsageError(f"{who}: gmpo wants one advantage per completion, and {several} gives each token its own")
        if self.critic is None and "critic" in self.needs:
            raise UsageError(f"{who}: {' and '.join(self._critics())} need a critic, and the algorithm has none")

    @property
    def _reduction(self) -> str:
        return name_of(self.reduction)

    def _names(self) -> set[str]:
        parts = (self.estimator, self.process_estimator, self.credit, self.finish)
        return {name_of(part) for part in parts if part is not None}

    def _critics(self) -> list[str]:
        critics = {"mixed_baseline", "critic", "critic_steps", "gae_tokens", "gae_length_adaptive", "gae_steps"}
        return sorted(self._names() & critics)

    def _per_token(self) -> str:
        """The part that gives the tokens of a completion different advantages, or ""."""
        if self.credit is not None:
            return name_of(self.credit)
        if self.reward_penalty is not None and name_of(self.reward_penalty.estimate) == "token_k1_reward":
            return "token_k1_reward"
        several = {"critic", "critic_steps", "gae_tokens", "gae_length_adaptive", "against_reference_log_ratio"}
        return next(iter(sorted(self._names() & several)), "")

    @property
    def composed_weights(self) -> RewardWeights:
        """Weights of the composed reward: without the process part where steps are credited on their own."""
        return self.weights if self.credit is None else self.weights.model_copy(update={"process": 0.0})

    @property
    def on_policy_only(self) -> bool:
        """Whether the surrogate is right for one update of a rollout only."""
        return name_of(self.surrogate) == "reinforce"

    @property
    def needs(self) -> frozenset[str]:
        """What a loop must have: critic, reference policy, greedy rollout, reference rollout, step rewards, steps."""
        names = self._names()
        builder = name_of(self.pairs.builder) if self.pairs else ""
        pair_loss = name_of(self.pairs.loss) if self.pairs else ""
        wanted = {
            "critic": bool(self._critics()),
            "reference policy": self.divergence is not None
            or self.reward_penalty is not None
            or pair_loss == "srpo"
            or self.online_prm is not None
            or "against_reference_log_ratio" in names,
            "greedy rollout": "against_greedy" in names,
            "reference rollout": bool({"against_reference", "against_reference_log_ratio"} & names),
            "step rewards": ((self.credit is not None or self.weights.process > 0) and self.online_prm is None)
            or name_of(self.row_filter) == "step_quality_per_token"
            or builder == "first_wrong_step",
            "steps": builder == "near_miss",
        }
        return frozenset(name for name, is_wanted in wanted.items() if is_wanted)

    def parts(self) -> dict[str, str]:
        """Every part in words, in the order of the fields; parts that are not there are "-"."""
        return {f.name: shown(getattr(self, f.name)) for f in fields(self) if f.name not in ("name", "what", "source")}


def shown(value: Any) -> str:
    """A part, a group of parts or a number in words."""
    if value is None or callable(value):
        return described(value)
    if isinstance(value, RewardWeights):
        return f"final {value.final:g}, process {value.process:g}, format {value.format:g}"
    if is_dataclass(value) and not isinstance(value, type):
        inner = {f.name: getattr(value, f.name) for f in fields(value)}
        return ", ".join(shown(part) if callable(part) else f"{name} {shown(part)}" for name, part in inner.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def with_parts(algorithm: Algorithm, parts: Mapping[str, Any]) -> Algorithm:
    """The algorithm with some parts replaced, each by a function, a name, {name: ..., number: ...}, a number or None.

    A credit rule alone brings the algorithm's estimator along as `process_estimator`, and takes it away when it goes.

    Raises:
        UsageError: A part, a name or a number that does not exist, or parts that do not go together.
    """
    changed: dict[str, Any] = {}
    known = {f.name for f in fields(Algorithm)} - {"name", "what", "source"}
    for key, asked in parts.items():
        if key not in known:
            near = nearest(key, known)
            hint = f" Did you mean {near!r}?" if near else ""
            raise UsageError(
                f"algorithm {algorithm.name} has no part {key!r}.{hint} Known: {', '.join(sorted(known))}."
            )
        changed[key] = _part(key, asked, getattr(algorithm, key))
    if "credit" in changed and "process_estimator" not in changed:  # steps are compared as completions are
        own = algorithm.process_estimator or changed.get("estimator", algorithm.estimator)
        changed["process_estimator"] = own if changed["credit"] is not None else None
    return replace(algorithm, **changed)


def _part(key: str, asked: Any, now: Any) -> Any:
    if key in PARTS:
        return part_from(key, asked, PARTS[key])
    if key == "weights":
        if isinstance(asked, RewardWeights):
            return asked
        if not isinstance(asked, Mapping):
            raise UsageError(f"weights: {asked!r} is no mapping of {', '.join(RewardWeights.model_fields)}")
        return validated(RewardWeights, {**now.model_dump(), **asked}, "weights")
    if key in COMPOUNDS:
        compound, registries = COMPOUNDS[key]
        if asked is None or isinstance(asked, compound):
            return asked
        if not isinstance(asked, Mapping) or not set(asked) <= {f.name for f in fields(compound)}:
            raise UsageError(f"{key}: {asked!r} is no mapping of {', '.join(f.name for f in fields(compound))}")
        given = {name: part_from(f"{key}.{name}", x, registries[name]) if name in registries else x
                 for name, x in asked.items()}  # fmt: skip
        for f in fields(compound):
            if f.name in given and f.name not in registries:
                check_value(f"{key}.{f.name}", given[f.name], str(f.type))
        try:
            return replace(now, **given) if now is not None else compound(**given)
        except TypeError:
            missing = [f.name for f in fields(compound) if f.name not in given and f.default is MISSING]
            raise UsageError(f"{key}: give {', '.join(missing)} too") from None
    check_value(key, asked, next(str(f.type) for f in fields(Algorithm) if f.name == key))
    if key == "group_size" and asked < 1:
        raise UsageError(f"group_size: {asked}: a problem has one rollout at least")
    return asked


PARTS: dict[str, Mapping[str, Any]] = {
    "length_penalty": LENGTH_PENALTIES,
    "estimator": advantages.ESTIMATORS,
    "credit": credit.CREDITS,
    "process_estimator": advantages.ESTIMATORS,
    "finish": advantages.FINISHES,
    "group_filter": filters.GROUP_FILTERS,
    "row_filter": filters.ROW_FILTERS,
    "problem_filter": filters.PROBLEM_FILTERS,
    "surrogate": surrogates.SURROGATES,
    "rollout_weight": surrogates.ROLLOUT_WEIGHTS,
    "reduction": loss_reduction.REDUCTIONS,
}
"""Field of `Algorithm` -> the names that it can be."""

COMPOUNDS: dict[str, tuple[Any, Mapping[str, Mapping[str, Any]]]] = {
    "divergence": (Divergence, {"estimate": regularizers.DIVERGENCES}),
    "reward_penalty": (RewardPenalty, {"estimate": regularizers.REWARD_PENALTIES}),
    "pairs": (Pairs, {"builder": pairs.PAIR_BUILDERS, "loss": pair_losses.PAIR_LOSSES}),
    "online_prm": (OnlinePrm, {}),
    "hold": (Hold, {}),
    "critic": (Critic, {"loss": {"clipped_value_loss": surrogates.clipped_value_loss}}),
}
"""Field of `Algorithm` with several parts -> its class, and the names that its parts can be."""
