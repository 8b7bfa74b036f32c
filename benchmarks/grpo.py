"""One GRPO update beside TRL 1.16's GRPOTrainer: CPU-seconds, and where they go.

    OMP_NUM_THREADS=1 python benchmarks/grpo.py --trl-python /path/to/venv/bin/python [--vocabulary 32000]

TRL 1.16.0 wants an environment of its own:

    python3 -m venv trl116 && trl116/bin/pip install torch==2.13.0 trl==1.16.0 transformers==5.23.0

Every arm trains the same random Qwen2 (4 layers, width 256: 3.66M weights with 2,000 tokens) by GRPO without a
reference policy: two problems of about 85 tokens, eight rollouts each of exactly 96 tokens (the end token has an id
that the model cannot write), the same rewards in Python, one optimiser step, float32. Arms run in processes of their
own and take turns; of each process the median over its updates counts, the first two of which warm it up, and ratios
are medians over the rounds. `prm-kit, prompts apart` is the same with `share_prompts: false`; `prm-kit + PRM` lets a
random PRM of the policy's size reward steps, and says what that costs beside bare forwards of its distinct tokens.
`prm-kit, critic` is PPO with a value model of the policy's size. Memory is the peak above what the process holds before
its first update.
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

PROBLEMS, GROUP, NEW_TOKENS, WARM = 2, 8, 96, 2
END = "<|end|>"


def prompts(count: int) -> list[str]:
    source, found = random.Random(0), []
    for _ in range(count):
        said = [f"Start with {source.randint(10, 99)}"]
        said += [f"{source.choice(['add', 'subtract'])} {source.randint(10, 150)}" for _ in range(27)]
        found.append(", ".join(said) + ".\n")
    return found


def score(ids: list[int]) -> float:
    """A reward that differs within a group and costs nothing."""
    return float(sum(ids) % 2)


def write_model(folder: Path, vocabulary: int) -> None:
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    from prm_kit.policy import Policy
    from prm_kit.step_reading import PromptTemplate

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=["<pad>"])
    backend.train_from_iterator(prompts(2000), trainer)
    # The model's vocabulary is filled up, so that every token can be read, and ends before the end token.
    backend.add_tokens([AddedToken(f"<{i}>", special=False) for i in range(backend.get_vocab_size(), vocabulary)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token=END)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        pad_token_id=0,
        eos_token_id=None,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    assert tokenizer.eos_token_id == vocabulary
    Policy.of(model, tokenizer, PromptTemplate(before="", after="")).save(folder)


def peak_above(start: int) -> float:
    """Megabytes of resident memory, at most, above `start` kilobytes."""
    return (memory("VmHWM") - start) / 1024


def memory(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(key)))


class Clock:
    """CPU-seconds of phases and of whole updates."""

    def __init__(self) -> None:
        self.updates: list[dict[str, float]] = []
        self.now: dict[str, float] = {}
        self.start = time.process_time()
        self.held = memory("VmRSS")

    def timed(self, phase: str, function):
        def counting(*args, **kwargs):
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.now[phase] = self.now.get(phase, 0.0) + time.process_time() - start

        return counting

    def update(self) -> None:
        self.updates.append({**self.now, "all": time.process_time() - self.start})
        self.now, self.start = {}, time.process_time()

    def figures(self) -> dict[str, float]:
        kept = self.updates[WARM:]
        found = {phase: statistics.median(one.get(phase, 0.0) for one in kept) for phase in kept[0]}
        return {**found, "peak": peak_above(self.held)}


def arm_prm_kit(folder: Path, updates: int, share: bool | None = None, prm: bool = False, algorithm="grpo") -> dict:
    import torch

    import rl.models
    from prm_kit.policy import Policy
    from prm_kit.records import Problem
    from prm_kit.score import StepScores
    from rl.train import train
    from rl.train_settings import RlSettings

    torch.set_num_threads(1)
    tokenizer = Policy.load(folder).tokenizer

    class Scored:
        """Step rewards from a PRM that has never learnt: what it says does not matter, what it costs does."""

        name = "prm"

        def __init__(self, scorer) -> None:
            self.scorer, self.asked = scorer, []

        def score(self, solutions) -> list[StepScores]:
            self.asked = list(solutions)
            return self.scorer.score(solutions)

    scorer = Scored(random_prm(folder)) if prm else None
    clock = Clock()
    bare: list[float] = []

    def told(done, total, line) -> None:
        if line["part"] != "train":
            return
        clock.update()
        if scorer is not None:
            bare.append(forwarded(scorer.scorer, scorer.asked))
            clock.start = time.process_time()

    rl.models.PolicyModel.forward = clock.timed("log-probabilities", rl.models.PolicyModel.forward)
    engine = rl.models.PolicyEngine
    engine.generate = clock.timed("generation", engine.generate)
    if scorer is not None:
        scorer.score = clock.timed("scoring", scorer.score)
    parts = {"divergence": None} if algorithm == "grpo" else {}
    parts["weights"] = {"final": 1.0, "process": 0.5 if prm else 0.0, "format": 0.0}
    settings = RlSettings(
        policy=str(folder),
        algorithm=algorithm,
        parts=parts,
        updates=updates,
        problems=PROBLEMS,
        group_size=GROUP,
        max_new_tokens=NEW_TOKENS,
        split="newline",
        share_prompts=share,
        precision="float32",
        device="cpu",
        checkpoint_every=None,
        shown=0,
    )

    def verify(problem: Problem, completion: str) -> bool:
        return False  # what is cut off is wrong anyhow

    def reward(rollouts) -> list[float]:
        return [score(list(one.rollout.ids)) for one in rollouts]

    with tempfile.TemporaryDirectory() as out:
        problems = [Problem(text, "0") for text in prompts(64)]
        train(settings, problems, verify, Path(out), scorer=scorer, rewards={"parity": (1.0, reward)}, progress=told)
    found = clock.figures()
    found["update"] = found["all"] - sum(found.get(phase, 0.0) for phase in ("generation", "log-probabilities"))
    found["update"] -= found.get("scoring", 0.0)
    found["prompt tokens"] = statistics.mean(len(tokenizer(text)["input_ids"]) for text in prompts(64))
    if bare:
        found["scoring / bare forward"] = found["scoring"] / statistics.median(bare[WARM:])
    return found


def random_prm(folder: Path):
    import torch

    from prm_kit.model import Prm
    from prm_kit.policy import Policy
    from prm_kit.prm_scorer import PrmScorer

    policy = Policy.load(folder)
    torch.manual_seed(1)
    return PrmScorer(Prm.from_backbone(policy.model, policy.tokenizer))


def forwarded(scorer, solutions) -> float:
    """CPU-seconds of the PRM's bare forwards over the distinct tokens of these solutions, prepared beforehand."""
    import torch

    from prm_kit.pack import prefix_groups, prefix_tree, prefix_tree_attention

    distinct = list({one.id: one for one in solutions}.values())
    ids = [one.ids for one in scorer.prm.encoder.encode(distinct)]
    trees = [prefix_tree([ids[i] for i in group]) for group in prefix_groups(ids, 1024)]
    with torch.inference_mode(), prefix_tree_attention(scorer.prm.model):
        start = time.process_time()
        for tree in trees:
            scorer.prm.trunk(
                input_ids=tree.ids[None], position_ids=tree.position_ids[None], use_cache=False, prefix_tree=tree
            )
        return time.process_time() - start


