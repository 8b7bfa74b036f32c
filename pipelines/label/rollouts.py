"""`prm-kit label rollouts`: a policy goes on from each prefix, and what it reaches labels the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.output import Json, Out, Output

if TYPE_CHECKING:
    from labeling.budgeted import Budgeted
    from labeling.continuations import Judge
    from labeling.rollout_settings import RolloutSettings
    from prm_kit.ledger import Ledger
    from prm_kit.records import Annotation

WINDOW = 32
"""Solutions per transaction: what a killed run labels again, at most."""


def rollouts(
    inputs: Annotated[list[Path], typer.Argument(help="Snapshot directories, or files that `prm-kit import` reads.")],
    policy: Annotated[Path, typer.Option(help="Directory of the policy: a Hugging Face causal model.")],
    out: Out,
    method: Annotated[str, typer.Option(help="hard, soft, or omega (first error by binary search).")] = "hard",
    samples: Annotated[int, typer.Option(help="Rollouts of each prefix.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(help="Longest rollout, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(help="Of the sampling.")] = 1.0,
    threshold: Annotated[float, typer.Option(help="+1 if more than this share reaches the answer.")] = 0.0,
    truncated: Annotated[str, typer.Option(help="A rollout that ran too long counts as missed, or is left_out.")] = (
        "missed"
    ),
    explore: Annotated[int, typer.Option(help="omega: search so many wrong rollouts of each problem too.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    task: Annotated[str | None, typer.Option(help="Judge answers by this task's verifier, not by reference.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the rater; default: the policy's folder.")] = None,
    ledger: Annotated[Path | None, typer.Option(help="Ledger to write to; default OUT/ledger.sqlite.")] = None,
    max_rollouts: Annotated[int | None, typer.Option(help="Most rollouts of this run.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most sampled tokens of this run.")] = None,
    window: Annotated[int, typer.Option(min=1, help="Solutions per commit: what a killed run does again.")] = WINDOW,
    rows: Annotated[int, typer.Option(min=1, help="Rollouts decoded at once; bounds the memory.")] = 256,
    compare_with: Annotated[str, typer.Option(help="Kind of the raters in the inputs to compare with.")] = "human",
    as_json: Json = False,
) -> None:
    """Label steps by what a policy reaches from them; run the same command again to resume."""
    from labeling.rollout_settings import RolloutSettings
    from pipelines.data import snapshots_of
    from prm_kit.errors import LimitReachedError
    from prm_kit.ledger import Ledger
    from prm_kit.run_directory import RunDirectory
    from prm_kit.settings import validated

    asked = {
        "method": method,
        "samples": samples,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "threshold": threshold,
        "truncated": truncated,
        "explore": explore,
        "seed": seed,
    }
    settings = validated(RolloutSettings, asked, "command line")
    output, run, path = Output(as_json), RunDirectory(out), ledger or out / "ledger.sqlite"
    about = {"policy": str(policy), "task": task, "ledger": str(path), **asked}
    run.start({"label": "rollouts", "inputs": [str(i) for i in inputs], **about})
    with output.progress() as progress, ExitStack() as stack:
        labeler = _labeler(stack, policy, name, settings, task, rows, max_rollouts, max_tokens)
        snapshots = snapshots_of(inputs, out / "imported", progress)
        with run.timed("label rollouts"):
            report = label_by_rollouts(labeler, snapshots, Ledger(path), compare_with, window, progress)
    run.finish(report)
    output.figures(report)
    output.summary(out / "summary.json")
    if labeler.stopped:
        raise LimitReachedError(
            f"the budget is used up: {report['rollouts']['rollouts']} rollouts, {report['rollouts']['tokens']} tokens, "
            f"and the next solution might need more than is left; run again to label the rest"
        )


def label_by_rollouts(
    labeler: Budgeted,
    snapshots: list[Path],
    ledger: Ledger,
    compare_with: str,
    window: int,
    progress: Callable[[str, int, int | None, str], None],
) -> dict[str, Any]:
    """Let rollouts label every solution that this rater has not labelled yet, as far as the budget goes.

    Returns:
        How many were labelled before and now, how many were passed over and why, what was sampled, and the report on
        the new annotations.
    """
    from labeling.coverage import label_report
    from pipelines.data import solutions
    from pipelines.label.into import label_into
    from prm_kit.view import View

    reference = (pair.annotation for pair in View(snapshots).labelled(rater_kinds=[compare_with]))
    done = ledger.labelled_by(labeler.rater)
    every = iter(solutions(snapshots))

    def new() -> Iterator[Annotation]:
        while True:
            todo = labeler.admitted(every, done)
            made = 0
            for annotation in label_into(labeler, todo, ledger, done, progress, window, labeler.explored):
                yield annotation
                made += 1
            if not made:
                return

    report = label_report(new(), reference)
    return {
        "rater": {"name": labeler.rater.name, "version": labeler.rater.version},
        "already_labelled": len(done),
        "labelled": report["solutions"],
        "explored": labeler.explorations,
        "passed_over": dict(labeler.passed_over),
        "stopped_by_budget": labeler.stopped,
        "window": window,
        "rollouts": labeler.spent_so_far(),
        **report,
    }


def _labeler(
    stack: ExitStack,
    folder: Path,
    name: str | None,
    settings: RolloutSettings,
    task: str | None,
    rows: int,
    max_rollouts: int | None,
    max_tokens: int | None,
) -> Budgeted:
    """The labeller over the policy in a folder, on CUDA if there is a device."""
    import torch

    from labeling.budgeted import Budgeted
    from labeling.continuations import Continuations
    from labeling.omega import OmegaLabeler
    from labeling.rollouts import RolloutLabeler
    from pipelines.label.checkpoint import checkpoint_name, checkpoint_version
    from prm_kit.engines.transformers_engine import TransformersEngine
    from prm_kit.policy import Policy
    from prm_kit.records import Rater

    version = settings.version(checkpoint_version(folder), task or "reference")
    called = checkpoint_name(folder, name)
    # A method is another rater: shares without values do not take back the labels that stand beside them.
    rater = Rater("rollout", called if settings.method == "hard" else f"{called} {settings.method}", version)
    policy = Policy.load(folder, "cuda" if torch.cuda.is_available() else "cpu")
    context = getattr(policy.model.config, "max_position_embeddings", None)
    engine = TransformersEngine(policy.model, max_rows=rows)
    continuations = Continuations(policy, engine, _judge(stack, task), settings, context)
    kind = OmegaLabeler if settings.method == "omega" else RolloutLabeler
    return Budgeted(
        kind(continuations, rater),
        continuations.spent,
        settings,
        max_rollouts=max_rollouts,
        max_tokens=max_tokens,
        needs_reference=task is None,
    )


def _judge(stack: ExitStack, task: str | None) -> Judge:
    from labeling.continuations import judge_by
    from prm_kit.answers import AnswerChecker
    from prm_kit.records import Problem
    from prm_kit.tasks.registry import open_task

    if task is None:
        return judge_by(stack.enter_context(AnswerChecker()))
    opened = open_task(task)
    if hasattr(opened, "close"):
        stack.callback(opened.close)
    return lambda solution, completion: opened.verify(
        Problem(solution.problem, solution.reference_answer, solution.meta), completion
    )
