"""Log-probabilities of a policy's tokens and their gradient: `rl.log_probabilities` against the plain ways.

Each way runs in a process of its own, which makes one small pass first and then gives back what it freed, so that the
peak is the pass's own (resident memory above what the process held with the hidden states and the head; the head's
gradient is part of it). CPU-seconds of forward and backward; rounds interleaved, medians; every way's loss and
gradients are compared with the plain one's. Run: python benchmarks/log_probabilities.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from rl.log_probabilities import token_log_probabilities, token_log_probabilities_and_entropies


def plain(hidden: Tensor, head: Tensor, ids: Tensor) -> Tensor:
    return torch.log_softmax((hidden @ head.T).float(), dim=-1).gather(1, ids[:, None])[:, 0].sum()


def plain_lean(hidden: Tensor, head: Tensor, ids: Tensor) -> Tensor:
    logits = (hidden @ head.T).float()
    return (logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(-1)).sum()


def plain_entropy(hidden: Tensor, head: Tensor, ids: Tensor) -> Tensor:
    logs = torch.log_softmax((hidden @ head.T).float(), dim=-1)
    return logs.gather(1, ids[:, None])[:, 0].sum() - 0.01 * (logs.exp() * logs).sum()


def tiled(hidden: Tensor, head: Tensor, ids: Tensor) -> Tensor:
    return token_log_probabilities(hidden, head, ids).sum()


def tiled_entropy(hidden: Tensor, head: Tensor, ids: Tensor) -> Tensor:
    found, entropy = token_log_probabilities_and_entropies(hidden, head, ids)
    return found.sum() + 0.01 * entropy.sum()


WAYS = {
    "log_softmax, gather": plain,
    "gather - logsumexp": plain_lean,
    "tiled": tiled,
    "log_softmax, gather, entropy": plain_entropy,
    "tiled, entropy": tiled_entropy,
}
BASELINE = {"tiled": "log_softmax, gather", "tiled, entropy": "log_softmax, gather, entropy"}


def main() -> None:
    arguments = parse()
    if arguments.way:
        print(json.dumps(measured(arguments)))
        return
    results: dict[str, list[dict[str, float]]] = {way: [] for way in arguments.ways.split(";")}
    for _ in range(arguments.rounds):
        for way in results:
            results[way].append(one(way, arguments))
            print(way, results[way][-1], file=sys.stderr)
    print(
        f"{arguments.tokens} tokens x {arguments.vocabulary}, hidden {arguments.hidden}, {arguments.threads} thread(s)"
    )
    print(f"{'way':<30}{'peak MB':>9}{'CPU-s':>8}{'memory x':>10}{'time x':>8}   loss, |dW|, |dh|")
    for way, rounds in results.items():
        middle = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        base = results.get(BASELINE.get(way, ""), rounds)
        against = {key: middle[key] / statistics.median(one[key] for one in base) for key in ("peak", "seconds")}
        print(
            f"{way:<30}{middle['peak']:>9.0f}{middle['seconds']:>8.2f}{against['peak']:>10.3f}{against['seconds']:>8.2f}"
            f"   {middle['loss']:.2f} {middle['dW']:.5f} {middle['dh']:.5f}"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", default=";".join(WAYS), help="Separated by semicolons.")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    return parser.parse_args()


def one(way: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Run one way in a process of its own."""
    sizes = [f"--{key}={getattr(arguments, key)}" for key in ("tokens", "vocabulary", "hidden", "threads")]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, __file__, *sizes, f"--way={way}"], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(done.stdout)


def measured(arguments: argparse.Namespace) -> dict[str, float]:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    hidden = torch.randn(arguments.tokens, arguments.hidden).requires_grad_()
    head = (torch.randn(arguments.vocabulary, arguments.hidden) * 0.05).requires_grad_()
    ids = torch.randint(0, arguments.vocabulary, (arguments.tokens,))
    WAYS[arguments.way](hidden[:16], head[:64], ids[:16] % 64).backward()
    hidden.grad = head.grad = None
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    start = time.process_time()
    loss = WAYS[arguments.way](hidden, head, ids)
    loss.backward()
    seconds = time.process_time() - start
    return {
        "seconds": seconds,
        "peak": (memory("VmHWM") - before) / 1024,
        "loss": loss.item(),
        "dW": head.grad.norm().item(),
        "dh": hidden.grad.norm().item(),
    }


def memory(key: str) -> int:
    """Kilobytes, as the kernel counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(key)))


if __name__ == "__main__":
    main()
