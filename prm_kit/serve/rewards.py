"""Reward requests of RL frameworks: a prompt and a response as the policy's tokenizer writes them, one number back.

OpenRLHF's agent posts `query` (prompt and response, decoded with special tokens), `prompts` (the prompt as it was
handed to the tokenizer, chat template included) and `labels`, and reads `rewards` (the advantage is made of them),
`scores` (in [0, 1], for dynamic filtering) and `extra_logs` (lists of numbers). slime posts `prompt`, `response`,
`label` and reads one JSON number. A PRM wants the problem alone and the response alone, so:

- the response is what follows the prompt in the query; the prompt is recognised although decoding may have added a
  beginning-of-sequence token or changed white space, and a query that does not begin with its prompt is unreadable;
- special tokens at the end of the response (end of turn, padding) are cut off; others stay, as text;
- the problem is the last user turn of the prompt if the prompt is written in one of `TURNS`, else the whole prompt
  without special tokens at its ends.

What cannot be scored is answered with null, never with 0, and counted.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from prm_kit.errors import InputError
from prm_kit.records import Solution
from prm_kit.split import split_solution

TURNS: dict[str, tuple[str, str]] = {
    "chatml": ("<|im_start|>user\n", "<|im_end|>"),
    "llama-3": ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    "mistral": ("[INST]", "[/INST]"),
    "gemma": ("<start_of_turn>user\n", "<end_of_turn>"),
    "deepseek": ("<｜User｜>", "<｜Assistant｜>"),
    "phi": ("<|user|>\n", "<|end|>"),
    "olmo": ("<|user|>\n", "<|assistant|>"),
}
"""What chat templates write before and after a user's turn."""

_SPECIAL = re.compile(
    r"<\|[^|<>\s]{1,60}\|>|<｜[^｜<>\s]{1,60}｜>|</?s>|<(?:pad|unk|bos|eos|end_of_turn|start_of_turn)>|\[/?(?:INST|PAD)\]"
)


class OpenRlhfRequest(BaseModel):
    """What OpenRLHF posts; other keys are ignored.

    Attributes:
        query: Prompt and response of each rollout, decoded with special tokens.
        prompts: The prompt of each.
        labels: Whatever the data set has as label; a text is taken as the reference answer.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    query: list[str]
    prompts: list[str]
    labels: list[Any] | None = None

    @model_validator(mode="after")
    def _of_one_length(self) -> OpenRlhfRequest:
        lengths = {len(self.query), len(self.prompts), len(self.query if self.labels is None else self.labels)}
        if len(lengths) != 1:
            raise ValueError("query, prompts and labels are of different lengths")
        return self


class OpenRlhfResponse(BaseModel):
    """One entry per rollout; null where there is no score.

    Attributes:
        rewards: Aggregated step rewards: in [0, 1], or any number where the scorer's are no probabilities.
        scores: The same.
        extra_logs: `prm_steps`: number of steps; `prm_failed`: 1 where the reward is null.
    """

    rewards: list[float | None]
    scores: list[float | None]
    extra_logs: dict[str, list[float]]


class SlimeRequest(BaseModel):
    """What slime posts; other keys are ignored. A `prompt` may also be a list of chat messages."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    prompt: str | list[dict[str, Any]]
    response: str
    label: Any = None


def rollout(query: str, prompt: str, label: Any = None) -> Solution:
    """The solution in a decoded rollout.

    Raises:
        InputError: The query does not begin with its prompt, or there is no problem or no step in it.
    """
    response = after_prompt(query, prompt)
    if response is None:
        raise InputError("the query does not begin with its prompt")
    return solution_in(problem_in(prompt), response, label)


def solution_in(problem: str, response: str, label: Any = None) -> Solution:
    """A solution of a problem and a decoded response.

    Raises:
        InputError: There is no problem or no step in it.
    """
    reference = label if isinstance(label, str) else None
    solution = split_solution(problem, without_final_tokens(response), reference_answer=reference)
    if not problem or not solution.spans:
        raise InputError("there is no step in the response" if problem else "there is no problem in the prompt")
    return solution


def problem_in(prompt: str | list[dict[str, Any]]) -> str:
    """The problem that a prompt asks: its last user turn, else all of it without special tokens at the ends."""
    if not isinstance(prompt, str):
        asked = [turn.get("content") for turn in prompt if turn.get("role") == "user"]
        return asked[-1].strip() if asked and isinstance(asked[-1], str) else ""
    for opening, closing in TURNS.values():
        start = prompt.rfind(opening)
        end = prompt.find(closing, start + len(opening))
        if start >= 0 and end >= 0:
            return prompt[start + len(opening) : end].strip()
    return without_final_tokens(prompt[_after_tokens(prompt) :]).strip()


def after_prompt(query: str, prompt: str) -> str | None:
    """What follows the prompt in the query; None where the query does not begin with it.

    Where it does not letter by letter, special tokens before either and white space anywhere in the prompt are not
    compared, since decoding the prompt's token ids may add the one and change the other.
    """
    if query.startswith(prompt):
        return query[len(prompt) :]
    at = _after_tokens(query)
    for letter in "".join(prompt[_after_tokens(prompt) :].split()):
        while at < len(query) and query[at].isspace():
            at += 1
        if at == len(query) or query[at] != letter:
            return None
        at += 1
    return query[at:].lstrip()


def without_final_tokens(text: str) -> str:
    """The text up to the special tokens at its end, if there are any."""
    end = len(text)
    for token in reversed(list(_SPECIAL.finditer(text))):
        if text[token.end() : end].strip():
            break
        end = token.start()
    return text[:end]


def _after_tokens(text: str) -> int:
    """Offset after the special tokens that a text begins with."""
    at = 0
    for token in _SPECIAL.finditer(text):
        if text[at : token.start()].strip():
            break
        at = token.end()
    return at
