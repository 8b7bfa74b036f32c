"""Advantage estimators: what a token is credited with, minus what was to be expected.

An estimator takes credit in token space, so it never sees how many steps a solution was cut into. A row counts once,
by the mean over its counted tokens, however many tokens or steps it has. The outcome of a completion is the credit
that is the same at every token; there the row's mean is its reward and each formula is the one of its paper.

Names end in dimensions: B sequences, T tokens, S steps, G groups. G_t is the credit at token t, x the row's mean of it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prm_kit.errors import UsageError
from rl.batch import Batch, first_token_BT, step_starts_BS
from rl.covariance import clip_cov
from rl.groups import group_means, group_rows, group_sums, row_means
from rl.returns import generalised_advantages

Estimator = Callable[[Tensor, Tensor, Batch], Tensor]
"""(credit_BT, counted_BT, batch) -> advantage_BT float32, 0 where not counted.

`counted_BT` marks the tokens that have a credit; rows without any are in no mean. A group-centred estimator gives a
group of one row 0, never its reward. Nothing here carries a gradient.
"""


def uncentred(credit_BT: Tensor, counted_BT: Tensor, batch: Batch) -> Tensor:
    """A = G: REINFORCE (1992) without a baseline; with process supervision as credit, DeepSeekMath (2402.03300)."""
    return _masked(credit_BT.double(), counted_BT, batch)


def group_mean(credit_BT: Tensor, counted_BT: Tensor, batch: Batch) -> Tensor:
    """A = G - mean(x): Dr.GRPO (2503.20783) and the handbook's DAPO."""
    mean_B, rows_B = _group(credit_BT, counted_BT, batch)
    return _masked(credit_BT.double() - mean_B[:, None], counted_BT, batch, rows_B > 1)


def group_zscore(credit_BT: Tensor, counted_BT: Tensor, batch: Batch, *, ddof: int = 1, eps: float = 1e-6) -> Tensor:
    """A = (G - mean(x)) / (std + eps): GRPO (2402.03300), whose paper leaves ddof open; GFPO (2508.09726) has ddof 0.

    The variance is that of the group's tokens, every row weighing the same: the rows' mean of mean_t (G_t - mean)^2,
    times n / (n - ddof). With one credit per row this is the variance of the rewards; with several, rows of equal
    means do not divide by nothing.
    """
    mean_B, rows_B = _group(credit_BT, counted_BT, batch)
    from_mean_BT = credit_BT.double() - mean_B[:, None]
    square_B, count_B = row_means(from_mean_BT**2, counted_BT & batch.trained_B[:, None])
    variance_B, _ = group_means(square_B, count_B > 0, batch.group_B)
    std_B = (variance_B * rows_B / (rows_B - ddof).clamp(min=1)).sqrt()
    return _masked(from_mean_BT / (std_B + eps)[:, None], counted_BT, batch, rows_B > 1)


def length_weighted_mean(credit_BT: Tensor, counted_BT: Tensor, batch: Batch) -> Tensor:
    """A = G - sum l x / sum l, l the row's counted tokens: OPO (2505.23585), exactly on policy.

    Where every token has the squared gradient of every other, this baseline has the least variance.
    """
    own_B, length_B = row_means(credit_BT, counted_BT & batch.trained_B[:, None])
    baseline_B = group_sums(own_B * length_B, batch.group_B) / group_sums(length_B, batch.group_B).clamp(min=1)
    rows_B = group_sums(length_B > 0, batch.group_B)
    return _masked(credit_BT.double() - baseline_B[:, None], counted_BT, batch, rows_B > 1)


def leave_one_out(credit_BT: Tensor, counted_BT: Tensor, batch: Batch) -> Tensor:
    """A = G - mean of the other rows' x: RLOO (2402.14740). With one credit per row: n / (n - 1) (r - mean)."""
    mean_B, rows_B = _group(credit_BT, counted_BT, batch)
    own_B, _ = row_means(credit_BT, counted_BT)
    others_B = (mean_B * rows_B - own_B) / (rows_B - 1).clamp(min=1)
    return _masked(credit_BT.double() - others_B[:, None], counted_BT, batch, rows_B > 1)


