"""The quickstart: from nothing to a trained and evaluated PRM, offline, on the embedded arithmetic task.

OUT/
  policy/                a tiny policy, taught by demonstrations that forget carries
  data/train,dev,test    its sampled solutions, split into steps, labelled by the task's program: snapshots
  prm/, orm/             the training runs of the PRM and of the ORM of the same backbone and data
  checkpoint/            the PRM
  evaluation.json, report.html, summary.json

Every stage is a function from folders to a folder; one that is done is not redone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Output
from prm_kit.files import whole_directory, write_json
from prm_kit.records import Annotation, Labelled
from prm_kit.run_directory import RunDirectory

if TYPE_CHECKING:
    from pipelines.quickstart_settings import QuickstartSettings
    from prm_kit.tasks.arithmetic import ArithmeticTask

Progress = Callable[..., None]
"""Called with (stage, parts of it done, parts in all) and, where there is more to say, a note."""

STAGES = ("policy", "solutions", "models", "evaluation")

MODELS = ("prm", "orm")

BEFORE, AFTER, ORM = "PRM before training", "PRM", "ORM"


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory.")] = Path("runs/quickstart"),
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Teach a tiny policy arithmetic, label its solutions, train a PRM on them, and measure it on unseen problems."""
    # Nothing is downloaded here, and bars of a hundredth of a second only hide our own.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    output = Output(as_json)
    with output.progress() as progress:
        summary = run_quickstart(out, seed, progress)
    for line in () if as_json else told(summary):
        output.say(line)
    output.summary(out / "summary.json")


def told(summary: dict[str, Any]) -> list[str]:
    """The summary in a few lines; the whole evaluation is in the report."""
    figures = {"PRM after training": summary["prm"]["after"], "PRM before training": summary["prm"]["before"]}
    lines = [f"{figures['PRM after training']['metric']} on unseen problems:"]
    lines += [
        f"  {name:28} {figure['value']:.3f}   (95 %: {figure['low']:.3f} to {figure['high']:.3f})"
        for name, figure in (figures | summary["baselines"]).items()
    ]
    return [*lines, f"These are figures of {summary['figures_are_of']}.", "All tables and figures: report.html"]


def run_quickstart(
    out: Path, seed: int = 0, progress: Progress | None = None, settings: QuickstartSettings | None = None
) -> dict[str, Any]:
    """Run all stages; a run that was stopped goes on with the stage that it stopped in.

    Args:
        out: The run's directory.
        seed: Of everything; it replaces the one in `settings`.
        progress: See `Progress`.
        settings: Sizes and learning rates; None: the defaults.

    Returns:
        The summary, as in OUT/summary.json.

    Raises:
        UsageError: OUT holds a run of other settings.
    """
    import torch

    from pipelines.quickstart_settings import QuickstartSettings
    from prm_kit.training_state import check_same_inputs

    settings = (settings or QuickstartSettings()).model_copy(update={"seed": seed})
    tell = progress or (lambda *_: None)
    run = RunDirectory(out)
    check_same_inputs(out / "inputs.json", {"quickstart": settings.model_dump()})
    if (out / "summary.json").exists():
        done: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        return done
    run.start({"quickstart": settings.model_dump()})
    (out / "metrics.jsonl").unlink(missing_ok=True)
    clock = _Clock(run)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # models this small only lose by sharing their work out
    try:
        with clock.stage("policy"):
            run.log(stage="policy", **train_policy(settings, out / "policy", tell))
        with clock.stage("solutions"):
            counts = make_solutions(settings, out / "policy" / "checkpoint", out / "data", tell)
            run.log(stage="solutions", **counts)
        with clock.stage("models"):
            for name, trained in train_models(settings, out, tell).items():
                run.log(stage=name, updates=trained["updates"], tokens=trained["tokens"])
        with clock.stage("evaluation"):
            tell("evaluation", 0, 1)
            data, picked = evaluate_models(settings, out)
            write_outcome(out, data)
            tell("evaluation", 1, 1)
    finally:
        torch.set_num_threads(threads)
    summary = summarise(settings, data, picked, counts) | clock.seconds()
    run.log(stage="evaluation", **{key: summary[key] for key in ("prm", "baselines", "best_of_n")})
    run.finish(summary)
    return summary


