"""Generation by a vLLM server, and how it gets new weights. Written from vLLM's documentation; no server was asked yet.

The server is started on a folder that this process can write to, in development mode, which is what lets weights be
changed and therefore belongs on a machine or network of your own:

    VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --served-model-name policy --logprobs-mode raw_logprobs

Prompts and completions travel as token ids, so nothing is tokenised there. Every setting of the sampling is sent: a
server takes what is not from the model's generation_config.json.

Servers that say they reloaded and go on with old weights have been reported (vllm-project/vllm issue 32718, 0.14):
`mismatch` in metrics.jsonl, the distance of what was sampled with to what the trainer computes, would then grow.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx2
import numpy as np
from pydantic import BaseModel, Field, ValidationError

from prm_kit.endpoint import Key, check_address
from prm_kit.engines.engine import Limits, Rollout, check_request
from prm_kit.errors import PrmKitError


class VllmError(PrmKitError):
    """The server did not answer, or not with what was asked."""


class _LogProbabilities(BaseModel):
    token_logprobs: list[Annotated[float, Field(allow_inf_nan=False)]]


class _Choice(BaseModel):
    index: int
    token_ids: list[int]
    logprobs: _LogProbabilities
    finish_reason: Literal["stop", "length"]


class _Answer(BaseModel):
    choices: list[_Choice]


class VllmEngine:
    """Samples from a vLLM server (see `Engine`).

    A rollout's random numbers come from the seed, the prefix and the sample's number, but what a server makes of them
    hangs on what it computes beside it: unlike the built-in engine's, its rollouts need not repeat.

    Args:
        url: Root of the server, such as "http://127.0.0.1:8000".
        folder: The folder that it was started on.
        model: Name that it serves the model under.
        token: Shown as a bearer token.
        insecure: Allow http to another machine.
        in_flight: Requests at once: the server batches them.
        timeout: Seconds without an answer after which a request has failed.

    Raises:
        UsageError: No address that may be asked.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        model: str = "policy",
        *,
        token: Key | None = None,
        insecure: bool = False,
        in_flight: int = 64,
        timeout: float = 1_800.0,
    ) -> None:
        self._address, self._local = check_address(url, name="the vLLM server's address", insecure=insecure)
        self._folder, self._model, self._token = folder, model, token
        self._in_flight = in_flight
        self._timeout = httpx2.Timeout(timeout, connect=10.0)

    def generate(self, prefixes: Sequence[Sequence[int]], n: int, limits: Limits) -> list[list[Rollout]]:
        """Sample `n` rollouts of every prefix (see `Engine.generate`).

        Raises:
            VllmError: The server does not answer, refuses, or answers something else than was asked.
        """
        check_request(prefixes, n)
        with self._client() as client, ThreadPoolExecutor(min(self._in_flight, len(prefixes) or 1)) as pool:
            try:
                return list(pool.map(lambda prefix: self._continued(client, prefix, n, limits), prefixes))
            finally:
                pool.shutdown(cancel_futures=True)

    def sync(self, save: Callable[[Path], None]) -> None:
        """Give the server new weights, in its folder; no request may be under way.

        Args:
            save: Writes a checkpoint into a folder.

        Raises:
            VllmError: The server does not take them: it does not answer, or does not run in development mode.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder.parent, prefix=f".{self._folder.name}.") as part:
            save(Path(part))
            new = {file.name: file for file in Path(part).iterdir()}
            for file in new.values():
                file.replace(self._folder / file.name)
        for old in self._folder.glob("*.safetensors*"):  # the server would go on reading weights cut in another way
            if old.name not in new:
                old.unlink()
        with self._client() as client:
            self._post(client, "/collective_rpc", {"method": "reload_weights"})
            self._post(client, "/reset_prefix_cache", None)

    def _client(self) -> httpx2.Client:
        return httpx2.Client(
            base_url=self._address,
            headers={"authorization": f"Bearer {self._token.reveal()}"} if self._token else {},
            timeout=self._timeout,
            limits=httpx2.Limits(max_connections=self._in_flight),
            verify=httpx2.create_ssl_context() if self._address.startswith("https") else False,
            follow_redirects=False,
            trust_env=not self._local,
        )

    def _continued(self, client: httpx2.Client, prefix: Sequence[int], n: int, limits: Limits) -> list[Rollout]:
        asked = {
            "model": self._model,
            "prompt": list(prefix),
            "n": n,
            "max_tokens": limits.max_new_tokens,
            "temperature": limits.temperature,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "repetition_penalty": 1.0,
            "seed": _seed(prefix, limits.seed),
            "ignore_eos": True,  # all that may end a rollout stands in the next line
            "stop_token_ids": list(limits.stop_ids),
            "logprobs": 0,
            "return_token_ids": True,
        }
        text = self._post(client, "/v1/completions", asked)
        try:
            answer = _Answer.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise VllmError(f"{self._address}: answers something else than rollouts: {where}: {first['msg']}") from None
        choices = sorted(answer.choices, key=lambda choice: choice.index)
        if [choice.index for choice in choices] != list(range(n)):
            numbers = ", ".join(str(choice.index) for choice in choices)
            raise VllmError(f"{self._address}: {n} rollouts were asked for, the numbers of its rollouts are {numbers}")
        return [self._rollout(choice, limits) for choice in choices]

    def _rollout(self, choice: _Choice, limits: Limits) -> Rollout:
        ids, said = choice.token_ids, choice.logprobs.token_logprobs
        stopped = bool(ids) and ids[-1] in limits.stop_ids
        if len(said) != len(ids) or not ids:
            raise VllmError(f"{self._address}: {len(said)} log-probabilities of {len(ids)} tokens")
        if stopped != (choice.finish_reason == "stop"):
            raise VllmError(f"{self._address}: a rollout ended by {choice.finish_reason} with token {ids[-1]}")
        if not stopped and len(ids) != limits.max_new_tokens:
            raise VllmError(
                f"{self._address}: a rollout was cut at {len(ids)} tokens instead of {limits.max_new_tokens}: the "
                "server's --max-model-len is less than prompt and rollout"
            )
        return Rollout(tuple(ids), tuple(min(value, 0.0) for value in said), choice.finish_reason)

    def _post(self, client: httpx2.Client, path: str, body: dict[str, Any] | None) -> bytes:
        try:
            response = client.post(path, json=body) if body is not None else client.post(path)
        except httpx2.HTTPError as error:
            raise VllmError(f"{self._address}{path}: {type(error).__name__}: {error}") from None
        if response.status_code != 200:
            said = " ".join(response.text.split())[:300]
            start = f"--served-model-name {self._model}" if path.startswith("/v1") else "VLLM_SERVER_DEV_MODE=1"
            mend = f": start it with {start}" if response.status_code == 404 else ""
            raise VllmError(f"{self._address}{path}: status {response.status_code}: {said}{mend}")
        return response.content


def _seed(prefix: Sequence[int], seed: int) -> int:
    """A seed below 2^62, so that the server can count up from it for the samples of a prefix."""
    words = f"{seed} ".encode() + np.asarray(prefix, dtype="<i8").tobytes()
    return int.from_bytes(hashlib.sha256(words).digest()[:8], "little") >> 2
