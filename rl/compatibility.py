"""Which credit rule runs with which estimator, and what a cell is where a solution has one step scored by its outcome.

There a credit rule is either the outcome itself, and the cell is the estimator's outcome-only advantage, or a known
function of the group's outcomes, and the cell is the estimator of that. Cells that mean nothing are refused by name.
"""

from __future__ import annotations

from prm_kit.errors import UsageError
from rl.advantages import ESTIMATORS
from rl.credit import CREDITS

_CRITICS = ("mixed_baseline", "critic", "critic_steps", "gae_tokens", "gae_length_adaptive")
_BOOTSTRAPS = ("gae_tokens", "gae_length_adaptive")

CLOSED_FORMS: dict[str, str] = {
    "process_supervision": "z",
    "prime": "l",
}
"""Credit rules that on one step are not the outcome r but a function of the group's outcomes."""

MEANING: dict[str, str] = {
    "=": "equals the outcome-only advantage of the estimator",
    "z": "equals the estimator of z = (r - mean) / (std + eps): the rule has normalised over the group already",
    "l": "equals the estimator of r - mean of the others' r: the rule has centred over the group already",
    "-": "refused",
}

REFUSED: dict[tuple[str, str], str] = {
    **{
        (credit, estimator): f"{credit} is centred over the group; a critic predicts rewards, not what is left of them"
        for credit in CLOSED_FORMS
        for estimator in _CRITICS
    },
    **{
        ("gae_steps", estimator): "gae_steps has bootstrapped from the critic already; take critic_steps"
        for estimator in _BOOTSTRAPS
    },
    **{
        (credit, estimator): f"{credit} is the worth of one step and no return, so there is nothing to bootstrap"
        for credit in ("progress", "first_error")
        for estimator in _BOOTSTRAPS
    },
}
"""(credit, estimator) -> why not."""

RESISTS: dict[str, frozenset[str]] = {
    "discounted_sum": frozenset(),
    "process_supervision": frozenset(),
    "min_form": frozenset({"split", "prepend", "append"}),
    "min_to_go": frozenset({"split", "prepend", "append"}),
    "mean": frozenset(),
    "last": frozenset({"split", "prepend"}),
    "difference": frozenset({"split", "append"}),
    "progress": frozenset({"append"}),
    "first_error": frozenset({"append"}),
    "gae_steps": frozenset(),
    "prime": frozenset(),
}
"""What gains nothing under a rule, in a wrong solution: cutting a step into steps of the same score, or adding steps
that score above the worst before the others or after them. To gain is that the first token, or a token that was there
before, is credited with more. Under `min_form` that is so at temperature 0, its default; under `min_to_go` the added
tokens themselves are still paid."""

SEES_STEPS = frozenset({"step_index_mean", "critic_steps"})
"""Estimators whose baseline moves with how steps are cut; the others see tokens only, so that cutting a step into steps
of the same credit changes nothing."""

WITHOUT_OWN_ROW = frozenset(
    {
        "uncentred",
        "leave_one_out",
        "leave_one_out_constant",
        "against_greedy",
        "against_reference",
        "against_reference_log_ratio",
        "critic",
        "critic_steps",
    }
)
"""Estimators whose baseline does not hold the row itself: there added steps do not move it. Under the others a
row's own mean moves its baseline by its share of the group."""


def cell(credit: str, estimator: str) -> str:
    """The cell's sign, a key of `MEANING`."""
    return "-" if (credit, estimator) in REFUSED else CLOSED_FORMS.get(credit, "=")


def check_cell(credit: str, estimator: str) -> None:
    """Refuse a pair that means nothing.

    Raises:
        UsageError: Naming both, and why.
    """
    if reason := REFUSED.get((credit, estimator)):
        raise UsageError(f"credit {credit} with estimator {estimator}: {reason}")


def table() -> dict[str, dict[str, str]]:
    """Credit rule -> estimator -> sign."""
    return {credit: {estimator: cell(credit, estimator) for estimator in ESTIMATORS} for credit in CREDITS}