def train_policy(settings: QuickstartSettings, folder: Path, tell: Progress) -> dict[str, Any]:
    """Teach an untrained policy to imitate demonstrations; leaves FOLDER/checkpoint."""
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
            batch_tokens=settings.batch_tokens,
            micro_batch_tokens=_micro(settings),
            bucket_updates=1,  # updates of one length each hinder this task's learning
            learning_rate=settings.policy_learning_rate,
            decay_from=0.6,
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


def train_models(settings: QuickstartSettings, out: Path, tell: Progress) -> dict[str, dict[str, Any]]:
    """Train the PRM and the ORM side by side: models this small use one core each.

    Returns:
        The summaries of both runs, by name.
    """
    with ProcessPoolExecutor(len(MODELS), multiprocessing.get_context("spawn"), initializer=_use_one_thread) as pool:
        jobs = {name: pool.submit(train_model, name, settings, out) for name in MODELS}
        running: Collection[Future[dict[str, Any]]] = jobs.values()
        while running:
            updates = sum(RunDirectory(out / name).metrics_lines() for name in MODELS)
            tell("models", len(MODELS) - len(running), len(MODELS), f"{updates} updates")
            running = wait(running, timeout=2).not_done
        tell("models", len(MODELS), len(MODELS))
        return {name: job.result() for name, job in jobs.items()}


