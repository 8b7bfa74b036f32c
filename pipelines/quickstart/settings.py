"""What the quickstart is asked: sizes and learning rates. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from prm_kit.settings import Settings

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


Progress = Callable[..., None]
"""Called with (stage, parts of it done, parts in all) and, where there is more to say, a note."""


class QuickstartSettings(Settings):
    """The defaults make a run of about four minutes on two CPU cores.

    Attributes:
        seed: Of problems, weights, order of the data and samples.
        demonstrations: Solutions, half of them wrong, that the policy learns to imitate.
        policy_learning_rate: Peak, of the policy.
        policy_batch_tokens: Tokens of an update of the policy: small updates, and many, learn fastest here.
        train_problems: Problems whose sampled solutions the PRM and the ORM are trained on.
        train_samples: Samples of each of them.
        dev_problems: Problems on which weights and thresholds are chosen.
        test_problems: Problems that nothing was trained or chosen on; 8 samples each are scored and reranked.
        samples: Samples of each development and test problem.
        max_new_tokens: Longest sample.
        prm_batch_tokens: Tokens of an update of the PRM and of the ORM.
        prm_epochs: Passes of the PRM and of the ORM over their solutions.
        prm_learning_rate: Peak, of both.
        rl_updates: Updates of the policy, with the PRM's step rewards and, as a control, without.
        rl_problems: Problems of an update; no other stage has seen them.
        rl_learning_rate: Peak, of both runs.
    """

    seed: int = Field(0, ge=0)
    demonstrations: Positive = 14_000
    policy_learning_rate: Rate = 2e-3
    policy_batch_tokens: Positive = 416
    train_problems: Positive = 4_000
    train_samples: Positive = 2
    dev_problems: Positive = 100
    test_problems: Positive = 300
    samples: Positive = 8
    max_new_tokens: Positive = 100
    prm_batch_tokens: Positive = 832
    prm_epochs: Positive = 6
    prm_learning_rate: Rate = 1.5e-3
    rl_updates: Positive = 20
    rl_problems: Positive = 32
    rl_learning_rate: Rate = 3e-4


def micro_batch_tokens(batch_tokens: int) -> int:
    """Half an update more: most updates go through the model at once, those that would be much padded in two parts."""
    return batch_tokens * 3 // 2
