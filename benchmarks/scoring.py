"""Scoring speed: the PRM scorer against the loop that model cards show and against one forward per step.

Two workloads: eight independent solutions per problem, and trees (solutions of a problem that share their first
steps, as branches, rollouts and beams do). Same model, same solutions, same process; CPU-seconds, interleaved rounds,
medians. Run: python benchmarks/scoring.py
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from prm_kit.model import Prm
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Solution
from prm_kit.score import Probabilities

Scores = list[list[Probabilities]]


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    source = random.Random(arguments.seed)
    workloads = {
        "eight solutions per problem": solutions(source, arguments.problems, arguments.per_problem, shared=False),
        "shared step prefixes": solutions(source, arguments.problems, arguments.per_problem, shared=True),
    }
    prm = random_prm(arguments, [text for some in workloads.values() for s in some for text in (s.problem, *s.steps)])
    for name, some in workloads.items():
        encoded = prm.encoder.encode(some)
        total = sum(len(one.ids) for one in encoded)
        distinct = len({tuple(one.ids[: end + 1]) for one in encoded for end in range(len(one.ids))})
        steps = sum(len(solution.spans) for solution in some)
        print(
            f"\n{name}: {len(some)} solutions, {steps} steps, {total} tokens ({total / len(some):.0f} each, "
            f"{encoded[0].prompt_length} of them the problem), {distinct} distinct"
        )
        compare(prm, some, arguments)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--per-problem", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=2000)
    parser.add_argument("--token-budget", type=int, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def solutions(source: random.Random, problems: int, per_problem: int, *, shared: bool) -> list[Solution]:
    """Arithmetic word problems with worked answers of about six steps, in random order."""
    made = []
    for _ in range(problems):
        who, what = source.choice(["Ann", "Ben", "Mia", "Tom"]), source.choice(["apples", "books", "coins", "stamps"])
        start, times = source.randint(10, 99), source.randint(2, 9)
        problem = (
            f"{who} has {start} {what} in a box at home. Every day {who} buys some more and gives some to a friend, "
            f"and on the last day counts {times} times what was left. How many {what} are there in the end? "
            "Show each step."
        )
        trunk: list[str] = []
        for _ in range(per_problem):
            keep = source.randint(0, len(trunk)) if shared else 0
            steps = trunk[:keep]
            value = source.randint(1, 99)
            for number in range(len(steps) + 1, source.randint(5, 7) + 1):
                change = source.randint(2, 99)
                verb, sign = source.choice([("adds", "+"), ("takes", "-"), ("counts", "*")])
                text = f"Step {number}: {who} {verb} {change} {what}, so {value} {sign} {change} = {value + change}."
                steps = [*steps, text]
                value += change
            trunk = trunk or steps
            made.append(Solution.from_steps(problem, steps, separator="\n"))
    source.shuffle(made)
    return made


def random_prm(arguments: argparse.Namespace, texts: list[str]) -> Prm:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|extra_0|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=arguments.vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=special[0], pad_token=special[0])
    torch.manual_seed(arguments.seed)
    config = Qwen2Config(
        vocab_size=arguments.vocabulary,
        hidden_size=arguments.hidden,
        intermediate_size=arguments.hidden * 3,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.hidden // 64,
        num_key_value_heads=arguments.hidden // 64,
        max_position_embeddings=4096,
    )
    prm = Prm.from_backbone(Qwen2ForCausalLM(config), tokenizer)
    print(f"{sum(weight.numel() for weight in prm.model.parameters()) / 1e6:.1f}M parameters, random")
    return prm


def compare(prm: Prm, some: list[Solution], arguments: argparse.Namespace) -> None:
    scorer = PrmScorer(prm, token_budget=arguments.token_budget)
    arms: dict[str, Callable[[], Scores]] = {
        "model-card loop": lambda: card_loop(prm, some),
        "one forward per step": lambda: step_loop(prm, some),
        "PrmScorer": lambda: [list(filter(None, scores.probabilities)) for scores in scorer.score(some)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    found: dict[str, Scores] = {}
    for _ in range(arguments.rounds):
        for name, arm in arms.items():
            start = time.process_time()
            found[name] = arm()
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    reference = torch.tensor([p for one in found["model-card loop"] for p in one])
    for name, median in medians.items():
        scores = torch.tensor([p for one in found[name] for p in one])
        difference = (scores - reference).abs().max().item()
        print(
            f"  {name:22} {median:7.2f} CPU-s {len(scores) / median:8.1f} steps/CPU-s   PrmScorer is "
            f"{median / medians['PrmScorer']:5.2f}x as fast   largest difference {difference:.0e}"
        )


@torch.inference_mode()
def card_loop(prm: Prm, some: list[Solution]) -> Scores:
    """One forward a solution, all positions through the head, then the rows of the marks."""
    found = []
    for solution in some:
        (one,) = prm.encoder.encode([solution])
        logits_TK = prm.model(input_ids=torch.tensor([one.ids])).logits[0]
        found.append(logits_TK[one.read_positions].softmax(-1).tolist())
    return found


@torch.inference_mode()
def step_loop(prm: Prm, some: list[Solution]) -> Scores:
    """One forward a step: the solution up to and with that step."""
    found = []
    for solution in some:
        (one,) = prm.encoder.encode([solution])
        rows = []
        for position in one.read_positions:
            logits_TK = prm.model(input_ids=torch.tensor([one.ids[: position + 1]])).logits[0]
            rows.append(logits_TK[-1].softmax(-1).tolist())
        found.append(rows)
    return found


if __name__ == "__main__":
    main()
