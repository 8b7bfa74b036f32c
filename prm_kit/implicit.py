"""An implicit PRM: a language model whose log-ratio to a reference is the reward (arXiv 2412.01981, 2502.01456).

    r(y) = beta * sum_t log pi(y_t | x, y_<t) - log pi_ref(y_t | x, y_<t)

It is trained on final answers alone: sigmoid(r) of a whole solution is fitted to whether it is right. The same sum up
to the end of step k is its estimate of what the solution will come to (Q_k, "cumulative"); what the step adds to it,
Q_k - Q_(k-1), is its process reward ("difference"). Neither is a probability.

No mark is put between steps: a step is read at the last token of its own text. The checkpoint is the language model
(plain `AutoModelForCausalLM`), with the reference in `reference/` beside it: a reference that changed elsewhere would
change every score. Log-probabilities are made a piece at a time, so that no (tokens x vocabulary) tensor is held.

B sequences, T tokens, N tokens or read positions, D hidden, V vocabulary.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prm_kit.backbone import load_language_model, load_tokenizer, output_layer, quiet
from prm_kit.card import PrmCard, StepScore, read_card, tokenizer_fingerprint
from prm_kit.encode import Encoded, Overlong, StepEncoder
from prm_kit.errors import InputError, UsageError
from prm_kit.files import whole_directory, write_json
from prm_kit.model import Prm, check_files, default_dtype
from prm_kit.records import Solution
from prm_kit.segments import SegmentEncoder
from prm_kit.step_reading import NEW_MARK, StepReading, default_reading

_PIECE = 1 << 24  # numbers of a piece of tokens x vocabulary: 64 MB in float32


class MarklessEncoder(StepEncoder):
    """Encodes as `StepEncoder` does, and then takes the marks out: a step is read at the last token of its text."""

    def encode(
        self, solutions: Sequence[Solution], max_tokens: int | None = None, too_long: Overlong = "refuse"
    ) -> list[Encoded]:
        """Encode solutions, in order. A step without tokens of its own is read where the one before it is.

        Args:
            solutions: What to encode.
            max_tokens: Most ids a sequence may have, a mark for each step counted in; None: no limit.
            too_long: Makes no difference: a reward sums over the whole solution, so no window shows it.

        Raises:
            TooLongError: Naming the solution, its tokens and the limit.
        """
        return [
            Encoded(
                one.solution,
                [token for token in one.ids if token != self.mark_id],
                [position - number - 1 for number, position in enumerate(one.read_positions)],
                one.steps,
                one.prompt_length,
            )
            for one in super().encode(solutions, max_tokens, "refuse")
        ]


class ImplicitPrm(Prm):
    """A language model and its reference.

    Attributes:
        model: The language model that is trained and scored with.
        reference: The one that it is compared with; never trained.
        asked, asked_reference: The same two, as what gives log-probabilities of tokens.

    Args:
        encoder: Of a published layout; None: what the card says, read at the last token of each step.
    """

    can_share_prefixes = False
    fresh_head = False

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        card: PrmCard,
        reference: PreTrainedModel,
        encoder: SegmentEncoder | None = None,
    ) -> None:
        super().__init__(model, tokenizer, card)
        self.encoder = encoder or _encoder_of(tokenizer, card)
        self.reference = reference.requires_grad_(False)
        self.reference.train(mode=False)
        self.asked, self.asked_reference = TokenLogProbabilities(model), TokenLogProbabilities(reference)
        self.beta = card.beta or 0.05

    @property
    def computed_parts(self) -> tuple[nn.Module, nn.Module]:
        """The language model and its reference."""
        return self.asked, self.asked_reference

    @property
    def head(self) -> nn.Linear:
        """The output layer."""
        return output_layer(self.model)

    def read_logits(
        self,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor | None,
        row_N: Tensor,
        position_N: Tensor,
        position_ids_BT: Tensor | None = None,
        start_B: Tensor | None = None,
        **attention: Any,
    ) -> Tensor:
        """Reward of each solution up to and with each read position, float32 [N, 1].

        Args:
            input_ids_BT: Token ids, padded on the right.
            attention_mask_BT: 1 for tokens, 0 for padding; None: the padding is never looked at.
            row_N: Row of each read position.
            position_N: Column of each read position; before the solution's first token the reward is 0.
            position_ids_BT: None.
            start_B: Column of the first token of each solution; a token in column 0 follows nothing and counts 0.
            attention: None.
        """
        if start_B is None or position_ids_BT is not None or attention:
            raise UsageError("an implicit PRM needs to know where each solution begins, in a batch of whole rows")
        token_B = torch.zeros_like(start_B).scatter_reduce(0, row_N, position_N, "amax")
        column_T = torch.arange(input_ids_BT.shape[1], device=input_ids_BT.device)
        read_BT = (column_T >= start_B.clamp(min=1)[:, None]) & (column_T <= token_B[:, None])
        ratio_BT = torch.zeros(read_BT.shape, device=read_BT.device, dtype=torch.float32)
        mine_N = self.asked(input_ids_BT, attention_mask_BT, read_BT)
        with torch.no_grad():
            theirs_N = self.asked_reference(input_ids_BT, attention_mask_BT, read_BT)
        ratio_BT = ratio_BT.masked_scatter(read_BT, self.beta * (mine_N - theirs_N))
        return ratio_BT.cumsum(dim=1)[row_N, position_N][:, None]

    def save(self, path: str | Path) -> None:
        """Write the checkpoint directory, whole or not at all; one that is there is replaced."""
        with whole_directory(Path(path)) as part, quiet():
            self.model.save_pretrained(part)
            self.tokenizer.save_pretrained(part)
            self.reference.save_pretrained(part / "reference")
            write_json(part / "prm.json", self.card.model_dump(mode="json"))


def implicit_from_backbone(
    source: str | Path,
    *,
    reference: str | Path | None = None,
    beta: float = 0.05,
    step_score: StepScore = "cumulative",
    reading: StepReading | None = None,
    max_tokens: int | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> ImplicitPrm:
    """Make an implicit PRM of a language model; untrained, and with itself as reference, every reward is 0.

    Args:
        source: Folder or hub id of a causal language model.
        reference: Folder or hub id of another one with the same vocabulary; None: a copy of `source`.
        beta: What the log-ratio is multiplied by (PRIME: 0.05).
        step_score: Written into the card.
        reading: Template (its mark is not used); None: `default_reading`.
        max_tokens: Most tokens of a sequence; None: what the backbone's configuration says.
        device: Where to put both.
        dtype: Of both; None: float32 on the CPU, bfloat16 elsewhere.

    Raises:
        InputError: A language model cannot be loaded, or their vocabularies differ.
    """
    tokenizer = load_tokenizer(source)
    dtype = dtype or default_dtype(device)
    model: Any = load_language_model(source, dtype)
    other: Any = copy.deepcopy(model) if reference is None else load_language_model(reference, dtype)
    if reference is not None and load_tokenizer(reference).get_vocab() != tokenizer.get_vocab():
        raise InputError(f"{reference}: its vocabulary is not that of {source}: tokens could not be compared")
    if reading is None:
        with warnings.catch_warnings():  # the missing mark that it warns of is never shown to the model
            warnings.simplefilter("ignore", UserWarning)
            reading = default_reading(tokenizer)
    if reading.mark == NEW_MARK and NEW_MARK not in tokenizer.get_vocab():
        tokenizer.add_tokens([NEW_MARK], special_tokens=True)
    encoder = MarklessEncoder(tokenizer, reading)
    card = PrmCard(
        reading=reading,
        mark_id=encoder.mark_id,
        readout="unbounded",
        kind="implicit",
        beta=beta,
        step_score=step_score,
        target="outcome",
        max_tokens=max_tokens or getattr(model.config, "max_position_embeddings", None),
        base_model=str(source),
        tokenizer_sha256=tokenizer_fingerprint(encoder),
    )
    return ImplicitPrm(model.to(device), tokenizer, card, other.to(device))


def load_implicit(
    path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> ImplicitPrm:
    """Load an implicit PRM's checkpoint and its reference, in evaluation mode.

    Raises:
        InputError: As `Prm.load`.
    """
    path, card = Path(path), read_card(path)
    if card.kind != "implicit" or card.beta is None or card.readout != "unbounded":
        raise InputError(f"{path / 'prm.json'}: not an implicit PRM with its beta")
    check_files(path)
    dtype = dtype or default_dtype(device)
    models: list[Any] = [load_language_model(folder, dtype) for folder in (path, path / "reference")]
    model, reference = (one.to(device) for one in models)
    try:
        prm = ImplicitPrm(model, load_tokenizer(path), card, reference)
    except UsageError as error:
        raise InputError(f"{path}: the tokenizer does not fit prm.json: {error}") from None
    if card.tokenizer_sha256 and tokenizer_fingerprint(prm.encoder) != card.tokenizer_sha256:
        raise InputError(f"{path}: the tokenizer gives other ids than the one that the PRM was trained with")
    return prm


class TokenLogProbabilities(nn.Module):
    """A causal language model that says how likely some tokens were: one call, so that it can be spread over processes.

    Args:
        model: The language model; its parameters keep their names.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_BT: Tensor, mask_BT: Tensor | None, read_BT: Tensor) -> Tensor:
        """Log-probabilities of the tokens that `read_BT` chooses, row by row, float32 [N]; none in column 0."""
        trunk, layer = self.model.base_model, output_layer(self.model)
        hidden_BTD = trunk(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).last_hidden_state
        before_BT = torch.roll(read_BT, -1, dims=1)  # a token is foretold by the one before it
        return log_probabilities_at(layer, hidden_BTD[before_BT], ids_BT[read_BT], layer.out_features)


