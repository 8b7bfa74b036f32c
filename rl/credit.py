"""Credit: the step rewards of a solution become the credit of each of its steps, and so of each of its tokens.

Every rule works on the scored steps alone. A step that the scorer abstained from is credited with nothing and moves
nothing; its tokens get no process advantage. r_k is the reward of step k, n the number of scored steps.
Names end in dimensions: B sequences, T tokens, S steps.

Which rule for which PRM: sums, process supervision, differences and progress pay for more or for prettier steps when
the PRM scores correctness; they want calibrated values. `min_form`, `min_to_go`, `mean`, `last` and `first_error` are
bounded by the largest score.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from prm_kit.errors import UsageError
from rl.batch import Batch, step_starts_BS
from rl.groups import group_means, group_sums, row_means
from rl.returns import Packed, gae, packed, sums_to_go, unpacked

Credit = Callable[[Batch], "StepCredit"]
"""Step rewards of a batch -> the credit of each step, and which steps have one."""


class StepCredit(NamedTuple):
    """What each step is credited with.

    Attributes:
        value_BS: float32, the return from the step on (or the step's own worth), 0 where there is none.
        credited_BS: bool.
    """

    value_BS: Tensor
    credited_BS: Tensor


def to_tokens(credit: StepCredit, batch: Batch) -> tuple[Tensor, Tensor]:
    """Every token gets the credit of its step: credit_BT float32, counted_BT bool."""
    step_BT = torch.where(batch.mask_BT, batch.need("step_BT", "step credit"), 0)
    steps = credit.value_BS.shape[1]
    beyond_BT = batch.mask_BT & ((step_BT < 0) | (step_BT >= steps))
    if beyond_BT.any():
        row, token = torch.nonzero(beyond_BT)[0].tolist()
        raise UsageError(f"row {row}, token {token}: it belongs to step {int(step_BT[row, token])} of {steps}")
    counted_BT = batch.mask_BT & credit.credited_BS.gather(1, step_BT)
    return torch.where(counted_BT, credit.value_BS.gather(1, step_BT), 0.0), counted_BT


def discounted_sum(batch: Batch, *, gamma: float = 1.0) -> StepCredit:
    """G_k = sum_{j >= k} gamma^(j-k) r_j. Unbounded: every further step with a positive reward pays."""
    steps = _scored(batch)
    return _credit(sums_to_go(steps.values, gamma), steps)


def process_supervision(batch: Batch, *, ddof: int = 1, eps: float = 1e-6) -> StepCredit:
    """G_k = sum_{j >= k} (r_j - mean) / (std + eps), mean and std over all steps of the group: 2402.03300, 4.1.3.

    Unbounded, and its sign turns with the group's mean: it pays for more steps above the mean and for fewer below.
    A group with a single scored solution has nobody to be compared with and no credit.
    """
    steps = _scored(batch)
    trained_BS = steps.marked & batch.trained_B[:, None]
    count_B = group_sums(trained_BS.sum(1), batch.group_B)
    mean_B = group_sums(torch.where(trained_BS, steps.values, 0.0).sum(1), batch.group_B) / count_B.clamp(min=1)
    from_mean_BS = torch.where(steps.marked, steps.values - mean_B[:, None], 0.0)
    square_B = group_sums(torch.where(trained_BS, from_mean_BS**2, 0.0).sum(1), batch.group_B)
    std_B = (square_B / (count_B - ddof).clamp(min=1)).sqrt()
    rows_B = group_sums(trained_BS.any(1), batch.group_B)
    return _credit(sums_to_go(from_mean_BS / (std_B + eps)[:, None]), steps, rows_B > 1)


def min_form(batch: Batch, *, temperature: float = 0.0, gamma: float = 1.0) -> StepCredit:
    """G_k = sum_{j >= k} gamma^(j-k) softmax(-r / temperature)_j r_j: PURE (2504.15275), which has temperature 0.1.

    Temperature 0 is the limit: the (last) worst step carries the whole reward, G is the minimum up to it and 0 after.
    Then adding, splitting or repeating better steps changes nothing. At a temperature they do: the return of n steps
    lies up to temperature * log(n) above the minimum.
    """
    steps = _scored(batch)
    worst_BS = torch.where(steps.marked, steps.values, torch.inf)
    if temperature > 0:
        weight_BS = torch.softmax(-worst_BS / temperature, dim=1).nan_to_num(0.0)
    else:
        is_worst_BS = steps.marked & (worst_BS == worst_BS.amin(1, keepdim=True))
        weight_BS = (is_worst_BS & (is_worst_BS.long().flip(1).cumsum(1).flip(1) == 1)).double()
    return _credit(sums_to_go(weight_BS * steps.values, gamma), steps)


def min_to_go(batch: Batch) -> StepCredit:
    """G_k = min_{j >= k} r_j. Bounded; good steps after the error are still paid, so filler at the end is."""
    steps = _scored(batch)
    waiting_BS = torch.where(steps.marked, steps.values, torch.inf)
    return _credit(waiting_BS.flip(1).cummin(1).values.flip(1), steps)


def mean(batch: Batch) -> StepCredit:
    """G_k = mean_j r_j at every step, the handbook's R_process. Bounded, but diluted by easy steps."""
    steps = _scored(batch)
    count_B = steps.marked.sum(1).clamp(min=1)
    return _credit((steps.values.sum(1) / count_B)[:, None].expand_as(steps.values), steps)


def last(batch: Batch) -> StepCredit:
    """G_k = r_n at every step: the PRM as an outcome reward model. Pays for a pretty last step."""
    steps = _scored(batch)
    end_B1 = (steps.marked.sum(1, keepdim=True) - 1).clamp(min=0)
    return _credit(steps.values.gather(1, end_B1).expand_as(steps.values), steps)


def difference(batch: Batch) -> StepCredit:
    """G_k = r_k: rewards r_k - r_{k+1}, whose sum to go telescopes to the step's own score (delta, 2410.15115).

    The total is bounded, but each step seeks its own score and nothing beyond. (That paper gives the last step
    no process reward; its formula is not checked against the text here.)
    """
    steps = _scored(batch)
    return _credit(steps.values, steps)


def progress(batch: Batch, *, start: float = 0.0) -> StepCredit:
    """G_k = r_k - r_{k-1}, r_0 = start: what the step adds (2410.08146 where r is another policy's value).

    `start` is the score of having written nothing: 0 on [-1, 1], 0.5 on [0, 1].
    """
    steps = _scored(batch)
    before_BS = torch.cat([torch.full_like(steps.values[:, :1], start), steps.values[:, :-1]], dim=1)
    return _credit(steps.values - before_BS, steps)


def first_error(batch: Batch, *, threshold: float = 0.0) -> StepCredit:
    """G_k = r_k up to and with the first step scored below `threshold`; the steps after it have no credit.

    Of what is built on an error nothing is known, so those tokens get no process advantage, and no mean sees them.
    """
    steps = _scored(batch)
    wrong_BS = steps.marked & (steps.values < threshold)
    after_BS = (wrong_BS.long().cumsum(1) - wrong_BS.long()) > 0
    return _credit(steps.values, steps._replace(marked=steps.marked & ~after_BS))


def gae_steps(batch: Batch, *, gamma: float = 1.0, lam: float = 0.95) -> StepCredit:
    """The lambda-return over steps: GAE with a step as the action, plus the critic's value at the step's start.

    G_k = r_k + gamma ((1 - lam) V_{k+1} + lam G_{k+1}). With `critic_steps` as estimator the advantage is
    GAE over steps. V_k is the critic's value before the step's first token; a step that owns no token is
    the state that the next one starts from.
    """
    values_BT = batch.need("values_BT", "gae_steps")
    step_BT = batch.need("step_BT", "gae_steps")
    steps = _scored(batch)
    first_BS = step_starts_BS(step_BT, batch.mask_BT, steps.values.shape[1])
    padded_BT = torch.cat([values_BT.double(), torch.zeros_like(values_BT[:, :1])], dim=1)  # 0 after the end
    start_BS = torch.where(steps.marked, padded_BT.gather(1, first_BS).gather(1, steps.order), 0.0)
    lam_B = torch.full_like(start_BS[:, 0], lam)
    return _credit(gae(steps.values, start_BS, gamma, lam_B) + start_BS, steps)


def prime(batch: Batch) -> StepCredit:
    """G_k = sum_{j >= k} (r_j - mean of the other solutions' mean step reward): PRIME (2502.01456).

    The paper's reading with implicit rewards beta log(prm / reference) of every token as the steps; its released
    code scales differently. A group with a single scored solution has no credit.
    """
    steps = _scored(batch)
    own_B, count_B = row_means(steps.values, steps.marked)
    has_B = (count_B > 0) & batch.trained_B
    mean_B, rows_B = group_means(own_B, has_B, batch.group_B)
    others_B = torch.where(has_B, (mean_B * rows_B - own_B) / (rows_B - 1).clamp(min=1), mean_B)
    centred_BS = torch.where(steps.marked, steps.values - others_B[:, None], 0.0)
    return _credit(sums_to_go(centred_BS), steps, rows_B > 1)


def _scored(batch: Batch) -> Packed:
    """The scored steps of each row, side by side."""
    rewards_BS = batch.need("step_rewards_BS", "step credit")
    if torch.isinf(rewards_BS).any():
        raise UsageError(f"row {int(torch.isinf(rewards_BS).any(1).nonzero()[0])}: a step reward is infinite")
    return packed(rewards_BS, ~torch.isnan(rewards_BS))


def _credit(values_BS: Tensor, steps: Packed, rows_B: Tensor | None = None) -> StepCredit:
    """Credit where the steps lay before packing; none in rows outside of `rows_B`."""
    if rows_B is not None:
        steps = steps._replace(marked=steps.marked & rows_B[:, None])
    credited_BS = torch.zeros_like(steps.marked).scatter(1, steps.order, steps.marked)
    return StepCredit(unpacked(values_BS, steps).float().detach(), credited_BS)


CREDITS: dict[str, Credit] = {
    "discounted_sum": discounted_sum,
    "process_supervision": process_supervision,
    "min_form": min_form,
    "min_to_go": min_to_go,
    "mean": mean,
    "last": last,
    "difference": difference,
    "progress": progress,
    "first_error": first_error,
    "gae_steps": gae_steps,
    "prime": prime,
}