def train_model(name: str, settings: QuickstartSettings, out: Path) -> dict[str, Any]:
    """Train the PRM ("prm") or the ORM ("orm") from the policy's weights; leaves OUT/NAME/checkpoint."""
    from prm_kit.train import train
    from prm_kit.train_settings import TrainSettings

    return train(
        TrainSettings(
            backbone=str(out / "policy" / "checkpoint"),
            target="steps" if name == "prm" else "outcome",
            epochs=settings.prm_epochs,
            batch_tokens=settings.batch_tokens,
            micro_batch_tokens=_micro(settings),
            learning_rate=settings.prm_learning_rate,
            schedule="linear",
            device="cpu",
            seed=settings.seed,
        ),
        read_labelled(out / "data" / "train"),
        read_labelled(out / "data" / "dev"),
        out / name,
    )


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def evaluate_models(settings: QuickstartSettings, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score the test solutions with the PRM before and after training and with the ORM.

    Returns:
        What `prm_kit.evaluate` says, with thresholds from the development problems, and the best-of-n figures.
    """
    from prm_kit.evaluate.evaluation import DevSplit, evaluate
    from prm_kit.model import Prm
    from prm_kit.prm_scorer import PrmScorer

    train, dev, test = (read_labelled(out / "data" / split) for split in ("train", "dev", "test"))
    models = {
        AFTER: Prm.load(out / "prm" / "checkpoint"),
        BEFORE: Prm.from_backbone(out / "policy" / "checkpoint", seed=settings.seed),
        ORM: Prm.load(out / "orm" / "checkpoint"),
    }
    scorers = [PrmScorer(prm, name=name) for name, prm in models.items()]
    dev_scores = {scorer.name: scorer.score([item.solution for item in dev]) for scorer in scorers}
    scores = {scorer.name: scorer.score([item.solution for item in test]) for scorer in scorers}
    data = evaluate(
        test,
        scores,
        name="arithmetic, unseen problems",
        dev=DevSplit("development problems", dev, dev_scores),
        train=train,
        baselines=(BEFORE, ORM),
        about={"task": "arithmetic (embedded)", "seed": settings.seed, "labels": "the task's program, exact"},
        seed=settings.seed,
    )
    return data, rerank(test, scores, settings.seed)


def rerank(labelled: Sequence[Labelled], scores: dict[str, Any], seed: int) -> dict[str, Any]:
    """Best-of-n figures: every sample counts, also one that was sampled twice."""
    from prm_kit.aggregate import solution_score
    from prm_kit.evaluate.best_of_n import Candidate, best_of_n

    candidates = []
    for item, prm, orm in zip(labelled, scores[AFTER], scores[ORM], strict=True):
        solution = item.solution
        numbers = {
            "PRM product": solution_score(prm, "product") or 0.0,
            "PRM min": solution_score(prm, "min") or 0.0,
            "ORM": solution_score(orm, "last") or 0.0,
        }
        candidate = Candidate(solution.problem, solution.final_answer, bool(solution.is_correct), numbers)
        candidates += [candidate] * len(solution.meta["samples"])
    return best_of_n(candidates, seed=seed)


def write_outcome(out: Path, data: dict[str, Any]) -> None:
    """Leave the evaluation, the report, and the PRM under OUT/checkpoint."""
    from prm_kit.report.html import write_report

    write_json(out / "evaluation.json", data)
    write_report(out / "report.html", data)
    with whole_directory(out / "checkpoint") as part:
        shutil.copytree(out / "prm" / "checkpoint", part, dirs_exist_ok=True)


def summarise(
    settings: QuickstartSettings, data: dict[str, Any], picked: dict[str, Any], counts: dict[str, Any]
) -> dict[str, Any]:
    """The figures a reader asks for first; everything else is in evaluation.json."""
    titles = {
        "f1_mean": "ProcessBench F1",
        "auroc_wrong": "AUROC of wrong steps",
        "macro_f1": "macro-F1 of {-1, 0, +1}",
    }

    def figure(scorer: str, metric: str) -> dict[str, Any]:
        table = data["first_error" if metric == "f1_mean" else "steps"][scorer]
        return {"metric": titles[metric], **table[metric]}

    def figures(scorer: str) -> dict[str, Any]:
        return figure(scorer, "f1_mean") | {key: figure(scorer, key) for key in ("auroc_wrong", "macro_f1")}

    return {
        "task": "arithmetic",
        "seed": settings.seed,
        "figures_are_of": (
            f"{counts['test']['different_solutions']} sampled solutions of {settings.test_problems} problems that "
            "nothing was trained or chosen on; 95 % intervals over problems; one training run with one seed, so they "
            "say how far this run got and not how methods compare"
        ),
        "prm": {"before": figures(BEFORE), "after": figures(AFTER), "gain": data["differences"][BEFORE]["f1_mean"]},
        "baselines": {
            scorer["name"]: figures(scorer["name"])
            for scorer in data["scorers"]
            if scorer["name"] not in (BEFORE, AFTER)
        },
        "best_of_n": picked,
        "data": counts,
        "warnings": data["warnings"],
    }


def read_labelled(snapshot: Path) -> list[Labelled]:
    """The solutions of a snapshot, each with its one annotation, in the order written."""
    from prm_kit.view import View

    return list(View([snapshot]).labelled())


def _micro(settings: QuickstartSettings) -> int:
    """Half an update more: most updates go through the model at once, those that would be much padded in two parts."""
    return settings.batch_tokens * 3 // 2


class _Clock:
    """Wall seconds of each stage, and wall and CPU seconds of all, child processes included."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.wall: dict[str, float] = {}
        self.started = time.perf_counter(), sum(os.times()[:4])

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        before = time.perf_counter()
        with self.run.timed(name):
            yield
        self.wall[name] = round(time.perf_counter() - before, 1)

    def seconds(self) -> dict[str, Any]:
        wall, cpu = self.started
        return {
            "seconds": round(time.perf_counter() - wall, 1),
            "cpu_seconds": round(sum(os.times()[:4]) - cpu, 1),
            "stage_seconds": self.wall,
        }
