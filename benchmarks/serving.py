"""Serving speed: requests scored together beside one forward a request, by the same application.

Clients send one solution a request and the next as soon as it is answered; eight solutions have one problem, as the
rollouts of an RL step do, and the requests come in random order. Both servers run in processes of their own with the
same random model and are asked in turns; throughput, median and 99th percentile of the latency by number of clients.
Run: python benchmarks/serving.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time

import httpx2
from scoring import random_prm, solutions

ARMS = {"batched": 2_048, "one by one": 1}
"""Name of each server and its `batch_tokens`; with 1 every solution is scored alone."""


Figures = tuple[float, float, float]
"""Solutions per second; median and 99th percentile of the latency in seconds."""


def main() -> None:
    arguments = parse()
    if arguments.batch_tokens:
        serve(arguments)
        return
    servers = {arm: started(batch_tokens) for arm, batch_tokens in ARMS.items()}
    found: dict[tuple[str, int], list[Figures]] = {}
    try:
        for url, _ in servers.values():
            asyncio.run(load(url, 1, 4, arguments.seed))  # warm
        for clients in arguments.clients:
            for number in range(arguments.rounds):
                for arm, (url, _) in servers.items():
                    figures = asyncio.run(load(url, clients, max(16, 2 * clients), arguments.seed + number))
                    found.setdefault((arm, clients), []).append(figures)
    finally:
        for _, process in servers.values():
            process.terminate()
            process.wait()
    print(f"{'clients':>7} {'server':12} {'solutions/s':>11} {'p50 ms':>8} {'p99 ms':>8}   beside one by one")
    for clients in arguments.clients:
        base = medians(found["one by one", clients])
        for arm in ARMS:
            rate, p50, p99 = medians(found[arm, clients])
            ratios = f"{rate / base[0]:.2f}x  {p50 / base[1]:.2f}x  {p99 / base[2]:.2f}x"
            print(f"{clients:7d} {arm:12} {rate:11.1f} {p50 * 1000:8.0f} {p99 * 1000:8.0f}   {ratios}")


def medians(some: list[Figures]) -> Figures:
    rate, p50, p99 = (statistics.median(column) for column in zip(*some, strict=True))
    return rate, p50, p99


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=2000)
    parser.add_argument("--batch-tokens", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def started(batch_tokens: int) -> tuple[str, subprocess.Popen[str]]:
    command = [sys.executable, __file__, *sys.argv[1:], "--batch-tokens", str(batch_tokens)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("http://"):
            return line.strip(), process
    raise SystemExit("the server did not start")


def serve(arguments: argparse.Namespace) -> None:
    import torch

    from pipelines.serve import token_counter
    from prm_kit.prm_scorer import PrmScorer
    from prm_kit.serve.app import create_app
    from prm_kit.serve.server import listen
    from prm_kit.serve.server import serve as run
    from prm_kit.serve.settings import ServeSettings

    torch.set_num_threads(1)
    some = solutions(random.Random(arguments.seed), 64, 8, shared=False)
    scorer = PrmScorer(random_prm(arguments, [text for one in some for text in (one.problem, *one.steps)]))
    settings = ServeSettings(batch_tokens=arguments.batch_tokens)
    listening = listen("127.0.0.1", 0)
    app = create_app(scorer, settings, count_tokens=token_counter(scorer))
    run(app, listening, lambda: print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True))


async def load(url: str, clients: int, requests: int, seed: int) -> Figures:
    """Solutions per second, median latency and 99th percentile in seconds."""
    some = solutions(random.Random(seed), -(-requests // 8), 8, shared=False)[:requests]
    items = [{"problem": one.problem, "steps": one.steps, "separator": "\n"} for one in some]
    bodies = [json.dumps({"items": [item]}).encode() for item in items]
    waiting = iter(bodies)
    seconds: list[float] = []

    async def client() -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=300, trust_env=False) as session:
            for body in waiting:
                start = time.perf_counter()
                answer = await session.post("/v1/score", content=body, headers={"content-type": "application/json"})
                answer.raise_for_status()
                seconds.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    whole = time.perf_counter() - start
    return len(seconds) / whole, statistics.median(seconds), statistics.quantiles(seconds, n=100)[98]


if __name__ == "__main__":
    main()
