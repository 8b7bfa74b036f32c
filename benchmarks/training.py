"""Training speed: real tokens per CPU-second of `prm_kit.train` beside TRL 1.13's PRMTrainer and a plain loop.

    OMP_NUM_THREADS=1 python benchmarks/training.py --trl-python /path/to/venv/bin/python

TRL 1.13.0 (the last release with a PRMTrainer) wants an environment of its own:

    python3 -m venv trl113 && trl113/bin/pip install torch==2.13.0 trl==1.13.0 transformers==5.23.0

Every arm trains the same random Qwen2 (3.66M: 4 layers, width 256, 2,000 tokens) on the same 2,000 synthetic arithmetic
solutions with the same labels and the same ids, eight solutions an update, 30 updates, in a process of its own; the
arms take turns, and medians over the rounds are told. Only training is timed, not loading or tokenising. Padding is
never counted as a token.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS, UPDATES, BATCH = 2000, 30, 8
MARK = "<|prm_step|>"


def write_data(folder: Path) -> None:
    """Rows of {"prompt", "steps", "labels"}; 3 to 9 steps, so that a random batch of eight pads near 30 %."""
    source = random.Random(0)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(ROWS):
            number, value, prompt, steps, labels = source.randint(3, 9), source.randint(10, 99), [], [], []
            prompt.append(f"Start with {value}")
            for step in range(1, number + 1):
                other, plus = source.randint(10, 150), source.random() < 0.5
                prompt.append(f"{'add' if plus else 'subtract'} {other}")
                wrong = source.choice([0, 0, 0, 1, -10])
                result = value + (other if plus else -other) + wrong
                claim = f"{value} {'+' if plus else '-'} {other} = {result}"
                steps.append(f"Step {step}: {claim}, so now we have {result}.")
                labels.append(-1 if wrong else source.choice([0, 1, 1, 1]))
                value = result
            row = {"prompt": ", ".join(prompt) + ".\n", "steps": steps, "labels": labels}
            file.write(json.dumps(row) + "\n")


def write_model(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForTokenClassification

    rows = read_rows(folder)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=["<pad>", MARK], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator((row["prompt"] + "\n".join(row["steps"]) for row in rows), trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", extra_special_tokens=[MARK]).save_pretrained(
        folder / "model"
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=2000,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_labels=3,
        pad_token_id=0,
        classifier_dropout=0.0,
    )
    Qwen2ForTokenClassification(config).save_pretrained(folder / "model")


def read_rows(folder: Path) -> list[dict]:
    with (folder / "rows.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def arm_prm_kit(folder: Path, precision: str) -> dict:
    from prm_kit.records import Annotation, Labelled, Rater, Solution
    from prm_kit.train import train
    from prm_kit.train_settings import TrainSettings

    labelled = []
    for row in read_rows(folder):
        # no separator: the mark stands where TRL puts its newline, so both train on the same number of tokens
        solution = Solution.from_steps(row["prompt"].removesuffix("\n"), row["steps"], "")
        labelled.append(Labelled(solution, Annotation.of(solution, Rater("construction", "benchmark"), row["labels"])))
    settings = TrainSettings(
        backbone=str(folder / "model"),
        updates=UPDATES,
        batch_tokens=round(BATCH * mean_length(folder)),
        precision=precision,
    )
    with tempfile.TemporaryDirectory() as out:
        summary = train(settings, labelled, [], Path(out))
    return {
        "tokens": summary["tokens"],
        "cpu_seconds": summary["seconds"]["cpu"],
        "padded_share": summary["padded_share"],
        "tokens_per_row": summary["data"]["train"]["tokens"] / ROWS,
    }


def arm_plain(folder: Path) -> dict:
    """The loop that one writes without a second thought: random batches, padded, a mask, every position's logits."""
    import torch
    from transformers import AutoModelForTokenClassification

    examples = tokenised(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder / "model")
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    source, tokens, padded = random.Random(0), 0, 0
    order = source.sample(range(ROWS), UPDATES * BATCH)
    start = time.process_time()
    for update in range(UPDATES):
        batch = [examples[i] for i in order[update * BATCH : (update + 1) * BATCH]]
        longest = max(len(ids) for ids, _ in batch)
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in batch])
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in batch])
        labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in batch])
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        tokens += int(mask.sum())
        padded += mask.numel()
    seconds = time.process_time() - start
    per_row = sum(len(ids) for ids, _ in examples) / ROWS
    return {
        "tokens": tokens,
        "cpu_seconds": seconds,
        "padded_share": 1 - tokens / padded,
        "tokens_per_row": per_row,
    }


