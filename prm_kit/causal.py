"""A causal PRM: a language model that says right or wrong by the next token (Math-Shepherd, arXiv 2312.08935).

A step is judged at its mark by the probability of one token ("+") against another ("-"). Two rows of the output layer
are all that this needs: with them as a head of two outputs, the model is a token-classification model that gives the
same numbers, and is trained and scored as one; no tensor of tokens x vocabulary is ever made. It is saved as the
language model that it is: plain `AutoModelForCausalLM` loads it, and its next-token logits at the marks are the same.

D hidden, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel, PreTrainedTokenizerBase

from prm_kit.backbone import ensure_mark, load_language_model, load_tokenizer, output_layer, quiet, with_head
from prm_kit.card import PrmCard, read_card, tokenizer_fingerprint
from prm_kit.errors import InputError, UsageError
from prm_kit.files import whole_directory, write_json
from prm_kit.model import Prm, check_files, check_tokenizer, default_dtype
from prm_kit.readout import READOUTS
from prm_kit.segments import encoder_of
from prm_kit.step_reading import StepReading, default_reading
from prm_kit.weights import read_tensor, tensor_files

_CHANGES_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class CausalPrm(Prm):
    """A causal PRM in the form of a token-classification model.

    Attributes:
        output_layer: The whole output layer as it was, on the CPU; its two rows are replaced when it is saved.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: PrmCard, output_layer: nn.Linear
    ) -> None:
        super().__init__(model, tokenizer, card)
        self.output_layer = output_layer

    def language_model(self) -> PreTrainedModel:
        """The language model that says the same; it shares the trunk, and has an output layer of its own.

        Where the output layer was tied to the input embeddings it is untied: the two rows are trained, the embeddings
        of "+" and "-", which occur in the text too, are not pulled along.
        """
        assert self.card.verdict_ids is not None
        layer = copy.deepcopy(self.output_layer).float()
        with torch.no_grad():
            layer.weight[list(self.card.verdict_ids)] = self.head.weight.detach().cpu()
        config: Any = copy.deepcopy(self.model.config)
        config.tie_word_embeddings = False
        config.num_labels = 2  # its default names: classes are none of a language model's business
        with torch.device("meta"):
            family: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
            model = family(config)
        setattr(model, model.base_model_prefix, self.trunk)
        model.set_output_embeddings(layer.to(self.device))
        return model  # type: ignore[no-any-return]

    def save(self, path: str | Path) -> None:
        """Write the checkpoint directory, whole or not at all; one that is there is replaced."""
        with whole_directory(Path(path)) as part, quiet():
            self.language_model().save_pretrained(part)
            self.tokenizer.save_pretrained(part)
            write_json(part / "prm.json", self.card.model_dump(mode="json"))


