"""prm.json: everything about a PRM that its weights do not say."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from prm_kit import __version__
from prm_kit.errors import InputError
from prm_kit.files import value_sha256
from prm_kit.records import LABEL_VALUES, NeutralPolicy, Solution
from prm_kit.segments import Encoder, SegmentReading
from prm_kit.settings import Settings
from prm_kit.step_reading import StepReading

ReadoutName = Literal["classes", "binary", "sigmoid", "ordinal", "ensemble", "unbounded"]
"""What the outputs of a head are; `prm_kit.readout` says how each is read."""

CheckpointKind = Literal["token-classification", "causal", "implicit"]
"""What the weights are; `prm_kit.checkpoints` loads each."""

StepScore = Literal["cumulative", "difference"]
"""What an implicit PRM calls a step's score: its reward up to and with the step, or what the step adds to it."""

_PROBE = Solution.from_steps("Find x² if 3x = 12.", ["Step 1: x = 12 / 3 = 4.", "因此 x² = 16\n\\boxed{16}"])


class PrmCard(Settings):
    """The content of prm.json.

    Attributes:
        reading: Mark and template; of a converted checkpoint the published layout.
        mark_id: Token id of the mark (the last one of several; -1 where a layout has no mark).
        labels: What the classes stand for, in class order.
        readout: What the outputs of the head are.
        kind: What the weights are.
        verdict_ids: Of a causal PRM: the token ids that stand for wrong and for right.
        beta: Of an implicit PRM: what its log-ratio is multiplied by.
        step_score: Of an implicit PRM: which of its two scores of a step is given.
        neutral_policy: What training made of the label 0.
        target: What it was trained on: labels of steps, or final correctness alone (an outcome model).
        max_tokens: Most tokens of a sequence; None: no limit known.
        aggregation: How step scores make a solution's score unless asked otherwise.
        temperature: Log-probabilities are divided by it, and normalised (calibration).
        base_model: Name or path of the backbone.
        training_data: Hashes of the manifests of the training data.
        tokenizer_sha256: What `tokenizer_fingerprint` said, to recognise the tokenizer by.
        prm_kit: Version that wrote the card.
    """

    schema_version: Literal[1] = 1
    reading: StepReading | SegmentReading
    mark_id: int
    labels: tuple[int, ...] = LABEL_VALUES
    readout: ReadoutName = "classes"
    kind: CheckpointKind = "token-classification"
    verdict_ids: tuple[int, int] | None = None
    beta: float | None = Field(default=None, gt=0)
    step_score: StepScore | None = None
    neutral_policy: NeutralPolicy = "keep"
    target: Literal["steps", "outcome"] = "steps"
    max_tokens: int | None = Field(default=None, gt=0)
    aggregation: Literal["min", "last", "product", "mean"] = "min"
    temperature: float = Field(default=1.0, gt=0)
    base_model: str = ""
    training_data: tuple[str, ...] = ()
    tokenizer_sha256: str = ""
    prm_kit: str = __version__


def read_card(path: str | Path) -> PrmCard:
    """Read the card of a checkpoint directory.

    Raises:
        InputError: It is missing or malformed.
    """
    file = Path(path) / "prm.json"
    if not file.is_file():
        raise InputError(f"{path}: no PRM checkpoint: prm.json is missing")
    try:
        card = PrmCard.model_validate_json(file.read_bytes())
    except ValidationError as failure:
        first = failure.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{file}: {key}: {first['msg']}" if key else f"{file}: {first['msg']}") from None
    if card.labels != LABEL_VALUES:
        raise InputError(f"{file}: labels {card.labels} are not {LABEL_VALUES}")
    return card


def tokenizer_fingerprint(encoder: Encoder) -> str:
    """Hash of the vocabulary and of the token ids of a fixed solution, however the tokenizer's file is written."""
    return value_sha256([encoder.tokenizer.get_vocab(), encoder.encode([_PROBE])[0].ids])
