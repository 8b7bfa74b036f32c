"""What `prm-kit label judge` does, stage by stage."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from prm_kit.errors import PrmKitError, UsageError

if TYPE_CHECKING:
    from labeling.judge.labeler import JudgeLabeler
    from labeling.judge.run import Outcome
    from labeling.judge.session import Connection, Session
    from labeling.judge.settings import JudgeSettings
    from labeling.judge.structured import Form
    from pipelines.output import Output
    from prm_kit.records import Solution

MIXED_AT_ONCE = 20_000
"""Solutions that are shuffled together: a run that a limit stops has then labelled a sample, not the first source."""


def judge_settings(model: str, votes: int, overrides: Sequence[str]) -> JudgeSettings:
    """Settings from the command line.

    Raises:
        UsageError: An unknown key or a wrong value.
    """
    from labeling.judge.settings import JudgeSettings
    from prm_kit.settings import apply_override, validated

    values: dict[str, Any] = {"model": model, "votes": votes}
    for override in overrides:
        apply_override(values, override)
    return validated(JudgeSettings, values, "--set")


class Judging:
    """One run of the verb.

    Args:
        connection: How the model is reached.
        prompt: Name or file of the prompt.
        language: Of the prompt.
        structured: A form of answers, or "auto".
        settings: How the model is asked.
        currency: Of the prices.
        out: The run's directory.
        ledger: Where the annotations go; None: OUT/ledger.sqlite.

    Raises:
        UsageError: There is no such prompt, or it has no such form.
    """

    def __init__(
        self,
        connection: Connection,
        prompt: str,
        language: str,
        structured: str,
        settings: JudgeSettings,
        currency: str,
        out: Path,
        ledger: Path | None,
    ) -> None:
        from labeling.judge.prompt import load_prompt
        from labeling.judge.structured import forms_for
        from prm_kit.run_directory import RunDirectory

        self.connection = connection
        self.prompt = load_prompt(prompt, language)
        self.settings = settings
        self.currency = currency
        self.ledger = ledger or out / "ledger.sqlite"
        self.run = RunDirectory(out)
        self.snapshots: list[Path] = []
        self._structured = structured
        self._forms = forms_for(self.prompt.file.asks, structured)
        self._seed = 0
        self._limit: int | None = None
        self._stopped: BaseException | None = None

    def start(self, inputs: Sequence[Path], seed: int, limit: int | None, output: Output) -> None:
        """Import the inputs and record what is about to run. The key is not part of it."""
        from pipelines.data import snapshots_of

        self._seed, self._limit = seed, limit
        recipe = {
            "label": "judge",
            "inputs": [str(path) for path in inputs],
            "ledger": str(self.ledger),
            "base_url": self.connection.endpoint.base_url,
            "prompt": self.prompt.version,
            "prompt_sha256": self.prompt.sha256,
            "structured": self._structured,
            "seed": seed,
            "limit": limit,
            **self.settings.model_dump(),
        }
        self.run.start(recipe)
        with output.progress() as progress:
            self.snapshots = snapshots_of(inputs, self.run.path / "imported", progress)

    def write_batch(self, folder: Path) -> dict[str, Any]:
        """Write batch files with what there is to ask."""
        from labeling.judge.batch import write_batch

        labeler = self._labeler(self._form())
        return {"batch_out": str(folder), **write_batch(labeler, self._todo(labeler), folder)}

    def read_batch(self, files: Sequence[Path]) -> dict[str, int] | None:
        """Read results of a batch into the store of answers, whatever is labelled by now; None where there are none."""
        from labeling.judge.batch import read_batch
        from pipelines.data import solutions

        if not files:
            return None
        labeler = self._labeler(self._form())
        return read_batch(labeler, solutions(self.snapshots), files)

    def estimate(self) -> dict[str, Any]:
        """What is to come."""
        from labeling.judge.estimate import estimate

        labeler = self._labeler(self._form())
        return estimate(labeler, self._todo(labeler)).summary(self.connection.price, self.currency)

    def agree(self, estimate: dict[str, Any], yes: bool) -> None:
        """Ask whether to spend, where spending is possible: not on this machine, or with a price.

        Raises:
            UsageError: Nobody can be asked, and no limit was set either.
        """
        connection = self.connection
        free = connection.endpoint.local and connection.price is None
        if yes or free or connection.offline or not estimate["calls"]:
            return
        if sys.stdin.isatty() and sys.stderr.isatty():
            typer.confirm("Ask the model?", abort=True, err=True)
        elif not connection.ceilings.any:
            raise UsageError(
                f"{estimate['calls']} calls to {connection.endpoint.base_url} would be made: give a limit (--max-cost, "
                "--max-tokens, --max-calls) or --yes"
            )

    def label(self, output: Output, compare_with: str, to_do: int) -> dict[str, Any]:
        """Label what is not labelled yet, `to_do` solutions; say at the end what this rater says of all of it."""
        from labeling.coverage import label_report
        from prm_kit.interruption import InterruptedSafelyError, Interruption
        from prm_kit.ledger import Ledger
        from prm_kit.view import View

        with self.run.timed("probe"):
            labeler = self._labeler(self._probed())
        with Ledger(self.ledger) as ledger:
            done = ledger.labelled_by(labeler.rater)
        window = self.connection.most_uncommitted
        output.say(
            f"a killed run asks again at most {window} answers that were not committed yet, and those in flight "
            f"(at most {self.connection.concurrency})"
        )
        with output.progress() as progress, Interruption() as interruption, self.run.timed("label judge"):

            def show(labelled: int, session: Session) -> None:
                progress("label judge", len(done) + labelled, len(done) + to_do, self._note(session))

            outcome = self._run(labeler, show, lambda: interruption.asked)
        if outcome.interrupted:
            self._stopped = InterruptedSafelyError("stopped as asked; the same command goes on from here")
        self._stopped = outcome.limit or self._stopped
        reference = (pair.annotation for pair in View(self.snapshots).labelled(rater_kinds=[compare_with]))
        with Ledger(self.ledger) as ledger:
            said = (annotation for annotation in ledger.current() if annotation.rater == labeler.rater)
            report = label_report(said, reference)
        return {
            "rater": {"name": labeler.rater.name, "version": labeler.rater.version},
            "form": labeler.form,
            "already_labelled": len(done),
            **outcome.counts(),
            "window": window,
            "spent": self._spent(outcome),
            "stopped": None if self._stopped is None else str(self._stopped),
            **report,
        }

    def finish(self, summary: dict[str, Any], output: Output) -> None:
        """Write the summary; then end as the run ended.

        Raises:
            LimitReachedError: A limit ended it.
            InterruptedSafelyError: Somebody did.
            PrmKitError: Some solutions got no answer.
        """
        self.run.finish(summary)
        for key, value in summary.items() if not output.as_json else ():
            output.say(f"{key}: {value}")
        output.summary(self.run.path / "summary.json")
        if self._stopped is not None:
            raise self._stopped
        left = {kind: n for kind, n in summary.get("unanswered", {}).items() if kind != "not in store"}
        if left:
            raise PrmKitError(f"{sum(left.values())} solutions got no answer {left}; the same command asks again")

    def _run(self, labeler: JudgeLabeler, show: Any, stop: Any) -> Outcome:
        from labeling.judge.run import judge_into

        return asyncio.run(judge_into(labeler, self._todo(labeler), self.ledger, show, stop))

    def _todo(self, labeler: JudgeLabeler) -> Iterator[Solution]:
        """Solutions that the rater has not labelled, in an order that depends on the seed only."""
        from pipelines.data import solutions
        from prm_kit.ledger import Ledger

        with Ledger(self.ledger) as ledger:
            done = ledger.labelled_by(labeler.rater)
        todo = (solution for solution in mixed(solutions(self.snapshots), self._seed) if solution.id not in done)
        return islice(todo, self._limit)

    def _form(self) -> Form:
        """The form that an earlier run found, if it is one of those asked for; else the first of them."""
        from labeling.judge.probe import noted_form

        noted = noted_form(self.connection, self.prompt, self.settings.model)
        return noted if noted in self._forms else self._forms[0]

    def _probed(self) -> Form:
        """The same, tried once at the endpoint."""
        from labeling.judge.probe import noted_form, probe

        noted = noted_form(self.connection, self.prompt, self.settings.model)
        if self.connection.offline or noted in self._forms:
            return self._form()
        return asyncio.run(probe(self.connection, self.prompt, self.settings, self._forms))

    def _labeler(self, form: Form) -> JudgeLabeler:
        from labeling.judge.labeler import JudgeLabeler

        return JudgeLabeler(self.connection, self.prompt, self.settings, form)

    def _note(self, session: Session) -> str:
        budget, limit = session.client.budget, session.client.limit
        cost = "" if budget.cost is None else f", {budget.cost:.4f} {self.currency}"
        tokens = f"{budget.spent.calls} calls, {budget.spent.tokens} tokens{cost}"
        failed = sum(session.client.retries.values())
        return f"{limit.in_flight} in flight (limit {int(limit.limit)}), {tokens}, {failed} failed attempts"

    def _spent(self, outcome: Outcome) -> dict[str, Any]:
        from labeling.judge.budget import summary

        return dict(summary(outcome.spent, self.connection.price, self.currency))


def mixed(solutions: Iterable[Solution], seed: int) -> Iterator[Solution]:
    """The solutions in a random order, 20,000 at a time."""
    rng = random.Random(seed)  # noqa: S311 - an order, no secret
    rest = iter(solutions)
    while held := list(islice(rest, MIXED_AT_ONCE)):
        rng.shuffle(held)
        yield from held
