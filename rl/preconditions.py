"""Settings with which an algorithm could not learn, or a run would end by a rule that nothing can meet: refused."""

from __future__ import annotations

from prm_kit.errors import UsageError
from rl.algorithms import Algorithm
from rl.branching import check_branching
from rl.process_weight import check_schedule
from rl.train_settings import RlSettings


def check_learns(settings: RlSettings, algorithm: Algorithm, *, held_out: bool, scored: bool = True) -> None:
    """Refuse settings that do not go with an algorithm.

    -A log pi is the policy gradient only where the policy that learns is the one that sampled. A second optimiser step
    on the same batch of rollouts, be it another pass or another minibatch, is taken by a policy that has moved, and
    without an importance ratio nothing corrects for that.

    Args:
        settings: Of the run.
        algorithm: The algorithm with its parts.
        held_out: Whether there are held-out problems.
        scored: Whether a scorer judges steps.

    Raises:
        UsageError: Naming the setting and the mend.
    """
    who = f"algorithm {algorithm.name}"
    for name in ("passes", "minibatches"):
        if algorithm.on_policy_only and getattr(settings, name) > 1:
            raise UsageError(
                f"{name}: {getattr(settings, name)}: the surrogate of {who} has no importance ratio, so a batch of "
                "rollouts is right for one optimiser step only: ask for 1, or for parts.surrogate=ppo_clip"
            )
    waits = 0 if algorithm.critic is None else algorithm.critic.warm_up
    if waits >= settings.updates:
        raise UsageError(
            f"updates: {settings.updates}: {who} trains nothing but its value model for the first {waits}; ask for "
            "more updates, or for less with parts.critic.warm_up"
        )
    check_schedule(settings.process_weight, algorithm)
    if settings.branching is not None:
        check_branching(settings.branching, algorithm, group_size=settings.group_size, scored=scored)
    if (rules := settings.stop.evaluates) and not (held_out and settings.eval_every):
        raise UsageError(f"{rules[0]}: needs held-out problems and eval_every")
    has_reference = bool(algorithm.needs & {"reference policy", "reference rollout"})
    for name, asked in (("reference", settings.reference), ("reference_every", settings.reference_every)):
        if asked is not None and not has_reference:
            raise UsageError(f"{name}: {who} has no reference policy")
        if asked is not None and settings.lora is not None:
            raise UsageError(f"{name}: with lora the reference is the policy without its adapters, as it started")
    if settings.reference_every is not None and algorithm.online_prm is not None:
        raise UsageError(f"reference_every: the PRM of {who} learns against a reference that stays where it was")
    if settings.stop.kl is not None and "reference policy" not in algorithm.needs:
        raise UsageError(f"stop.kl: {who} does not compare itself with a reference policy")
