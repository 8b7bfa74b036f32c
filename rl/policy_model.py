"""The policy and the value model over rollouts: log-probabilities, entropies and values of generated tokens.

B rollouts, T generated tokens (padded on the right), L tokens with the prompt, N tokens that are predicted, D hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prm_kit.errors import UsageError
from rl.log_probabilities import token_log_probabilities, token_log_probabilities_and_entropies
from rl.rollouts import Sampled
from rl.shared_prompts import ATTENTION, WORTH_SHARING, Folded

_UNSUPPORTED = ("final_logit_softcapping", "logits_scaling", "logit_scale")


class Rows:
    """Rollouts as one batch, and where each generated token is predicted.

    Under causal attention nothing real sees the padding on the right.

    Attributes:
        mask_BT: bool, generated tokens.
        token_N: int64, the generated tokens, row by row.

    Args:
        rollouts: The rollouts.
        width: T.
        device: Of the tensors.
        share: Compute what rollouts have in common once, where that is worth it; see `rl.shared_prompts`.
    """

    def __init__(self, rollouts: Sequence[Sampled], width: int, device: torch.device, *, share: bool = False) -> None:
        sequences = [[*one.prompt, *one.rollout.ids] for one in rollouts]
        longest = max(map(len, sequences))
        ids_BL = torch.zeros(len(rollouts), longest, dtype=torch.long)
        mask_BT = torch.zeros(len(rollouts), width, dtype=torch.bool)
        column: list[int] = []
        for row, (one, ids) in enumerate(zip(rollouts, sequences, strict=True)):
            ids_BL[row, : len(ids)] = torch.tensor(ids)
            mask_BT[row, : len(one.rollout.ids)] = True
            column += range(len(one.prompt) - 1, len(ids) - 1)
        self._ids_BL, self.mask_BT = ids_BL.to(device), mask_BT.to(device)
        self._column_N = torch.tensor(column, device=device)
        self._row_N = self.mask_BT.nonzero()[:, 0]
        self.token_N = self._ids_BL[self._row_N, self._column_N + 1]
        self._folded = None
        if share:
            folded = Folded.of(sequences, device)
            self._folded = folded if len(folded.ids_T) < WORTH_SHARING * ids_BL.numel() else None

    def hidden(self, trunk: Any) -> Tensor:
        """Hidden states [N, D] that predict the generated tokens, under the trunk of a causal language model.

        With shared prompts `shared_prompt_attention` must hold.
        """
        if self._folded is None:
            hidden_BLD = trunk(input_ids=self._ids_BL, use_cache=False).last_hidden_state
            return hidden_BLD[self._row_N, self._column_N]  # type: ignore[no-any-return]
        folded = self._folded
        if trunk.config._attn_implementation != ATTENTION:
            raise AssertionError("rollouts that share prompts need shared_prompt_attention")
        hidden_1TD = trunk(
            input_ids=folded.ids_T[None], position_ids=folded.position_T[None], use_cache=False, folded=folded
        ).last_hidden_state
        return hidden_1TD[0, folded.column_BL[self._row_N, self._column_N]]  # type: ignore[no-any-return]

    def spread(self, value_N: Tensor) -> Tensor:
        """[N] to [B, T], 0 where there is no token; gradients flow."""
        return torch.zeros(self.mask_BT.shape, dtype=value_N.dtype, device=value_N.device).masked_scatter(
            self.mask_BT, value_N
        )


def check_policy(model: Any) -> None:
    """Refuse models whose logits are more than hidden states times the output embeddings.

    Raises:
        UsageError: Naming the setting of the model.
    """
    for key in _UNSUPPORTED:
        if getattr(model.config, key, None) not in (None, 1, 1.0):
            raise UsageError(f"policy: {key} of its configuration changes the logits; such models are not supported")
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise UsageError("policy: its output layer has a bias; such models are not supported")


def log_probabilities(model: Any, rows: Rows) -> Tensor:
    """Log-probability [B, T] float32 of each generated token under a causal language model.

    No (tokens x vocabulary) tensor is held, and the prompt's tokens are never predicted.
    """
    return rows.spread(token_log_probabilities(*_predictions(model, rows), rows.token_N))


def log_probabilities_and_entropies(model: Any, rows: Rows) -> tuple[Tensor, Tensor]:
    """`log_probabilities`, and the entropy of each prediction in nats [B, T], for about a fifth more time."""
    found_N, entropy_N = token_log_probabilities_and_entropies(*_predictions(model, rows), rows.token_N)
    return rows.spread(found_N), rows.spread(entropy_N)


def _predictions(model: Any, rows: Rows) -> tuple[Tensor, Tensor]:
    """Hidden states that predict generated tokens [N, D], and the output layer's weight [V, D]."""
    hidden_ND = rows.hidden(model.get_decoder())
    return hidden_ND, model.get_output_embeddings().weight.to(hidden_ND.dtype)


class ValueModel(nn.Module):
    """V of the state before each generated token: a trunk of its own, copied from the policy's, and a linear head.

    The head starts at 0: before it has learnt, nothing is expected.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(policy.get_decoder())
        self.head = nn.Linear(policy.config.hidden_size, 1, bias=True)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.head.to(next(self.trunk.parameters()).device)

    def forward(self, rows: Rows) -> Tensor:
        """Values [B, T] float32."""
        hidden_ND = rows.hidden(self.trunk)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            value_N = self.head(hidden_ND.float())[:, 0]
        return rows.spread(value_N)