def leave_one_out_constant(credit_BT: Tensor, counted_BT: Tensor, batch: Batch) -> Tensor:
    """A = G - sum over the other rows' tokens of G / ((n - 1) max_tokens): PURE's token baseline (2504.15275).

    The divisor is a constant of the run, so that neither the length nor the number of steps moves the baseline.
    """
    trained_BT = counted_BT & batch.trained_B[:, None]
    sums_B = torch.where(trained_BT, credit_BT, 0.0).double().sum(1) / batch.max_tokens
    has_B = trained_BT.any(1)
    mean_B, rows_B = group_means(sums_B, has_B, batch.group_B)
    others_B = (mean_B * rows_B - sums_B) / (rows_B - 1).clamp(min=1)
    return _masked(credit_BT.double() - others_B[:, None], counted_BT, batch, rows_B > 1)


def step_index_mean(credit_BT: Tensor, counted_BT: Tensor, batch: Batch) -> Tensor:
    """A = G - mean over the group's rows of the credit at the same step index; 0 where no other row has that step.

    The baseline moves with how steps are cut, so whoever writes more steps is compared with fewer rows.
    """
    step_BT = torch.zeros_like(batch.mask_BT, dtype=torch.int64) if batch.step_BT is None else batch.step_BT
    step_BT = torch.where(counted_BT, step_BT, 0)
    trained_BT = counted_BT & batch.trained_B[:, None]
    index_B, groups = group_rows(batch.group_B)
    steps = int(step_BT.max()) + 1 if step_BT.numel() else 1
    zeros_BS = torch.zeros(len(index_B), steps, dtype=torch.float64, device=credit_BT.device)
    tokens_BS = zeros_BS.scatter_add(1, step_BT, trained_BT.double())
    sums_BS = zeros_BS.scatter_add(1, step_BT, torch.where(trained_BT, credit_BT, 0.0).double())
    has_BS = (tokens_BS > 0).double()
    zeros_GS = torch.zeros(groups, steps, dtype=torch.float64, device=credit_BT.device)
    rows_GS = zeros_GS.index_add(0, index_B, has_BS)
    means_GS = zeros_GS.index_add(0, index_B, sums_BS / tokens_BS.clamp(min=1)) / rows_GS.clamp(min=1)
    compared_BT = counted_BT & (rows_GS[index_B].gather(1, step_BT) > 1)
    return _masked(credit_BT.double() - means_GS[index_B].gather(1, step_BT), compared_BT, batch)


def mixed_baseline(credit_BT: Tensor, counted_BT: Tensor, batch: Batch, *, share: float = 0.5) -> Tensor:
    """A = G - share * mean(x) - (1 - share) * V(problem): the handbook's VAPO; share 0 is the value alone.

    V(problem) is the critic's value before the first generated token.
    """
    if not 0.0 <= share <= 1.0:
        raise UsageError(f"mixed_baseline: share is {share}; it must be in [0, 1]")
    mean_B, rows_B = _group(credit_BT, counted_BT, batch)
    values_BT = batch.need("values_BT", "mixed_baseline")
    value_B = torch.where(first_token_BT(batch.mask_BT), values_BT, 0.0).double().sum(1)
    baseline_B = share * mean_B + (1 - share) * value_B
    compared_B = rows_B > (1 if share > 0 else 0)
    return _masked(credit_BT.double() - baseline_B[:, None], counted_BT, batch, compared_B)


def against_greedy(credit_BT: Tensor, counted_BT: Tensor, batch: Batch) -> Tensor:
    """A = G - x of the group's greedy rollout: ReMax (2310.10505)."""
    return _against(credit_BT, counted_BT, batch, "the greedy rollout")


