"""The application: scores for people and programs, rewards for RL frameworks, health and metrics.

Any `StepScorer` is served. Items of concurrent requests are scored together (see `batcher`); one that cannot be scored
fails its own request and no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from prm_kit import __version__
from prm_kit.endpoint import Key
from prm_kit.errors import PrmKitError, UsageError
from prm_kit.records import Solution
from prm_kit.score import StepScorer, StepScores
from prm_kit.serve.batcher import Batcher, ClosingError, QueueFullError
from prm_kit.serve.gate import Gate
from prm_kit.serve.messages import (
    AggregationName,
    Detail,
    Failure,
    ScoreRequest,
    ScoreResponse,
    ServedPrm,
    scored_item,
)
from prm_kit.serve.metrics import CONTENT_TYPE, Metrics
from prm_kit.serve.rewards import OpenRlhfRequest, OpenRlhfResponse, SlimeRequest, problem_in, rollout, solution_in
from prm_kit.serve.service import ClientGoneError, CountTokens, Service, TooLargeError
from prm_kit.serve.settings import ServeSettings
from prm_kit.split import estimate_tokens

T = TypeVar("T")

Aggregate = Annotated[AggregationName, Query(description="What makes one reward of the steps' rewards.")]

ROUTES = frozenset({"/v1/score", "/v1/prm", "/get_reward", "/slime", "/health", "/metrics", "/openapi.json"})

_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Failure, "description": "The token is missing or wrong."},
    403: {"model": Failure, "description": "A server without a token, addressed by a name that is not loopback."},
    405: {"model": Failure, "description": "Another method."},
}
_FAILURES: dict[int | str, dict[str, Any]] = _REFUSALS | {
    400: {"model": Failure, "description": "No JSON."},
    408: {"model": Failure, "description": "The body arrived too slowly."},
    413: {"model": Failure, "description": "Too much: bytes, items, steps, characters or tokens."},
    422: {"model": Failure, "description": "Malformed, or an item that cannot be scored."},
    429: {"model": Failure, "description": "The queue is full; Retry-After says when to come back."},
    500: {"model": Failure, "description": "The scorer or the server failed."},
    503: {"model": Failure, "description": "The server is starting or shutting down."},
}


def create_app(
    scorer: StepScorer,
    settings: ServeSettings | None = None,
    *,
    aggregation: AggregationName = "min",
    token: Key | None = None,
    count_tokens: CountTokens | None = None,
    fingerprint: str | None = None,
) -> FastAPI:
    """Make the application. Its scoring thread runs as long as the application's lifespan.

    Args:
        scorer: Whoever scores; called in one thread only.
        settings: Limits; None: the defaults.
        aggregation: What makes a solution's score where a request does not say.
        token: What clients must show; None: nothing.
        count_tokens: Counts the tokens of solutions; None: estimated from their bytes.
        fingerprint: Of what scores, told to clients, so that none takes another PRM for it; None: not known.

    Raises:
        UsageError: A product is asked for of numbers that are no probabilities.
    """
    if aggregation == "product" and is_unbounded(scorer):
        raise UsageError(
            f"aggregation product: the scores of {scorer.name} are no probabilities; choose min, last or mean"
        )
    settings = settings or ServeSettings()
    metrics = Metrics()
    batcher = Batcher(scorer, settings.batch_tokens, settings.queue_items, metrics.batch)
    metrics.watch_queue(lambda: batcher.queued_items)
    service = Service(batcher, metrics, settings, count_tokens or _estimated_tokens)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPI(title="prm-kit", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(
        Gate,
        token=token,
        max_body_bytes=settings.max_body_bytes,
        body_seconds=settings.body_seconds,
        metrics=metrics,
        routes=ROUTES,
    )
    for kind, handler in _HANDLERS.items():
        app.exception_handler(kind)(handler)
    _add_score(app, service, ServedPrm(scorer=scorer.name, fingerprint=fingerprint, aggregation=aggregation))
    _add_rewards(app, service, aggregation)

    @app.get("/health", responses={405: _REFUSALS[405], 503: {"description": "Alive, but not taking requests."}})
    async def health() -> JSONResponse:
        """Whether the server is alive and takes requests."""
        ready = batcher.ready
        return JSONResponse({"alive": True, "ready": ready}, 200 if ready else 503)

    @app.get("/metrics", response_class=Response, responses=_REFUSALS | {200: {"content": {"text/plain": {}}}})
    async def figures() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return app


def is_unbounded(scorer: StepScorer) -> bool:
    """Whether a scorer is known to give numbers without bounds, from its card."""
    card = getattr(getattr(scorer, "prm", None), "card", None)
    return getattr(card, "readout", None) == "unbounded"


def _add_score(app: FastAPI, service: Service, served: ServedPrm) -> None:
    @app.get("/v1/prm", responses=_REFUSALS)
    async def prm() -> ServedPrm:
        """Who scores."""
        return served

    @app.post("/v1/score", responses=_FAILURES)
    async def score(body: ScoreRequest, request: Request) -> ScoreResponse:
        """Score every step of one or many solutions."""
        service.check_items(len(body.items))
        made = await asyncio.to_thread(service.solutions, body.items)
        solutions = _all_of(Solution, made)
        answers = _all_of(StepScores, await service.answers(solutions, lambda: _client_gone(request)))
        how = body.aggregation or served.aggregation
        items = [scored_item(solution, scores, how) for solution, scores in zip(solutions, answers, strict=True)]
        return ScoreResponse(scorer=served.scorer, fingerprint=served.fingerprint, aggregation=how, items=items)


def _add_rewards(app: FastAPI, service: Service, default: AggregationName) -> None:
    async def rewards(request: Request, found: Sequence[Solution | None], how: AggregationName) -> list[float | None]:
        readable = [solution for solution in found if solution is not None]
        answers = await service.answers(readable, lambda: _client_gone(request))
        given = iter(
            scored_item(solution, answer, how).score if isinstance(answer, StepScores) else None
            for solution, answer in zip(readable, answers, strict=True)
        )
        return [next(given) if solution else None for solution in found]

    @app.post("/get_reward", responses=_FAILURES)
    async def openrlhf(body: OpenRlhfRequest, request: Request, aggregate: Aggregate = default) -> OpenRlhfResponse:
        """Rewards as OpenRLHF's remote reward model gives them."""
        service.check_items(len(body.query))
        rows = list(zip(body.query, body.prompts, body.labels or [None] * len(body.query), strict=True))

        def read() -> list[Solution | None]:
            return [service.rollout(lambda row=row: rollout(*row), len(row[0]) + len(row[1])) for row in rows]  # type: ignore[misc]

        found = await asyncio.to_thread(read)
        given = await rewards(request, found, aggregate)
        logs = {
            "prm_steps": [float(len(solution.spans)) if solution else 0.0 for solution in found],
            "prm_failed": [float(reward is None) for reward in given],
        }
        return OpenRlhfResponse(rewards=given, scores=given, extra_logs=logs)

    @app.post("/slime", responses=_FAILURES)
    async def slime(body: SlimeRequest, request: Request, aggregate: Aggregate = default) -> float | None:
        """One reward as slime's remote reward model gives it."""

        def read() -> Solution | None:
            problem = problem_in(body.prompt)
            make = lambda: solution_in(problem, body.response, body.label)  # noqa: E731
            return service.rollout(make, len(problem) + len(body.response))

        return (await rewards(request, [await asyncio.to_thread(read)], aggregate))[0]


