"""What a judge is asked to do: all that changes its labels, and nothing else."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from labeling.judge.structured import Form, response_format
from prm_kit.settings import Settings

_TOKENS_PER_STEP = 160
_TOKENS_BESIDES = 256
_CRITIC_TOKENS = 2048
_LIMITS = ("max_tokens", "max_completion_tokens")


class JudgeSettings(Settings):
    """How the model is asked.

    Attributes:
        model: The model's name at the endpoint.
        votes: Answers per solution; their shares are stored.
        temperature: None: 0 for one vote, 1 for several.
        top_p: None: the server's default.
        seed: Sent with the number of the vote added to it; None: not sent.
        max_tokens: Most tokens of an answer; None: 256 and 160 a step, or 2048 for a critic.
        show_reference: Show the reference answer.
        extra_body: Further fields of the request; null takes a field out of it.
    """

    model: str
    votes: int = Field(default=1, ge=1, le=1000)
    temperature: float | None = Field(default=None, ge=0.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    seed: int | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    show_reference: bool = False
    extra_body: dict[str, Any] = Field(default_factory=dict)


def request_body(
    settings: JudgeSettings,
    messages: tuple[dict[str, str], ...],
    steps: int,
    asks: Literal["facets", "first_error"],
    form: Form,
    vote: int = 0,
    longer: bool = False,
) -> dict[str, Any]:
    """The JSON body of one chat request.

    Args:
        settings: How the model is asked.
        messages: What it is asked.
        steps: Number of steps of the solution.
        asks: What the prompt asks for.
        form: Structured output, one of `forms_for(asks)`.
        vote: Number of the vote, from 0.
        longer: Allow twice the tokens, because an answer was cut off.
    """
    usual = _TOKENS_BESIDES + _TOKENS_PER_STEP * steps if asks == "facets" else _CRITIC_TOKENS
    temperature = settings.temperature if settings.temperature is not None else float(settings.votes > 1)
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": list(messages),
        "temperature": temperature,
        "top_p": settings.top_p,
        "seed": None if settings.seed is None else settings.seed + vote,
        "max_tokens": settings.max_tokens or usual,
        "response_format": response_format(form, asks, steps),
    }
    body |= settings.extra_body
    if longer:
        body |= {name: 2 * body[name] for name in _LIMITS if isinstance(body.get(name), int)}
    return {key: value for key, value in body.items() if value is not None}


def most_tokens(body: dict[str, Any]) -> int:
    """Most tokens that the answer to a request can have; the model's whole context is not known, so 32,768 without."""
    limits = [body[name] for name in _LIMITS if isinstance(body.get(name), int)]
    return max(limits, default=32_768)
