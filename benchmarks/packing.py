"""What padding costs in training, on the lengths of PRM800K: three ways to put sequences through a PRM.

    OMP_NUM_THREADS=1 python benchmarks/packing.py

padded   eight sequences drawn at random, padded to the longest: what most training scripts do
sorted   what `prm-kit train` does: updates of like length from pools of 32, micro-batches under a token budget
packed   sequences end to end in one row, without any padding (`share_prefixes: true`, with nothing to share)

A random Qwen2 (3.7M) does forward, backward and an optimiser step of length 0 on the same sequences in every arm, so
that all arms must come to the same loss. CPU-seconds in one process, arms taking turns; medians over the rounds.

A pool of sorted updates holds a thousand such sequences; the few that are timed here sort less well. So the padding of
4,000 sequences, which needs no model, is told beside it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from scoring import random_prm

from prm_kit.batching import epoch_updates
from prm_kit.examples import Example
from prm_kit.model import Prm
from prm_kit.objectives import Objective
from prm_kit.optimization import adamw
from prm_kit.train_forward import Forward

# Tokens (SmolLM2) of problem and steps of PRM800K's phase 1 training solutions, at 0 %, 5 %, ..., 100 %.
QUANTILES = [50, 121, 148, 179, 206, 227, 252, 277, 305, 329, 359, 400, 439, 498, 570, 670, 770, 905, 1199, 1436, 3769]
BATCH_TOKENS, MICRO_BATCH_TOKENS, BUCKET, ROWS = 16384, 8192, 32, 8  # the defaults of `TrainSettings`, and TRL's rows

Updates = Iterator[list[list[Example]]]


def sequences(number: int, source: random.Random) -> list[Example]:
    found = []
    for index in range(number):
        place = (index + source.random()) / number * (len(QUANTILES) - 1)
        low = int(place)
        length = round(QUANTILES[low] + (place - low) * (QUANTILES[low + 1] - QUANTILES[low]))
        ids = np.array([source.randrange(300, 2000) for _ in range(length)], dtype=np.int32)
        positions = np.arange(min(39, length - 1), length, 40, dtype=np.int32)  # a step about every 40 tokens
        targets = np.eye(3, dtype=np.float32)[[source.randrange(3) for _ in positions]]
        found.append(Example(str(index), ids, positions, targets))
    source.shuffle(found)
    return found


def at_random(examples: list[Example]) -> Updates:
    for start in range(0, len(examples), ROWS):
        yield [examples[start : start + ROWS]]


def dealt(examples: list[Example], forward: Forward, bucket: int) -> Updates:
    lengths = [len(example.ids) for example in examples]
    for members in epoch_updates(lengths, BATCH_TOKENS, bucket, 0, 0):
        yield forward.batches([examples[index] for index in members])


def padding(batches: Iterable[list[Example]]) -> float:
    shapes = [[len(example.ids) for example in batch] for batch in batches]
    return 1 - sum(map(sum, shapes)) / sum(len(shape) * max(shape) for shape in shapes)


def train(prm: Prm, forward: Forward, updates: Updates) -> dict[str, float]:
    optimizer = adamw(
        prm.model, prm.head, learning_rate=0, head_learning_rate=0, weight_decay=0.01, beta2=0.999
    )  # a rate of 0: the step costs what it costs and changes nothing
    loss_sum, real, computed, start = 0.0, 0, 0, time.process_time()
    for batches in updates:
        optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            with forward.attention():
                loss = Objective().loss(*forward.logits(batch))
                loss.backward()
            loss_sum += loss.item()
            real += sum(len(example.ids) for example in batch)
            computed += forward.computed_tokens(batch)
        optimizer.step()
    seconds = time.process_time() - start
    return {"seconds": seconds, "loss": loss_sum, "tokens": real, "padding": 1 - real / computed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prm = random_prm(argparse.Namespace(vocabulary=2000, hidden=256, layers=4, seed=0), ["some text"])
    prm.model.train()
    examples = sequences(arguments.sequences, random.Random(0))
    plain, packed = (Forward(prm, "float32", MICRO_BATCH_TOKENS, share) for share in (False, True))
    arms = {
        "padded": lambda: train(prm, plain, at_random(examples)),
        "sorted": lambda: train(prm, plain, dealt(examples, plain, BUCKET)),
        "packed": lambda: train(prm, packed, dealt(examples, packed, 1)),
    }
    rounds = [{name: arm() for name, arm in arms.items()} for _ in range(arguments.rounds)]
    losses = [one[name]["loss"] for one in rounds for name in arms]
    assert max(losses) - min(losses) < 1e-4 * losses[0], losses
    many = sequences(4000, random.Random(1))
    orders = {"padded": at_random(many), "sorted": dealt(many, plain, BUCKET)}
    at_scale = {name: padding(batch for update in order for batch in update) for name, order in orders.items()}
    print(f"{len(examples)} sequences, {rounds[0]['padded']['tokens']} tokens; {arguments.rounds} rounds")
    for name in arms:
        speed = statistics.median(one[name]["tokens"] / one[name]["seconds"] for one in rounds)
        ratios = [one["padded"]["seconds"] / one[name]["seconds"] for one in rounds]
        print(
            f"{name:7} {speed:8,.0f} tokens/CPU-s  padding {rounds[0][name]['padding']:5.1%}  "
            f"{statistics.median(ratios):.2f}x padded [{min(ratios):.2f}..{max(ratios):.2f}]  "
            f"padding of 4,000 sequences {at_scale.get(name, 0.0):5.1%}"
        )


if __name__ == "__main__":
    main()
