"""Hold a server's answers against golden scores: vLLM, SGLang, or a server of ours.

Written after the sources and documentation of vLLM 0.33 and SGLang 0.5.23 (see `exports`); not yet run against a real
one of either. Servers of other makes are sent token ids, one solution a request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, isfinite
from typing import Any

import httpx2

from prm_kit.endpoint import Key, check_address
from prm_kit.errors import InputError, unknown_name
from prm_kit.serve.golden import GoldenItem

TOLERANCE = 0.02
"""Difference of a probability from the golden one up to which a server passes: the room of bfloat16."""

Rows = list[list[float]]


@dataclass(frozen=True)
class Checked:
    """One golden item: its steps, the largest difference found, or why there is none."""

    item: int
    steps: int
    difference: float | None
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether the server says the same."""
        return self.difference is not None and self.difference < TOLERANCE


@dataclass(frozen=True)
class Engine:
    """How a kind of server is asked.

    Attributes:
        path: Where to post.
        request: The model's name on the server and the item, to a body.
        rows: The answer and the item, to one row of numbers per step.
        expected: The golden rows; None where there are none for this kind.
        named: Whether the model's name is to be asked for first.
    """

    path: str
    request: Callable[[str, GoldenItem], dict[str, Any]]
    rows: Callable[[Any, GoldenItem], Rows]
    expected: Callable[[GoldenItem], Rows | None]
    named: bool = True


def check_server(
    url: str, golden: Sequence[GoldenItem], engine: str, token: Key | None = None, *, insecure: bool = False
) -> list[Checked]:
    """Ask a server for every golden item.

    Raises:
        UsageError: An unknown engine, or no address that may be asked.
        InputError: The golden file is not for this engine, or the server does not say which model it serves.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    kind = ENGINES[engine]
    address, local = check_address(url, name="the server's address", insecure=insecure)
    headers = {"authorization": f"Bearer {token.reveal()}"} if token else {}
    with httpx2.Client(base_url=address, headers=headers, timeout=120.0, trust_env=not local) as client:
        model = _model(client) if kind.named else ""
        return [_checked(client, kind, model, number, item) for number, item in enumerate(golden)]


def _checked(client: httpx2.Client, kind: Engine, model: str, number: int, item: GoldenItem) -> Checked:
    steps = len(item.spans)
    expected = kind.expected(item)
    if expected is None:
        raise InputError("the golden file holds no outputs for this engine: its read-out is none that it serves")
    try:
        found = kind.rows(_json(client.post(kind.path, json=kind.request(model, item))), item)
        difference = _difference(found, expected)
    except (InputError, httpx2.HTTPError) as error:
        return Checked(number, steps, None, f"{type(error).__name__}: {error}"[:300])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        return Checked(number, steps, None, f"the answer has another form: {type(error).__name__}: {error}"[:300])
    return Checked(number, steps, difference)


def _model(client: httpx2.Client) -> str:
    try:
        return str(_json(client.get("/v1/models"))["data"][0]["id"])
    except (httpx2.HTTPError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{client.base_url}: does not say which model it serves: {type(error).__name__}") from None


def _json(response: httpx2.Response) -> Any:
    if response.status_code != 200:
        raise InputError(f"status {response.status_code}: {' '.join(response.text[:500].split())}")
    return response.json()


def _difference(found: Rows, expected: Rows) -> float:
    if [len(row) for row in found] != [len(row) for row in expected]:
        width = len(found[0]) if found else 0
        raise InputError(f"{len(found)} rows of {width} numbers, not {len(expected)} of {len(expected[0])}")
    if not all(isfinite(x) for row in found for x in row):
        raise InputError("some of the numbers are NaN or infinite")
    return max(abs(a - b) for row, other in zip(found, expected, strict=True) for a, b in zip(row, other, strict=True))


def _vllm_request(model: str, item: GoldenItem) -> dict[str, Any]:
    task = {"model": model, "task": "token_classify", "input": [item.ids]}
    return task | {"use_activation": True, "encoding_format": "float"}


def _vllm_rows(answer: Any, item: GoldenItem) -> Rows:
    """One row a step from a server that pools by STEP; one row a token, read at the marks, from one that does not."""
    rows = [[float(x) for x in row] for row in answer["data"][0]["data"]]
    if len(rows) == len(item.ids) != len(item.read_positions):
        return [rows[position] for position in item.read_positions]
    return rows


def _sglang_request(model: str, item: GoldenItem) -> dict[str, Any]:
    """The mark must not occur in the query, so that is the prompt; the steps are the one item."""
    ids, prompt = item.ids, item.prompt_length
    mark = ids[item.read_positions[0]]
    return {"model": model, "query": ids[:prompt], "items": [ids[prompt:]], "score_extraction_token": mark}


def _sglang_rows(answer: Any, item: GoldenItem) -> Rows:
    """Probabilities as they are; logits, which is what a classification model pools, through their activation."""
    rows = [[float(x) for x in row] for row in answer["scores"][0]]
    single = all(len(row) == 1 for row in rows)
    if all(0.0 <= x <= 1.0 for row in rows for x in row) and (single or all(abs(sum(row) - 1) < 1e-2 for row in rows)):
        return rows
    return [_softmax([0.0, *row])[1:] if single else _softmax(row) for row in rows]


def _softmax(row: Sequence[float]) -> list[float]:
    powers = [exp(x - max(row)) for x in row]
    return [power / sum(powers) for power in powers]


def _own_request(model: str, item: GoldenItem) -> dict[str, Any]:
    return {"items": [{"problem": item.problem, "completion": item.completion, "spans": item.spans}]}


def _own_rows(answer: Any, item: GoldenItem) -> Rows:
    steps = answer["items"][0]["steps"]
    return [[float(x) for x in step["probabilities"] or [step["value"]]] for step in steps]


def _own_expected(item: GoldenItem) -> Rows:
    return [list(p or [value]) for p, value in zip(item.probabilities, item.values, strict=True)]


ENGINES: dict[str, Engine] = {
    "prm-kit": Engine("/v1/score", _own_request, _own_rows, _own_expected, named=False),
    "vllm": Engine("/pooling", _vllm_request, _vllm_rows, lambda item: item.outputs),
    "sglang": Engine("/v1/score", _sglang_request, _sglang_rows, lambda item: item.outputs),
}