def log_probabilities_at(layer: nn.Module, hidden_ND: Tensor, token_N: Tensor, vocabulary: int) -> Tensor:
    """Log-probability of one token after each hidden state, float32 [N], a piece of the tokens at a time.

    For the backward pass each piece is computed again, so that its logits are never kept.

    Args:
        layer: From hidden states to logits.
        hidden_ND: Hidden states.
        token_N: The tokens that came.
        vocabulary: Outputs of the layer; says how large a piece may be.
    """
    size = max(1, _PIECE // vocabulary)
    pieces = zip(torch.split(hidden_ND, size), torch.split(token_N, size), strict=True)
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(_piece, layer, h, t, use_reentrant=False) for h, t in pieces])
    return torch.cat([_piece(layer, hidden, token) for hidden, token in pieces])


def _piece(layer: nn.Module, hidden_ND: Tensor, token_N: Tensor) -> Tensor:
    logits_NV: Tensor = layer(hidden_ND).float()
    return logits_NV.gather(-1, token_N[:, None])[:, 0] - logits_NV.logsumexp(dim=-1)


def _encoder_of(tokenizer: PreTrainedTokenizerBase, card: PrmCard) -> MarklessEncoder:
    if not isinstance(card.reading, StepReading):
        raise UsageError("an implicit PRM of ours is read by mark and template")
    return MarklessEncoder(tokenizer, card.reading)
