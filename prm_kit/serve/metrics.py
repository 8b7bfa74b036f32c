"""What a server counts, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from prm_kit import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_TOKENS = tuple(float(2**power) for power in range(5, 18))


class Metrics:
    """The figures of one server, in a registry of their own.

    Attributes:
        requests: Requests by route and status.
        seconds: From the first byte of a request to the last of its answer, by route.
        items: Items scored.
        steps: Steps scored.
        failures: Items without scores, by kind: "refused" (the scorer cannot score this), "error" (it broke),
            "too large", "unreadable" (the text of a reward request holds no problem, response or step).
        cancelled: Requests whose client left.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests answered.", "route", "status")
        self.seconds = self._histogram("request_seconds", "Seconds until answered.", _SECONDS, "route")
        self.items = self._counter("items", "Solutions scored.")
        self.steps = self._counter("steps", "Steps scored.")
        self.failures = self._counter("failures", "Solutions without scores.", "kind")
        self.cancelled = self._counter("cancelled", "Requests whose client left before the answer.")
        self._batch_tokens = self._histogram("batch_tokens", "Tokens of a batch.", _TOKENS)
        self._batch_items = self._histogram("batch_items", "Solutions of a batch.", (1, 2, 4, 8, 16, 32, 64, 128, 256))
        self._batch_seconds = self._histogram("batch_seconds", "Seconds a batch took.", _SECONDS)
        Gauge("prm_kit_info", "What runs.", ["version"], registry=self._registry).labels(__version__).set(1)

    def watch_queue(self, queued: Callable[[], int]) -> None:
        """Report what `queued` says whenever the figures are asked for."""
        Gauge("prm_kit_queue_items", "Solutions that wait.", registry=self._registry).set_function(queued)

    def batch(self, items: int, tokens: int, seconds: float) -> None:
        """Note one batch."""
        self._batch_items.observe(items)
        self._batch_tokens.observe(tokens)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All figures."""
        return generate_latest(self._registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"prm_kit_{name}", help_text, labels, registry=self._registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"prm_kit_{name}", help_text, labels, buckets=buckets, registry=self._registry)
