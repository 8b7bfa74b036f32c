"""Requests in flight and CPU time per request: our judge client beside the openai SDK, in one run, on one machine.

    python benchmarks/judge.py [--openai-python VENV/bin/python] [--requests 3000] [--in-flight 512]

A local scripted server answers after 200 ms. Every client is a process of its own and sends the same requests; CPU
time is that of the client's process, from the first request to the last. `judge` is the whole of `prm-kit label judge`
beside sending: prompts, reading of answers, store of answers, ledger.

The SDK is measured as it comes, which keeps 100 connections alive, and with as many as there are requests in flight.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "tests" / "labeling" / "judge" / "scripted_server.py"
BODY = {
    "model": "m",
    "messages": [{"role": "system", "content": "judge " * 300}, {"role": "user", "content": "step " * 600}],
    "temperature": 0.0,
    "max_tokens": 1000,
}
ANSWER = json.dumps(
    {"steps": [{"id": f"a{n}b", "quote": "x" * 40, "reason": "y" * 60, "correct": "yes"} for n in range(8)]}
)


async def ours(url: str, requests: int, in_flight: int) -> int:
    sys.path.insert(0, str(ROOT))
    from labeling.judge.budget import Budget, Ceilings, Need
    from labeling.judge.client import ChatClient
    from labeling.judge.endpoint import endpoint
    from labeling.judge.limiter import AdaptiveLimit

    answered = 0

    async def deliver(reply) -> None:
        nonlocal answered
        answered += bool(reply.text)

    left = iter(range(requests))
    async with ChatClient(endpoint(url), AdaptiveLimit(in_flight, in_flight), Budget(Ceilings())) as client:

        async def work() -> None:
            for _ in left:
                await client.send(BODY, Need(1000, 1000), deliver)

        await asyncio.gather(*(work() for _ in range(in_flight)))
    return answered


async def openai(url: str, requests: int, in_flight: int, tuned: bool) -> int:
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    kept = {}
    if tuned:
        import httpx2

        kept["http_client"] = DefaultAsyncHttpxClient(
            limits=httpx2.Limits(max_connections=2 * in_flight, max_keepalive_connections=in_flight)
        )
    answered = 0
    left = iter(range(requests))
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=180, **kept) as client:

        async def work() -> None:
            nonlocal answered
            for _ in left:
                reply = await client.chat.completions.create(**BODY)
                answered += bool(reply.choices[0].message.content)

        await asyncio.gather(*(work() for _ in range(in_flight)))
    return answered


async def judge(url: str, requests: int, in_flight: int) -> int:
    sys.path.insert(0, str(ROOT))
    from labeling.judge.endpoint import endpoint
    from labeling.judge.labeler import JudgeLabeler
    from labeling.judge.prompt import load_prompt
    from labeling.judge.run import judge_into
    from labeling.judge.session import Connection
    from labeling.judge.settings import JudgeSettings
    from prm_kit.records import Solution

    steps = [f"Then there are {n} times 7, which is {7 * n} of them, as was said before." for n in range(8)]
    solutions = (Solution.from_steps(f"problem {n}: how many are there?", steps) for n in range(requests))
    with tempfile.TemporaryDirectory() as folder:
        connection = Connection(
            endpoint(url), Path(folder) / "answers.sqlite", "m", start=in_flight, concurrency=in_flight
        )
        labeler = JudgeLabeler(connection, load_prompt("facets"), JudgeSettings(model="m"), "json_schema")
        outcome = await judge_into(labeler, solutions, Path(folder) / "ledger.sqlite", lambda done, session: None)
    return outcome.labelled


CLIENTS = {
    "prm-kit client": ours,
    "prm-kit judge": judge,
    "openai SDK": lambda *given: openai(*given, tuned=False),
    "openai SDK, tuned": lambda *given: openai(*given, tuned=True),
}


def measure(name: str, url: str, requests: int, in_flight: int) -> None:
    """In the client's own process."""
    asyncio.run(CLIENTS[name](url, min(requests, in_flight), in_flight))  # imports, connections, caches
    wall, cpu = time.perf_counter(), time.process_time()
    answered = asyncio.run(CLIENTS[name](url, requests, in_flight))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"answered": answered, "wall": wall, "cpu": cpu}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openai-python", help="python of an environment with the openai SDK")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--in-flight", type=int, default=512)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.url, arguments.requests, arguments.in_flight)
        return
    print(f"{arguments.requests} requests, {arguments.in_flight} at once, {arguments.latency:g} s latency")
    print(f"{'client':20}{'answered':>10}{'peak in flight':>16}{'requests/s':>12}{'CPU ms/request':>16}")
    for name in CLIENTS:
        python = arguments.openai_python if "openai" in name else sys.executable
        if python is None:
            continue
        fixed = [] if name == "prm-kit judge" else ["--fixed", ANSWER]
        server = subprocess.Popen(
            [sys.executable, str(SERVER), "--latency", str(arguments.latency), *fixed],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        url = server.stdout.readline().strip()
        words = ["--measure", name, "--url", url, "--requests", arguments.requests, "--in-flight", arguments.in_flight]
        done = subprocess.run([python, __file__, *map(str, words)], capture_output=True, text=True)
        peak = server.communicate("")[0].split()[-1]
        if done.returncode:
            print(f"{name}: failed\n{done.stderr[-2000:]}")
            continue
        found = json.loads(done.stdout)
        rate, cpu = found["answered"] / found["wall"], 1e3 * found["cpu"] / arguments.requests
        print(f"{name:20}{found['answered']:>10}{peak:>16}{rate:>12.0f}{cpu:>16.2f}", flush=True)


if __name__ == "__main__":
    main()