def arm_trl(folder: Path, updates: int) -> dict:
    """Runs in TRL's own environment: nothing of prm-kit is imported."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(1)

    def reward(prompts, completions, completion_ids, **_) -> list[float]:
        assert {len(ids) for ids in completion_ids} == {NEW_TOKENS}
        return [score(list(ids)) for ids in completion_ids]

    with tempfile.TemporaryDirectory() as out:
        arguments = GRPOConfig(
            output_dir=out,
            per_device_train_batch_size=PROBLEMS * GROUP,
            num_generations=GROUP,
            max_completion_length=NEW_TOKENS,
            generation_kwargs={"eos_token_id": None},
            max_steps=updates,
            learning_rate=1e-6,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=reward,
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": text} for text in prompts(64)]),
            processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
        )
        clock = Clock()

        class Told(TrainerCallback):
            def on_step_begin(self, *_, **__) -> None:
                if not clock.updates:
                    clock.start = time.process_time()

            def on_step_end(self, *_, **__) -> None:
                clock.update()

        trainer.add_callback(Told())
        trainer._generate = clock.timed("generation", trainer._generate)
        name = "_get_per_token_logps_and_entropies"
        setattr(trainer, name, clock.timed("log-probabilities", getattr(trainer, name)))
        trainer.train()
    found = clock.figures()
    return {**found, "update": found["all"] - found["generation"] - found["log-probabilities"]}


ARMS = {
    "TRL": arm_trl,
    "prm-kit": arm_prm_kit,
    "prm-kit, prompts apart": lambda folder, updates: arm_prm_kit(folder, updates, share=False),
    "prm-kit + PRM": lambda folder, updates: arm_prm_kit(folder, updates, prm=True),
    "prm-kit, critic": lambda folder, updates: arm_prm_kit(folder, updates, algorithm="ppo"),
}
PHASES = ("generation", "scoring", "log-probabilities", "update", "all")


def run_arm(python: str, name: str, folder: Path, updates: int) -> dict:
    done = subprocess.run(
        [python, __file__, "--arm", name, "--folder", str(folder), "--updates", str(updates)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": "" if name == "TRL" else str(Path(__file__).parent.parent),
            "TOKENIZERS_PARALLELISM": "false",
        },
    )
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(asked: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder, asked.vocabulary)
        chosen = [arm for arm in asked.arms.split(";") if asked.trl_python or arm != "TRL"]
        rounds = []
        for number in range(asked.rounds):
            order = chosen[number % len(chosen) :] + chosen[: number % len(chosen)]
            python = {arm: asked.trl_python if arm == "TRL" else sys.executable for arm in order}
            rounds.append({arm: run_arm(python[arm], arm, folder, asked.updates) for arm in order})
    base = chosen[0]
    print(f"vocabulary {asked.vocabulary}, {asked.rounds} rounds; seconds of CPU an update, and {base}'s / the arm's")
    print(f"{'':24}" + "".join(f"{phase:>24}" for phase in PHASES) + f"{'peak MB':>10}")
    for arm in chosen:
        cells = []
        for phase in PHASES:
            seconds = statistics.median(one[arm].get(phase, 0.0) for one in rounds)
            ratios = [one[base].get(phase, 0.0) / one[arm][phase] for one in rounds if one[arm].get(phase)]
            spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}..{max(ratios):.2f}]" if ratios else "-"
            cells.append(f"{seconds:7.3f} {spread:>16}")
        peak = statistics.median(one[arm]["peak"] for one in rounds)
        print(f"{arm:24}" + "".join(cells) + f"{peak:10.0f}")
        if bare := [one[arm]["scoring / bare forward"] for one in rounds if "scoring / bare forward" in one[arm]]:
            print(f"{'':24}scoring is {statistics.median(bare):.2f} bare forwards of the distinct tokens")
    if asked.json:
        asked.json.write_text(json.dumps(rounds, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", help="interpreter of an environment with TRL 1.16.0")
    parser.add_argument("--vocabulary", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--arms", default=";".join(ARMS), help="separated by semicolons; the first is the base")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.arm:
        print(json.dumps(ARMS[asked.arm](asked.folder, asked.updates)))
        return
    compare(asked)


if __name__ == "__main__":
    main()
