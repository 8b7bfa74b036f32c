"""Training on a CUDA device: model FLOPs utilisation, tokens a second, and what packing saves. Exits 2 without one.

    python benchmarks/gpu_training.py                                # one device
    python benchmarks/gpu_training.py --json figures.json
    python benchmarks/gpu_training.py --toy                          # on the CPU, tiny: shows that it runs, no figures

Random Qwen2 trunks of 0.135B and 1.5B parameters train on sequences with the lengths of PRM800K, in bfloat16 autocast
with float32 weights and a fused AdamW, as `prm-kit train` does on CUDA.

Model FLOPs a token: 6 x the parameters of the layers (embeddings are looked up, the head reads a few positions), and
6 x layers x width x length for causal attention (arXiv 2204.02311, appendix B, halved because a token sees the half of
its sequence that is before it). Only real tokens count: padding and activations computed twice are no use and lower
the figure. The peak is that of dense bfloat16; say --peak-tflops for a device that is not in the list.

Arms: `padded`, eight random sequences at a time; `sorted`, what `prm-kit train` does; `packed`, end to end in one row
without any padding (benchmarks/packing.py says more);
`shared`, sixteen solutions of one problem as long as each of them, prefix computed once, beside `separate`, padded.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from packing import BUCKET, at_random, dealt, sequences
from scoring import random_prm
from transformers import Qwen2Config, Qwen2ForCausalLM

from prm_kit.cuda_extras import use_liger
from prm_kit.examples import Example
from prm_kit.model import Prm
from prm_kit.objectives import Objective
from prm_kit.optimization import adamw
from prm_kit.train_forward import Forward
from prm_kit.train_start import compute_activations_twice

# Dense bfloat16, from the vendor's data sheets.
PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "4090": 165}

SHAPES = {
    "0.135B": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "heads": 9, "groups": 3},
    "toy": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "heads": 1, "groups": 1},
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "heads": 12, "groups": 2},
}
VOCABULARY = {"0.135B": 49152, "1.5B": 151936, "toy": 2000}


def model(name: str, arguments: argparse.Namespace) -> Prm:
    shape = dict(SHAPES[name])
    heads, groups = shape.pop("heads"), shape.pop("groups")
    config = Qwen2Config(
        vocab_size=VOCABULARY[name],
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=8192,
        **shape,
    )
    torch.manual_seed(0)
    tokenizer = random_prm(argparse.Namespace(vocabulary=2000, hidden=64, layers=1, seed=0), ["some text"]).tokenizer
    prm = Prm.from_backbone(Qwen2ForCausalLM(config), tokenizer, device=arguments.device, dtype=torch.float32)
    use_liger(arguments.liger, prm.model, torch.device(arguments.device))
    if arguments.gradient_checkpointing:
        compute_activations_twice(prm.model)
    prm.model.train()
    return prm


def flops(prm: Prm, lengths: Sequence[int]) -> float:
    layers = [p for name, p in prm.trunk.named_parameters() if "embed_tokens" not in name]
    config = prm.model.config
    attention = 6 * config.num_hidden_layers * config.hidden_size
    return sum(6 * sum(p.numel() for p in layers) * n + attention * n * n for n in lengths)


def family(number: int, source: random.Random) -> list[Example]:
    """Solutions of one problem, the problem as long as each of them."""
    problem = [source.randrange(300, 2000) for _ in range(300)]
    found = []
    for index in range(number):
        ids = np.array(problem + [source.randrange(300, 2000) for _ in range(300)], dtype=np.int32)
        positions = np.arange(339, 600, 40, dtype=np.int32)
        found.append(Example(str(index), ids, positions, np.eye(3, dtype=np.float32)[[index % 3] * len(positions)]))
    return found


def finish(prm: Prm) -> None:
    """Wait for what the device still computes."""
    if prm.device.type == "cuda":
        torch.cuda.synchronize()


def run(prm: Prm, forward: Forward, updates: list[list[list[Example]]]) -> dict[str, float]:
    rates = {"learning_rate": 1e-6, "head_learning_rate": 1e-6, "weight_decay": 0.01, "beta2": 0.999}
    optimizer = adamw(prm.model, prm.head, **rates)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"]
    seconds, lengths = 0.0, []
    for number, batches in enumerate([updates[0], *updates]):  # the first one warms up
        finish(prm)
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            with forward.attention():
                (Objective().loss(*forward.logits(batch)) / 100).backward()
        torch.nn.utils.clip_grad_norm_(prm.model.parameters(), 1.0, foreach=True)
        optimizer.step()
        finish(prm)
        if number:
            seconds += time.perf_counter() - start
            lengths += [len(example.ids) for batch in batches for example in batch]
    return {"tokens_per_second": sum(lengths) / seconds, "tflops": flops(prm, lengths) / seconds / 1e12}


def figures(name: str, arguments: argparse.Namespace, peak: float) -> dict[str, dict[str, float]]:
    prm = model(name, arguments)
    plain = Forward(prm, "bfloat16", arguments.micro_batch_tokens, False)
    shared = replace(plain, share_prefixes=True)
    source = random.Random(0)
    many = sequences(8 if arguments.toy else 1200, source)
    groups = [family(2 if arguments.toy else 16, source) for _ in range(1 if arguments.toy else 4)]
    arms = {
        "padded": (plain, list(at_random(many))[: 4 * arguments.updates]),
        "sorted": (plain, list(dealt(many, plain, BUCKET))[: arguments.updates]),
        "packed": (shared, list(dealt(many, shared, 1))[: arguments.updates]),
        "separate": (plain, [plain.batches(group) for group in groups]),
        "shared": (shared, [shared.batches(group) for group in groups]),
    }
    rounds = [{arm: run(prm, *what) for arm, what in arms.items()} for _ in range(arguments.rounds)]
    found = {}
    for arm in arms:
        speed = statistics.median(one[arm]["tokens_per_second"] for one in rounds)
        tflops = statistics.median(one[arm]["tflops"] for one in rounds)
        found[arm] = {"tokens_per_second": speed, "mfu": tflops / peak}
        print(f"{name:7} {arm:9} {speed:12,.0f} tokens/s  MFU {tflops / peak:6.1%}")
    for one, other in (("sorted", "padded"), ("packed", "padded"), ("shared", "separate")):
        ratio = found[one]["tokens_per_second"] / found[other]["tokens_per_second"]
        print(f"{name:7} {one} is {ratio:.2f}x {other}")
    if prm.device.type == "cuda":
        print(f"{name:7} peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    return found


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=["0.135B", "1.5B"])
    parser.add_argument("--micro-batch-tokens", type=int, default=16384)
    parser.add_argument("--updates", type=int, default=8, help="of 16,384 tokens, timed in an arm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--liger", choices=["auto", "off"], default="auto")
    parser.add_argument("--peak-tflops", type=float)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args(words)
    arguments.device = "cpu" if arguments.toy else "cuda"
    if arguments.toy:
        arguments.models, arguments.updates, arguments.rounds, arguments.peak_tflops = ["toy"], 1, 1, 1.0
        figures("toy", arguments, 1.0)
        return
    if not torch.cuda.is_available():
        sys.stderr.write("gpu_training: this measures a CUDA device, and there is none here\n")
        sys.exit(2)
    device = torch.cuda.get_device_name()
    known = [tflops for name, tflops in PEAK_TFLOPS.items() if name in device]
    if not (known or arguments.peak_tflops):
        sys.exit(f"gpu_training: the peak of {device} is not in the list: say --peak-tflops")
    peak = arguments.peak_tflops or known[0]
    print(f"{device}, torch {torch.__version__}, peak {peak:.0f} TFLOPS")
    found = {name: figures(name, arguments, peak) for name in arguments.models}
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": device, "peak_tflops": peak, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
