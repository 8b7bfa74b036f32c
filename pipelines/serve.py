"""`prm-kit serve`: step scores over HTTP."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Output
from pipelines.scorers import TOKEN_VARIABLE, Family, Reference

if TYPE_CHECKING:
    from prm_kit.endpoint import Key
    from prm_kit.records import Solution
    from prm_kit.score import StepScorer
    from prm_kit.serve.service import CountTokens
    from prm_kit.serve.settings import ServeSettings


def command(
    checkpoint: Annotated[str, typer.Argument(help="A trained or released PRM.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Limits, such as queue_items=1000.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine only with a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 0,
    token_file: Annotated[Path | None, typer.Option(help=f"Default: environment variable {TOKEN_VARIABLE}.")] = None,
    aggregation: Annotated[str | None, typer.Option(help="min, last, product or mean; default: the card's.")] = None,
    family: Family = None,
    reference: Reference = None,
    as_json: Json = False,
) -> None:
    """Serve until told to stop: POST /v1/score, POST /get_reward (OpenRLHF), GET /health, GET /metrics.

    On SIGINT or SIGTERM what was accepted is answered first. There is no TLS: beyond this machine put a proxy in front.
    """
    from pipelines.scorers import aggregation_of, fingerprint_of, scorer_of
    from prm_kit.aggregate import AGGREGATIONS
    from prm_kit.endpoint import read_key
    from prm_kit.errors import unknown_name
    from prm_kit.files import value_sha256
    from prm_kit.serve.settings import ServeSettings
    from prm_kit.settings import load_settings

    if aggregation is not None and aggregation not in AGGREGATIONS:
        raise unknown_name("aggregation", aggregation, AGGREGATIONS)
    settings = load_settings(ServeSettings, None, overrides or ())
    token = read_key(TOKEN_VARIABLE, token_file)
    check_host(host, token)
    check_installed()
    from prm_kit.serve.app import create_app
    from prm_kit.serve.server import listen, serve

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    listening = listen(host, port)
    scorer = scorer_of(checkpoint, family=family, reference=reference)
    app: Any = create_app(
        scorer,
        for_device(settings, scorer),
        aggregation=aggregation or aggregation_of(scorer),  # type: ignore[arg-type]
        token=token,
        count_tokens=token_counter(scorer),
        fingerprint=value_sha256([fingerprint_of(checkpoint) or checkpoint, family, fingerprint_of(reference)])[:16],
    )
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}"
    output = Output(as_json)

    def started() -> None:
        if as_json:
            sys.stdout.write(json.dumps({"url": url, "scorer": scorer.name, "token": token is not None}) + "\n")
            sys.stdout.flush()
        else:
            output.say(f"serving {checkpoint} on {url}" + ("" if token else " without a token, to this machine only"))

    serve(app, listening, started)
    if not as_json:
        output.say("stopped; everything accepted was answered")


def check_host(host: str, token: Key | None) -> None:
    """Refuse to listen beyond this machine without a token.

    Raises:
        UsageError: No token and no loopback address.
    """
    from prm_kit.errors import UsageError
    from prm_kit.secrecy import is_loopback

    if token is None and not is_loopback(host):
        raise UsageError(
            f"--host {host} can be reached from elsewhere: give a token (--token-file or {TOKEN_VARIABLE})"
        )


def check_installed() -> None:
    """Refuse without the packages of the extra.

    Raises:
        UsageError: Naming the extra.
    """
    from importlib.util import find_spec

    from prm_kit.errors import UsageError

    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} not installed; run: pip install 'prm-kit[serve]'")


def for_device(settings: ServeSettings, scorer: StepScorer) -> ServeSettings:
    """Larger batches on a GPU, unless a size was asked for."""
    device = getattr(getattr(scorer, "prm", None), "device", None)
    if "batch_tokens" in settings.model_fields_set or getattr(device, "type", "cpu") == "cpu":
        return settings
    return settings.model_copy(update={"batch_tokens": 16_384})


def token_counter(scorer: StepScorer) -> CountTokens | None:
    """Counts tokens as a PRM of ours does; None for other scorers."""
    from prm_kit.prm_scorer import PrmScorer

    if not isinstance(scorer, PrmScorer):
        return None
    encoder = scorer.prm.encoder

    def count(solutions: Sequence[Solution]) -> list[int]:
        longest = [0] * len(solutions)  # a published PRM may read a solution as several sequences
        for one in encoder.encode(solutions):
            longest[one.solution] = max(longest[one.solution], len(one.ids))
        return longest

    return count
