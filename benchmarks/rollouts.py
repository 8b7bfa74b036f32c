"""CPU seconds of rollouts from every prefix of solutions: all prefixes together, one at a time, one rollout at a time.

    python benchmarks/rollouts.py [--policy DIR] [--solutions 32] [--samples 8] [--prefixes N]

Without a policy an untrained one of the embedded task's kind is used, whose rollouts are as long as the limit lets them
be. All three ways sample the same tokens, and that is checked. `together` is what the labeller does: each distinct
prefix is prefilled once, whatever number of rollouts it gets, and rows of many prefixes decode side by side.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from prm_kit.engines.engine import Limits
from prm_kit.engines.transformers_engine import TransformersEngine
from prm_kit.policy import Policy
from prm_kit.split import split_solution
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", type=Path)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--solutions", type=int, default=32)
    parser.add_argument("--prefixes", type=int, help="no more than these")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=40)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.policy:
        policy = Policy.load(asked.policy)
    else:
        policy = Policy.of(arithmetic_policy(0, asked.hidden, asked.layers), arithmetic_tokenizer())
    prefixes = prefixes_of(policy, asked.solutions)
    limits = Limits(asked.max_new_tokens, policy.stop_ids)
    ways = {
        "together": lambda engine: engine.generate(prefixes, asked.samples, limits),
        "one prefix at a time": lambda engine: [engine.generate([p], asked.samples, limits)[0] for p in prefixes],
        "one rollout at a time": lambda engine: one_by_one(engine, prefixes, asked.samples, limits),
    }
    prefixes = prefixes[: asked.prefixes]
    ids, seconds = {}, {}
    for name, way in ways.items():
        engine = TransformersEngine(policy.model)
        engine.generate(prefixes[:1], 1, limits)  # the first call is slow
        started = time.process_time()
        groups = way(engine)
        seconds[name] = time.process_time() - started
        ids[name] = [[rollout.ids for rollout in group] for group in groups]
    tokens = sum(len(one) for group in ids["together"] for one in group)
    parameters = sum(p.numel() for p in policy.model.parameters())
    print(
        f"{parameters:,} parameters, {len(prefixes)} distinct prefixes, {asked.samples} rollouts each, {tokens} tokens"
    )
    for name, spent in seconds.items():
        pairs = zip(ids[name], ids["together"], strict=True)
        same = sum(a == b for x, y in pairs for a, b in zip(x, y, strict=False))
        ratio = spent / seconds["together"]
        share = same / sum(len(group) for group in ids[name])
        print(f"{name:22} {spent:8.2f} CPU s   {ratio:5.1f} x   {share:.1%} of the rollouts are the same")


def prefixes_of(policy: Policy, count: int) -> list[list[int]]:
    """The distinct prefixes of demonstrations, the problem alone included, the whole solution not."""
    found = {}
    for demonstration in ArithmeticTask().demonstrations("train", count, 0):
        solution = split_solution(demonstration.problem, demonstration.completion, "newline", attached=False)
        (prompt,) = policy.prompt_ids([solution.problem])
        for ids in policy.prefix_ids([solution])[0][:-1]:
            found[(*prompt, *ids)] = None
    return [list(ids) for ids in found]


def one_by_one(engine: TransformersEngine, prefixes: list[list[int]], samples: int, limits: Limits) -> list:
    """Each rollout with a prefill of its own, one row at a time."""
    narrow = TransformersEngine(engine.model, max_rows=1)
    return [narrow.generate([prefix], samples, limits)[0] for prefix in prefixes]


if __name__ == "__main__":
    main()
