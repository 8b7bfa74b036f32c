"""Splitting speed: solutions per CPU-second by size of the data, to show that it is linear and keeps memory flat.

One implementation for small and large: `prm_kit.split.split`, method "auto", step cap on. The texts are synthetic (six
steps, about 500 bytes, blank lines, line ends, markers, formulas, Chinese in turn), made block by block outside the
measured time. With --hostile: the same for texts that are hard to scan, by length of one text.
Run: python benchmarks/splitting.py [--full] [--jobs N] [--hostile]
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from prm_kit.split import METHODS, split

BLOCK = 1000
SHAPES = (
    ("\n\n", "We take {a} boxes with {b} apples each, so there are {a} * {b} = {c} apples in the store."),
    ("\n", "In week {k} she sold {a} * {b} = <<{a}*{b}={c}>>{c} tickets at $4 each, which is more than before."),
    ("\n\n", "Step {k}: Multiply the two numbers.\n\\[ {a} \\times {b} = {c} \\]\nSo the value is \\({c}\\) now."),
    ("\n\n", "Substituting $x={a}$ into the equation, we get\n\n$$ {a} \\cdot {b} = {c}, $$\n\nwhich is an integer."),
    ("\n", "第{k}步：每箱有{b}个苹果，一共{a}箱，所以总数是{a}×{b}={c}个。然后进入下一步，继续计算。"),
    (" ", "He then multiplies {a} by {b}, i.e. he gets {c} points in round {k}. That is more than the 3.5 of before."),
)
HOSTILE = (
    "\\[ a ",
    "\\( a\n",
    "$$ x\n\n",
    "$x ",
    "\\begin{a}",
    "```py\n",
    "| a |\n|-|\n",
    "|-",
    "\n ",
    ". ",
    "a:\n\n",
    "Step 1: ",
)


def main() -> None:
    arguments = parse()
    if arguments.hostile:
        hostile(arguments.method)
        return
    texts = list(block(arguments.seed, 0))
    print(
        f"method {arguments.method}, {arguments.jobs} job(s), {sum(map(len, texts)) / len(texts):.0f} characters a text"
    )
    print(f"{'solutions':>10} {'steps':>10} {'CPU-s':>8} {'rows/CPU-s':>11} {'MB/CPU-s':>9} {'peak MB':>8}")
    for size in (10_000, 100_000, 1_000_000)[: 3 if arguments.full else 2]:
        seconds, steps, characters = run(size, arguments)
        who = resource.RUSAGE_SELF if arguments.jobs == 1 else resource.RUSAGE_CHILDREN
        peak = resource.getrusage(who).ru_maxrss / 1024
        rates = f"{size / seconds:>11,.0f} {characters / 1e6 / seconds:>9.1f}"
        print(f"{size:>10,} {steps:>10,} {seconds:>8.2f} {rates} {peak:>8.0f}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="one million solutions too")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--method", choices=sorted(set(METHODS) - {"token"}), default="auto")
    parser.add_argument("--hostile", action="store_true", help="texts that are hard to scan, by length")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def run(size: int, arguments: argparse.Namespace) -> tuple[float, int, int]:
    """CPU-seconds spent in splitting (all processes together), steps found, characters read."""
    jobs = ((arguments.seed, number, arguments.method) for number in range(size // BLOCK))
    seconds, steps, characters = 0.0, 0, 0
    for spent, found, read in results(jobs, arguments.jobs):
        seconds, steps, characters = seconds + spent, steps + found, characters + read
    return seconds, steps, characters


def results(jobs: Iterator[tuple[int, int, str]], processes: int) -> Iterator[tuple[float, int, int]]:
    if processes == 1:
        yield from map(split_block, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(split_block, jobs, chunksize=4)


def split_block(job: tuple[int, int, str]) -> tuple[float, int, int]:
    seed, number, method = job
    texts = list(block(seed, number))
    start = time.process_time()
    steps = sum(len(split(text, method).spans) for text in texts)
    return time.process_time() - start, steps, sum(map(len, texts))


def block(seed: int, number: int) -> Iterator[str]:
    """One thousand texts; the same for the same seed and number."""
    source = random.Random(seed * 1_000_003 + number)
    for row in range(BLOCK):
        separator, sentence = SHAPES[row % len(SHAPES)]
        pairs = [(source.randint(2, 99), source.randint(2, 99)) for _ in range(5)]
        steps = [sentence.format(a=a, b=b, c=a * b, k=k) for k, (a, b) in enumerate(pairs, 1)]
        yield separator.join([*steps, f"Therefore, the final answer is \\boxed{{{pairs[-1][0] * pairs[-1][1]}}}."])


def hostile(method: str) -> None:
    sizes = (50_000, 100_000, 200_000, 400_000)
    print(f"{'unit':>16} " + " ".join(f"{size // 1000:>7}k" for size in sizes) + "   CPU-s by characters")
    for unit in HOSTILE:
        spent = []
        for size in sizes:
            text = unit * (size // len(unit))
            start = time.process_time()
            split(text, method)
            spent.append(time.process_time() - start)
        print(f"{unit!r:>16} " + " ".join(f"{seconds:>8.3f}" for seconds in spent))


if __name__ == "__main__":
    sys.exit(main())
