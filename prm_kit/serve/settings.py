"""How much a server takes at once. No torch, no web framework."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from prm_kit.settings import Settings


class ServeSettings(Settings):
    """Limits of a server. What is beyond them is answered with 413, or with 429 where waiting helps.

    Attributes:
        batch_tokens: Most tokens scored in one call of the scorer; one item longer than that goes alone. 1 scores
            every item by itself.
        queue_items: Most items that wait; a request that would exceed it is told when to come back (429).
        max_items: Most items of one request.
        max_steps: Most steps of one item.
        max_characters: Most characters of one item, problem and steps.
        max_tokens: Most tokens of one item, as the scorer's tokenizer counts them (estimated where it has none).
        max_body_bytes: Most bytes of a request's body.
        body_seconds: Time in which a request's body has to arrive.
    """

    batch_tokens: int = Field(default=2_048, gt=0)
    queue_items: int = Field(default=4_096, gt=0)
    max_items: int = Field(default=256, gt=0)
    max_steps: int = Field(default=1_000, gt=0)
    max_characters: int = Field(default=200_000, gt=0)
    max_tokens: int = Field(default=65_536, gt=0)
    max_body_bytes: int = Field(default=8 * 2**20, gt=0)
    body_seconds: float = Field(default=30.0, gt=0)

    @model_validator(mode="after")
    def _queue_holds_a_request(self) -> Self:
        if self.queue_items < self.max_items:
            raise ValueError(f"queue_items {self.queue_items} is less than max_items {self.max_items}")
        return self
