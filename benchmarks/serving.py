"""Serving speed: requests scored together beside one forward a request, by the same application.

Clients send one solution a request and the next as soon as it is answered; eight solutions have one problem, as the
rollouts of an RL step do, and the requests come in random order. Both servers have the same random model, run in one
process beside that of the clients, and are asked in turns; throughput, median and 99th percentile of the latency by
number of clients.
Run: python benchmarks/serving.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import statistics
import time
from multiprocessing.connection import Connection

import httpx2
import torch
import uvicorn
from scoring import random_prm, solutions

from pipelines.serve import token_counter
from prm_kit.prm_scorer import PrmScorer
from prm_kit.serve.app import create_app
from prm_kit.serve.server import listen
from prm_kit.serve.settings import ServeSettings

ARMS = {"batched": 2_048, "one by one": 1}
"""Name of each server and its `batch_tokens`; with 1 every solution is scored alone."""


Figures = tuple[float, float, float]
"""Solutions per second; median and 99th percentile of the latency in seconds."""


def main() -> None:
    arguments = parse()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=serve, args=(arguments, theirs), daemon=True)
    server.start()
    urls: dict[str, str] = ours.recv()
    found: dict[tuple[str, int], list[Figures]] = {}
    for url in urls.values():
        asyncio.run(load(url, 1, 4, arguments.seed))  # warm
    for clients in arguments.clients:
        for number in range(arguments.rounds):
            for arm, url in urls.items():
                figures = asyncio.run(load(url, clients, max(16, clients), arguments.seed + number))
                found.setdefault((arm, clients), []).append(figures)
    server.terminate()
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
    return parser.parse_args()


def serve(arguments: argparse.Namespace, pipe: Connection) -> None:
    """Serve every arm on a port of its own, in one process, and tell the addresses."""
    torch.set_num_threads(1)
    some = solutions(random.Random(arguments.seed), 64, 8, shared=False)
    scorer = PrmScorer(random_prm(arguments, [text for one in some for text in (one.problem, *one.steps)]))
    count = token_counter(scorer)
    apps = {
        arm: create_app(scorer, ServeSettings(batch_tokens=tokens), count_tokens=count) for arm, tokens in ARMS.items()
    }
    sockets = {arm: listen("127.0.0.1", 0) for arm in apps}

    async def both() -> None:
        servers = [
            uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).serve(sockets=[sockets[arm]])
            for arm, app in apps.items()
        ]
        await asyncio.gather(*servers)

    pipe.send({arm: f"http://127.0.0.1:{listening.getsockname()[1]}" for arm, listening in sockets.items()})
    asyncio.run(both())


async def load(url: str, clients: int, requests: int, seed: int) -> Figures:
    """Solutions per second, median latency and 99th percentile in seconds."""
    some = solutions(random.Random(seed), -(-requests // 8), 8, shared=False)[:requests]
    items = [{"problem": one.problem, "steps": one.steps, "separator": "\n"} for one in some]
    bodies = [json.dumps({"items": [item]}).encode() for item in items]
    waiting = iter(bodies)
    seconds: list[float] = []

    async def client() -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=300, verify=False, trust_env=False) as session:
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