def causal_from_backbone(
    source: str | Path,
    *,
    verdict_tokens: Sequence[str] = ("-", "+"),
    reading: StepReading | None = None,
    max_tokens: int | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> CausalPrm:
    """Make a causal PRM of a language model, which has not learnt yet what its verdicts mean.

    Args:
        source: Folder or hub id of a causal language model.
        verdict_tokens: What stands for wrong and for right; one token each.
        reading: Mark and template; None: `default_reading`.
        max_tokens: Most tokens of a sequence; None: what the backbone's configuration says.
        device: Where to put it.
        dtype: Of the trunk; None: float32 on the CPU, bfloat16 elsewhere. The two rows are always float32.

    Raises:
        InputError: The language model cannot be loaded.
        UsageError: A verdict is no single token, or the output layer does more than a product.
    """
    tokenizer = load_tokenizer(source)
    language_model = load_language_model(source, dtype or default_dtype(device))
    reading = reading or default_reading(tokenizer)
    ids = verdict_ids(tokenizer, verdict_tokens)
    check_product(language_model, ids)
    ensure_mark(tokenizer, language_model, reading.mark)
    layer = output_layer(language_model)
    encoder = encoder_of(tokenizer, reading)
    card = PrmCard(
        reading=reading,
        mark_id=encoder.mark_id,
        readout="binary",
        kind="causal",
        verdict_ids=ids,
        max_tokens=max_tokens or getattr(language_model.config, "max_position_embeddings", None),
        base_model=str(source),
        tokenizer_sha256=tokenizer_fingerprint(encoder),
    )
    return _assembled(language_model, tokenizer, card, layer, layer.weight[list(ids)].float(), device)


def load_causal(path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> CausalPrm:
    """Load a causal PRM's checkpoint, in evaluation mode.

    Raises:
        InputError: As `Prm.load`.
    """
    path, card = Path(path), read_card(path)
    if card.kind != "causal" or card.verdict_ids is None or card.readout != "binary":
        raise InputError(f"{path / 'prm.json'}: not a causal PRM with its verdict_ids")
    check_files(path)
    tokenizer = load_tokenizer(path)
    language_model = load_language_model(path, dtype or default_dtype(device))
    layer = output_layer(language_model)
    if max(card.verdict_ids) >= layer.out_features or min(card.verdict_ids) < 0:
        raise InputError(f"{path}: verdict_ids {card.verdict_ids} are beyond the {layer.out_features} outputs")
    rows = _stored_rows(path, language_model, card.verdict_ids)
    try:
        prm = _assembled(language_model, tokenizer, card, layer, rows, device)
    except UsageError as error:
        raise InputError(f"{path}: the tokenizer does not fit prm.json: {error}") from None
    check_tokenizer(path, prm)
    return prm


def verdict_ids(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> tuple[int, int]:
    """Token ids of the words for wrong and for right, each as a text of its own.

    Raises:
        UsageError: One is not a single token, or they are the same.
    """
    found = [tokenizer.encode(word, add_special_tokens=False) for word in words]
    for word, ids in zip(words, found, strict=True):
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            raise UsageError(f"verdict_tokens: {word!r} is not one token of this tokenizer ({ids})")
    wrong, right = (ids[0] for ids in found)
    if wrong == right:
        raise UsageError(f"verdict_tokens: {words[0]!r} and {words[1]!r} are the same token")
    return wrong, right


def check_product(language_model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Refuse a language model whose logits are more than output layer times hidden state (scaled or capped ones).

    Raises:
        UsageError: Naming the family.
    """
    layer, config = output_layer(language_model), language_model.config
    changed = [key for key in _CHANGES_LOGITS if getattr(config, key, None) not in (None, 1, 1.0)]
    probe_BT = torch.tensor([[0, 1, 2, 3]], device=language_model.device)
    with torch.inference_mode():
        hidden_TD = language_model.base_model(probe_BT).last_hidden_state[0]
        said_TK = language_model(probe_BT).logits[0][:, list(ids)]
        product_TK = nn.functional.linear(hidden_TD, layer.weight[list(ids)])
    if (
        changed
        or getattr(layer, "bias", None) is not None
        or not torch.allclose(said_TK, product_TK, rtol=0.05, atol=0.05)
    ):
        reason = f" ({', '.join(changed)})" if changed else ""
        raise UsageError(
            f"the logits of this {config.model_type} model are more than a product with the hidden state{reason}"
        )


def _assembled(
    language_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    card: PrmCard,
    layer: nn.Linear,
    rows_2D: Tensor,
    device: str | torch.device,
) -> CausalPrm:
    trunk: Any = language_model.base_model
    pads = (tokenizer.pad_token_id, tokenizer.eos_token_id, card.mark_id)
    pad = next(pad for pad in pads if isinstance(pad, int))
    trunk.config.architectures = None
    trunk.to(device)
    model = with_head(trunk, pad, READOUTS["binary"].id2label(2))
    with torch.no_grad():
        model.score.weight.copy_(rows_2D)  # type: ignore[union-attr, operator]
    kept = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    kept.weight = nn.Parameter(layer.weight.detach().cpu().clone(), requires_grad=False)
    return CausalPrm(model, tokenizer, card, kept)


def _stored_rows(path: Path, language_model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """The two rows as they were stored: the library has rounded them to the number format of the trunk."""
    layer = output_layer(language_model)
    name = next(f"{name}.weight" for name, module in language_model.named_modules() if module is layer)
    return read_tensor(tensor_files(path), name, ids)
