"""The policy, and the solutions that it writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_kit.files import whole_directory
from prm_kit.records import Annotation, Labelled

if TYPE_CHECKING:
    from pipelines.quickstart.settings import Progress, QuickstartSettings
    from prm_kit.tasks.arithmetic import ArithmeticTask


def train_policy(settings: QuickstartSettings, folder: Path, tell: Progress) -> dict[str, Any]:
    """Teach an untrained policy to imitate demonstrations; leaves FOLDER/checkpoint."""
    from pipelines.quickstart.settings import micro_batch_tokens
    from prm_kit.policy import Policy
    from prm_kit.sft import fine_tune
    from prm_kit.sft_settings import SftSettings
    from prm_kit.tasks.arithmetic import ArithmeticTask
    from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer

    task = ArithmeticTask()
    tell("policy", 0, 1)
    untrained = folder / "untrained"
    if not untrained.exists():
        with whole_directory(untrained) as part:
            Policy.of(arithmetic_policy(settings.seed), arithmetic_tokenizer()).save(part)
    summary = fine_tune(
        SftSettings(
            policy=str(untrained),
            batch_tokens=settings.policy_batch_tokens,
            micro_batch_tokens=micro_batch_tokens(settings.policy_batch_tokens),
            bucket_updates=1,  # updates of one length each hinder this task's learning
            learning_rate=settings.policy_learning_rate,
            decay_from=0.75,  # when sums are learnt differs from seed to seed; a rate that falls before is too late
            checkpoint_every=100,
            device="cpu",
            seed=settings.seed,
        ),
        task.demonstrations("train", settings.demonstrations, settings.seed),
        task.demonstrations("dev", 200, settings.seed),
        folder,
        progress=lambda done, total, line: tell("policy", done, total),
    )
    return {key: summary[key] for key in ("updates", "tokens", "dev")}


def make_solutions(settings: QuickstartSettings, policy: Path, folder: Path, tell: Progress) -> dict[str, Any]:
    """Sample solutions of train, dev and test problems, split and label them; leaves one snapshot per split.

    The training problems are others than those of the demonstrations.
    """
    from prm_kit.tasks.arithmetic import ArithmeticTask

    task = ArithmeticTask()
    wanted = {
        "train": (settings.train_problems, settings.train_samples),
        "dev": (settings.dev_problems, settings.samples),
        "test": (settings.test_problems, settings.samples),
    }
    counts: dict[str, Any] = {}
    for number, (split, (n_problems, n_samples)) in enumerate(wanted.items()):
        tell("solutions", number, len(wanted))
        if not (folder / split / "manifest.json").exists():
            sample_snapshot(settings, task, split, n_problems, n_samples, policy, folder / split)
        found = read_labelled(folder / split)
        labels = [label.value for item in found for label in item.annotation.labels]
        counts[split] = {
            "problems": n_problems,
            "samples": n_problems * n_samples,
            "different_solutions": len(found),
            "right": sum(len(item.solution.meta["samples"]) for item in found if item.solution.is_correct),
            "labels": {str(value): labels.count(value) for value in (-1, 0, 1)},
        }
    tell("solutions", len(wanted), len(wanted))
    return counts


def sample_snapshot(
    settings: QuickstartSettings,
    task: ArithmeticTask,
    split: Any,
    n_problems: int,
    n_samples: int,
    policy_path: Path,
    folder: Path,
) -> None:
    """Sample one split's solutions from the policy into a snapshot, each with the program's labels.

    A solution that was sampled more than once is stored once; `meta.samples` has the numbers of its samples.
    """
    from prm_kit.engines.engine import Limits
    from prm_kit.engines.transformers_engine import TransformersEngine
    from prm_kit.policy import Policy
    from prm_kit.snapshot import SnapshotWriter
    from prm_kit.split import split_solution
    from prm_kit.tasks.arithmetic import final_answer

    policy = Policy.load(policy_path)
    taught = settings.demonstrations if split == "train" else 0
    problems = task.problems(split, taught + n_problems, settings.seed)[taught:]
    limits = Limits(settings.max_new_tokens, policy.stop_ids, seed=settings.seed)
    groups = TransformersEngine(policy.model).generate(
        policy.prompt_ids([problem.text for problem in problems]), n_samples, limits
    )
    with SnapshotWriter(folder, name=f"{task.name}-{split}", format="sampled") as writer:
        for problem, rollouts in zip(problems, groups, strict=True):
            samples: dict[str, list[int]] = {}
            for number, rollout in enumerate(rollouts):
                samples.setdefault(policy.text(rollout), []).append(number)
            for completion, numbers in samples.items():
                solution = split_solution(
                    problem.text,
                    completion,
                    "newline",
                    attached=False,
                    max_step_tokens=None,
                    final_answer=final_answer(completion),
                    reference_answer=problem.reference_answer,
                    is_correct=task.verify(problem, completion),
                    generator="quickstart policy",
                    source=task.name,
                    meta={"split": split, "samples": numbers},
                )
                writer.add(solution, [Annotation.of(solution, task.rater, task.label_steps(solution))])


def read_labelled(snapshot: Path) -> list[Labelled]:
    """The solutions of a snapshot, each with its one annotation, in the order written."""
    from prm_kit.view import View

    return list(View([snapshot]).labelled())