def arm_trl(folder: Path, precision: str) -> dict:
    """Runs in TRL's own environment: nothing of prm-kit is imported."""
    from datasets import Dataset
    from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast
    from trl.experimental.prm import PRMConfig, PRMTrainer

    rows = [
        {"prompt": row["prompt"], "completions": row["steps"], "labels": [value + 1 for value in row["labels"]]}
        for row in read_rows(folder)
    ]
    with tempfile.TemporaryDirectory() as out:
        trainer = PRMTrainer(
            model=AutoModelForTokenClassification.from_pretrained(folder / "model"),
            args=PRMConfig(
                output_dir=out,
                per_device_train_batch_size=BATCH,
                max_steps=UPDATES,
                learning_rate=2e-5,
                bf16=precision == "bfloat16",
                gradient_checkpointing=False,
                use_cpu=True,
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            processing_class=PreTrainedTokenizerFast.from_pretrained(folder / "model"),
            train_dataset=Dataset.from_list(rows),
        )
        collate, counts = trainer.data_collator, [0, 0]

        def counting(features):
            batch = collate(features)
            counts[0] += int(batch["attention_mask"].sum())
            counts[1] += batch["attention_mask"].numel()
            return batch

        trainer.data_collator = counting
        start = time.process_time()
        trainer.train()
        seconds = time.process_time() - start
        per_row = sum(len(ids) for ids in trainer.train_dataset["input_ids"]) / ROWS
    # the loader may have fetched one batch ahead; it is counted in TRL's favour
    return {
        "tokens": counts[0],
        "cpu_seconds": seconds,
        "padded_share": 1 - counts[0] / counts[1],
        "tokens_per_row": per_row,
    }


def tokenised(folder: Path) -> list[tuple[list[int], list[int]]]:
    from transformers import PreTrainedTokenizerFast  # AutoTokenizer would go by the model type, not by the file

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "model")
    mark = tokenizer.convert_tokens_to_ids(MARK)
    examples = []
    for row in read_rows(folder):
        ids = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
        labels = [-100] * len(ids)
        for step, value in zip(row["steps"], row["labels"], strict=True):
            step_ids = tokenizer(step, add_special_tokens=False)["input_ids"]
            ids, labels = [*ids, *step_ids, mark], [*labels, *[-100] * len(step_ids), value + 1]
        examples.append((ids, labels))
    return examples


def mean_length(folder: Path) -> float:
    return float((folder / "mean_length").read_text())


ARMS = {
    "prm-kit float32": lambda folder: arm_prm_kit(folder, "float32"),
    "prm-kit bfloat16": lambda folder: arm_prm_kit(folder, "bfloat16"),
    "plain loop": arm_plain,
    "TRL float32": lambda folder: arm_trl(folder, "float32"),
    "TRL bfloat16": lambda folder: arm_trl(folder, "bfloat16"),
}


def run_arm(python: str, name: str, folder: Path) -> dict:
    done = subprocess.run(
        [python, __file__, "--arm", name, "--folder", str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", help="interpreter of an environment with TRL 1.13.0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.arm:
        print(json.dumps(ARMS[asked.arm](asked.folder)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        write_model(folder)
        (folder / "mean_length").write_text(str(sum(len(ids) for ids, _ in tokenised(folder)) / ROWS))
        chosen = [arm for arm in ARMS if asked.trl_python or not arm.startswith("TRL")]
        rounds: list[dict[str, dict]] = []
        for number in range(asked.rounds):
            order = chosen[number % len(chosen) :] + chosen[: number % len(chosen)]
            rounds.append(
                {
                    arm: run_arm(asked.trl_python if arm.startswith("TRL") else sys.executable, arm, folder)
                    for arm in order
                }
            )
    if len({one[arm]["tokens_per_row"] for one in rounds for arm in chosen}) > 1:
        sys.exit(f"the arms were not given the same tokens: {rounds}")
    base = "TRL float32" if asked.trl_python else "plain loop"
    table = {}
    for arm in chosen:
        speeds = [one[arm]["tokens"] / one[arm]["cpu_seconds"] for one in rounds]
        ratios = [s / (one[base]["tokens"] / one[base]["cpu_seconds"]) for s, one in zip(speeds, rounds, strict=True)]
        table[arm] = {
            "tokens_per_cpu_second": round(statistics.median(speeds)),
            "range": [round(min(speeds)), round(max(speeds))],
            "ratio": round(statistics.median(ratios), 2),
            "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
            "padded_share": round(rounds[0][arm]["padded_share"], 3),
            "tokens_per_row": rounds[0][arm]["tokens_per_row"],
        }
    print(f"{'arm':18} {'tokens / CPU-s':>20} {'vs ' + base:>24} {'padding':>8} {'tokens / row':>13}")
    for arm, row in table.items():
        low, high = row["range"]
        print(
            f"{arm:18} {row['tokens_per_cpu_second']:>7,} [{low:>5,}..{high:>5,}] "
            f"{row['ratio']:>8.2f} [{row['ratio_range'][0]:.2f}..{row['ratio_range'][1]:.2f}]"
            f" {row['padded_share']:>12.1%} {row['tokens_per_row']:>13.2f}"
        )
    if asked.json:
        asked.json.write_text(json.dumps({"rounds": rounds, "table": table}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