def against_reference(credit_BT: Tensor, counted_BT: Tensor, batch: Batch) -> Tensor:
    """A = G - x of the group's rollout by the reference policy: the handbook's SRPO, reward difference."""
    return _against(credit_BT, counted_BT, batch, "the reference policy's rollout")


def against_reference_log_ratio(credit_BT: Tensor, counted_BT: Tensor, batch: Batch, *, beta: float = 0.1) -> Tensor:
    """A_t = G - x of the reference rollout - beta (log pi_old - log pi_reference)_t: the handbook's SRPO, log-ratio.

    As printed there (A = log pi - log pi_reference alone, to be maximised) it ignores the reward, and its expected
    gradient on policy is that of KL(pi || pi_reference) upwards: away from the reference. Here the ratio is a
    constant, subtracted, beside the reward.
    """
    ratio_BT = batch.need("old_BT", "against_reference_log_ratio") - batch.need(
        "reference_BT", "against_reference_log_ratio"
    )
    ratio_BT = torch.where(counted_BT & batch.trained_B[:, None], ratio_BT, 0.0).detach()
    return _against(credit_BT, counted_BT, batch, "the reference policy's rollout") - beta * ratio_BT


def whitened(credit_BT: Tensor, counted_BT: Tensor, batch: Batch, *, ddof: int = 1, eps: float = 1e-8) -> Tensor:
    """A = (G - mean) / sqrt(var + eps) over all counted tokens of the batch: REINFORCE++ (2501.03262)."""
    trained_BT = counted_BT & batch.trained_B[:, None]
    of_N = credit_BT[trained_BT].double()
    if of_N.numel() == 0:
        return torch.zeros_like(credit_BT, dtype=torch.float32)
    variance = ((of_N - of_N.mean()) ** 2).sum() / max(of_N.numel() - ddof, 1)
    return _masked((credit_BT.double() - of_N.mean()) / (variance + eps).sqrt(), counted_BT, batch)


def group_mean_whitened(credit_BT: Tensor, counted_BT: Tensor, batch: Batch) -> Tensor:
    """G - mean(x), then whitened over the batch's tokens: REINFORCE++-baseline (2501.03262)."""
    return whitened(group_mean(credit_BT, counted_BT, batch), counted_BT, batch)


def critic(credit_BT: Tensor, counted_BT: Tensor, batch: Batch) -> Tensor:
    """A = G - V(state before the token): GAE with lambda 1."""
    values_BT = batch.need("values_BT", "critic")
    return _masked(credit_BT.double() - values_BT.double(), counted_BT, batch)


def critic_steps(credit_BT: Tensor, counted_BT: Tensor, batch: Batch) -> Tensor:
    """A = G - V(state before the token's step), the same at every token of a step.

    With `rl.credit.gae_steps` as credit this is GAE with a step as the action. Without steps, V(problem).
    """
    values_BT = batch.need("values_BT", "critic_steps")
    if batch.step_BT is None:
        step_BT = torch.zeros_like(batch.mask_BT, dtype=torch.int64)
    else:
        step_BT = torch.where(batch.mask_BT, batch.step_BT, 0).long()
    steps = int(step_BT.max()) + 1 if step_BT.numel() else 1
    first_BS = step_starts_BS(step_BT, batch.mask_BT, steps).clamp(max=step_BT.shape[1] - 1)
    start_BT = values_BT.gather(1, first_BS.gather(1, step_BT))
    return _masked(credit_BT.double() - start_BT.double(), counted_BT, batch)