class _ItemsFailedError(Exception):
    """Some items of a request are not what they should be."""

    def __init__(self, errors: dict[int, Exception]) -> None:
        super().__init__(f"{len(errors)} items")
        self.errors = errors


def _all_of(kind: type[T], found: Sequence[T | Exception]) -> list[T]:
    errors = {index: one for index, one in enumerate(found) if isinstance(one, Exception)}
    if errors:
        raise _ItemsFailedError(errors)
    return [one for one in found if isinstance(one, kind)]


async def _client_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _failure(status: int, reason: str, details: Sequence[Detail] = (), headers: Any = None) -> JSONResponse:
    return JSONResponse(Failure(reason=reason, details=list(details)).model_dump(), status, headers)


async def _items_failed(_: Request, error: Any) -> JSONResponse:
    """Name each item that failed; of errors that are not ours only that they happened."""
    from prm_kit.encode import TooLongError

    errors: dict[int, Exception] = error.errors
    details = [
        Detail(where=f"items.{index}", reason=str(one) if isinstance(one, PrmKitError) else "the log says why")
        for index, one in errors.items()
    ]
    if not all(isinstance(one, PrmKitError) for one in errors.values()):
        return _failure(500, "scoring failed", details)
    large = any(isinstance(one, TooLargeError | TooLongError) for one in errors.values())
    return _failure(413 if large else 422, f"{len(errors)} items cannot be scored", details)


async def _malformed(_: Request, error: Any) -> JSONResponse:
    """Say what is malformed and where, without repeating what was sent."""
    details = [
        Detail(where=".".join(str(part)[:100] for part in one["loc"]), reason=str(one["msg"])[:300])
        for one in error.errors()[:20]
    ]
    return _failure(422, "the request is malformed", details)


async def _full(_: Request, error: Any) -> JSONResponse:
    return _failure(429, str(error), headers={"retry-after": str(error.retry_after)})


async def _closing(_: Request, error: Any) -> JSONResponse:
    return _failure(503, str(error), headers={"retry-after": "5"})


async def _gone(_: Request, error: Any) -> JSONResponse:
    return _failure(499, "the client has left")


async def _too_large(_: Request, error: Any) -> JSONResponse:
    return _failure(413, str(error))


async def _unfit(_: Request, error: Any) -> JSONResponse:
    return _failure(422, str(error))


async def _refused(_: Request, error: Any) -> JSONResponse:
    return _failure(error.status_code, str(error.detail), headers=error.headers)


def _estimated_tokens(solutions: Sequence[Solution]) -> list[int]:
    return [estimate_tokens(solution.problem) + estimate_tokens(solution.completion) for solution in solutions]


_HANDLERS: dict[type[Exception], Callable[[Request, Any], Any]] = {
    _ItemsFailedError: _items_failed,
    RequestValidationError: _malformed,
    QueueFullError: _full,
    ClosingError: _closing,
    ClientGoneError: _gone,
    TooLargeError: _too_large,
    PrmKitError: _unfit,
    HTTPException: _refused,
}
