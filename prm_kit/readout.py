"""From what a head gives to class probabilities: one pure function per kind of head.

A checkpoint's card names its read-out; training, scoring, conversion and export go by it. N steps, K outputs of the
head, M members of an ensemble; classes in the order (-1, 0, +1). Calibration divides the log-probabilities that
come out of here by a temperature and normalises; with a softmax or a sigmoid that is dividing the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from prm_kit.card import ReadoutName, StepScore
from prm_kit.errors import InputError, unknown_name


@dataclass(frozen=True)
class Readout:
    """How the outputs of a head are read.

    Attributes:
        labels: What the outputs mean, as `id2label` of the checkpoint says; an ensemble repeats them per member.
        log_probabilities: Outputs [N, K] to log-probabilities of (-1, 0, +1), float32 [N, 3]; -inf for a class that the
            head does not know. None where outputs are numbers without bounds.
        uncertainty: Outputs to one number per step, float32 [N]; None where the head cannot tell.
        members: Whether the labels may be repeated.
    """

    labels: tuple[str, ...]
    log_probabilities: Callable[[Tensor], Tensor] | None
    uncertainty: Callable[[Tensor], Tensor] | None = None
    members: bool = False

    def probabilities(self, logits_NK: Tensor) -> Tensor:
        """Probabilities of (-1, 0, +1), float32 [N, 3].

        Raises:
            InputError: The outputs are no probabilities.
        """
        if self.log_probabilities is None:
            raise InputError("this head gives numbers without bounds, from which no probabilities follow")
        return self.log_probabilities(logits_NK).exp()

    def fits(self, outputs: int) -> bool:
        """Whether a head with so many outputs can be read so."""
        if self.members:
            return outputs > len(self.labels) and outputs % len(self.labels) == 0
        return outputs == len(self.labels)

    def id2label(self, outputs: int) -> dict[int, str]:
        """Name of each output."""
        names = len(self.labels)
        return {
            k: f"{self.labels[k % names]} ({k // names})" if self.members else self.labels[k] for k in range(outputs)
        }


def readout_named(name: str) -> Readout:
    """The read-out of that name.

    Raises:
        UsageError: There is none; the message lists the names.
    """
    if name not in READOUTS:
        raise unknown_name("readout", name, READOUTS)
    return READOUTS[name]


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision becomes float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def classes_log_probabilities(logits_NK: Tensor) -> Tensor:
    """Three logits, softmax."""
    return torch.log_softmax(at_least_float32(logits_NK), dim=-1)


def binary_log_probabilities(logits_NK: Tensor) -> Tensor:
    """Two logits in the order wrong, right; softmax. The neutral class has no probability."""
    wrong_N, right_N = torch.log_softmax(at_least_float32(logits_NK), dim=-1).unbind(-1)
    return torch.stack([wrong_N, torch.full_like(wrong_N, -torch.inf), right_N], dim=-1)


def sigmoid_log_probabilities(logits_NK: Tensor) -> Tensor:
    """One logit x: p(+1) = sigmoid(x), p(-1) = sigmoid(-x). The neutral class has no probability."""
    logit_N = at_least_float32(logits_NK)[:, 0]
    return torch.stack([logsigmoid(-logit_N), torch.full_like(logit_N, -torch.inf), logsigmoid(logit_N)], dim=-1)


def ordinal_log_probabilities(logits_NK: Tensor) -> Tensor:
    """Cumulative logits (McCullagh, Regression models for ordinal data, 1980) over -1 < 0 < +1.

    Outputs (a, g); a is the logit of "better than -1" and b = a - softplus(g) that of "better than 0":

    p(-1) = sigmoid(-a), p(0) = sigmoid(a) - sigmoid(b), p(+1) = sigmoid(b)

    The gap is positive whatever the head says, so b < a and no probability is negative; it is the step's own, where
    McCullagh's is a constant. As 1 - exp(-softplus(g)) = sigmoid(g), the middle one is sigmoid(a) sigmoid(-b)
    sigmoid(g), whose logarithm loses no digits.
    """
    above_N, gap_N = at_least_float32(logits_NK).unbind(-1)
    best_N = above_N - softplus(gap_N)
    middle_N = logsigmoid(above_N) + logsigmoid(-best_N) + logsigmoid(gap_N)
    return torch.stack([logsigmoid(-above_N), middle_N, logsigmoid(best_N)], dim=-1)


def ensemble_log_probabilities(logits_NK: Tensor) -> Tensor:
    """M members of three logits each: the logarithm of the mean of their probabilities."""
    log_NM3 = _members(logits_NK)
    return torch.logsumexp(log_NM3, dim=1) - torch.tensor(float(log_NM3.shape[1])).log()


def ensemble_uncertainty(logits_NK: Tensor) -> Tensor:
    """How far the members disagree, in nats: entropy of the mean minus mean of the entropies, 0 to log 3.

    That is the mutual information between a step's class and the member asked (arXiv 1112.5745): a step that every
    member calls a toss-up has none.
    """
    log_NM3, mean_N3 = _members(logits_NK), ensemble_log_probabilities(logits_NK)
    inner_N = -(log_NM3.exp() * log_NM3).sum(dim=-1).mean(dim=-1)
    return (-(mean_N3.exp() * mean_N3).sum(dim=-1) - inner_N).clamp(min=0.0)


def step_rewards(cumulative: Sequence[float], step_score: StepScore) -> list[float]:
    """Scores of a solution's steps by an implicit PRM, from its rewards up to and with each of them.

    "cumulative" leaves them; "difference" gives Q_k - Q_(k-1) with Q_(-1) = 0, which sums to the last of them.
    """
    if step_score == "cumulative":
        return list(cumulative)
    return [here - before for before, here in zip([0.0, *cumulative], cumulative, strict=False)]


def _members(logits_NK: Tensor) -> Tensor:
    """Log-probabilities by member, [N, M, 3]."""
    members = logits_NK.shape[1] // 3
    return torch.log_softmax(at_least_float32(logits_NK).reshape(len(logits_NK), members, 3), dim=-1)


READOUTS: dict[ReadoutName, Readout] = {
    "classes": Readout(("-1", "0", "+1"), classes_log_probabilities),
    "binary": Readout(("wrong", "right"), binary_log_probabilities),
    "sigmoid": Readout(("right",), sigmoid_log_probabilities),
    "ordinal": Readout(("better than -1", "gap"), ordinal_log_probabilities),
    "ensemble": Readout(("-1", "0", "+1"), ensemble_log_probabilities, ensemble_uncertainty, members=True),
    "unbounded": Readout(("value",), None),
}
"""By the name in the card."""