def gae_tokens(credit_BT: Tensor, counted_BT: Tensor, batch: Batch, *, gamma: float = 1.0, lam: float = 0.95) -> Tensor:
    """Generalised advantage estimation over tokens (1506.02438), as PPO (1707.06347) uses it.

    The token rewards are the increments whose sum to go is the credit: for an outcome, the reward on the last token.
    """
    lam_B = torch.full_like(batch.reward_B, lam, dtype=torch.float64)
    values_BT = batch.need("values_BT", "gae_tokens")
    return _masked(generalised_advantages(credit_BT, values_BT, counted_BT, gamma, lam_B), counted_BT, batch)


def gae_length_adaptive(
    credit_BT: Tensor, counted_BT: Tensor, batch: Batch, *, alpha: float = 0.05, gamma: float = 1.0
) -> Tensor:
    """GAE over tokens with lambda = 1 - 1 / (alpha length), cut to [0, 1]: VAPO (2504.05118).

    Decoupled: the critic learns the credit itself (lambda 1), see `rl.returns.critic_targets`.
    """
    lam_B = (1 - 1 / (alpha * counted_BT.sum(1).clamp(min=1)).double()).clamp(0.0, 1.0)
    values_BT = batch.need("values_BT", "gae_length_adaptive")
    return _masked(generalised_advantages(credit_BT, values_BT, counted_BT, gamma, lam_B), counted_BT, batch)


def zero_truncated(credit_BT: Tensor, counted_BT: Tensor, batch: Batch) -> Tensor:
    """The advantages as they are, 0 for rollouts that ended at the limit: SRPO (2504.14286). For `finish`."""
    truncated_B = batch.need("truncated_B", "zero_truncated")
    return _masked(credit_BT, counted_BT, batch, ~truncated_B)


def _group(credit_BT: Tensor, counted_BT: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean of the group's x, and of how many rows, for each row; rollouts to compare with are in neither."""
    own_B, count_B = row_means(credit_BT, counted_BT)
    return group_means(own_B, (count_B > 0) & batch.trained_B, batch.group_B)


def _against(credit_BT: Tensor, counted_BT: Tensor, batch: Batch, what: str) -> Tensor:
    own_B, count_B = row_means(credit_BT, counted_BT)
    compared_with_B = (count_B > 0) & ~batch.trained_B
    mean_B, rows_B = group_means(own_B, compared_with_B, batch.group_B)
    alone_B = (rows_B == 0) & batch.trained_B & (count_B > 0)
    if alone_B.any():
        raise UsageError(f"group {int(batch.group_B[alone_B][0])} has no row to compare with: {what} is missing")
    return _masked(credit_BT.double() - mean_B[:, None], counted_BT, batch)


def _masked(advantage_BT: Tensor, counted_BT: Tensor, batch: Batch, rows_B: Tensor | None = None) -> Tensor:
    """float32, 0 outside of the counted tokens of trained rows (and of `rows_B`)."""
    keep_B = batch.trained_B if rows_B is None else batch.trained_B & rows_B
    return torch.where(counted_BT & keep_B[:, None], advantage_BT, 0.0).float().detach()


ESTIMATORS: dict[str, Estimator] = {
    "uncentred": uncentred,
    "group_mean": group_mean,
    "group_zscore": group_zscore,
    "length_weighted_mean": length_weighted_mean,
    "leave_one_out": leave_one_out,
    "leave_one_out_constant": leave_one_out_constant,
    "step_index_mean": step_index_mean,
    "mixed_baseline": mixed_baseline,
    "against_greedy": against_greedy,
    "against_reference": against_reference,
    "against_reference_log_ratio": against_reference_log_ratio,
    "whitened": whitened,
    "group_mean_whitened": group_mean_whitened,
    "critic": critic,
    "critic_steps": critic_steps,
    "gae_tokens": gae_tokens,
    "gae_length_adaptive": gae_length_adaptive,
}

FINISHES: dict[str, Estimator] = {"whitened": whitened, "zero_truncated": zero_truncated, "clip_cov": clip_cov}
"""What may be done to the advantages at the end; (advantage_BT, counted_BT, batch) -> advantage_BT."""
