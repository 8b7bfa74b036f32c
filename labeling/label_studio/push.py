"""Solutions to a project: stable identity, so that pushing twice adds nothing; safe against a server that restarts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from labeling.label_studio.interface import Page, prediction
from labeling.label_studio.studio import (
    KnownTask,
    NewTask,
    Project,
    Studio,
    StudioDownError,
    wait_until_healthy,
)
from labeling.label_studio.tasks import tasks_of
from prm_kit.errors import InputError
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Solution

Answer = TypeVar("Answer")

BATCH = 250
"""Tasks in one request, about."""

ATTEMPTS = 5
"""How often one batch is sent while the server keeps breaking off."""

BATCH_BYTES = 20_000_000
"""Size of one request, about; the server refuses more than ten times as much."""


@dataclass
class Pushed:
    """What a push did.

    Attributes:
        project: The server's number of the project.
        solutions: Solutions looked at.
        tasks: Tasks they make: windows.
        added: Tasks that were added now.
        known: Tasks that were there, as they would be pushed today.
        differing: Ids of tasks that were there but show something else than today's page would (a reference answer
            was corrected, or another version of prm-kit pushed them). They stay as they are.
        predictions: Tasks that got a prediction now.
        skipped: Reasons why solutions could not be pushed, by id.
        retries: How often the server broke off.
        duplicates_removed: Tasks that came twice because it did, and were removed.
    """

    project: int
    solutions: int = 0
    tasks: int = 0
    added: int = 0
    known: int = 0
    differing: list[str] = field(default_factory=list)
    predictions: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    retries: int = 0
    duplicates_removed: int = 0


def push(
    studio: Studio,
    project: Project,
    page: Page,
    solutions: Iterable[Solution],
    ledger: Ledger,
    predictions: Mapping[str, Annotation] | None = None,
    progress: Callable[[str, int, int | None, str], None] = lambda *_: None,
    batch: int = BATCH,
    patience: float = 180.0,
) -> Pushed:
    """Add every solution that the project does not have, in the order given: that of the queue.

    The solutions are stored in the ledger before they are sent, so that whatever comes back can be told.

    Args:
        studio: The server.
        project: From `open_project`.
        page: Its settings.
        solutions: What people shall label.
        ledger: Where the labels will go.
        predictions: Annotations of one rater by solution id, that fill the pages in beforehand. They bias whoever
            labels.
        progress: Called as progress(stage, done, total, note).
        batch: Tasks in one request, or a few more: a solution's go together.
        patience: Seconds to wait for a server that is being restarted.

    Raises:
        StudioDownError: The server does not come back, or keeps breaking off.
        StudioError: The server refuses.
    """
    sending = _Sending(studio, project.id, Pushed(project.id), predictions or {}, patience)
    sending.look()
    for chunk in _batches(_new_tasks(solutions, page, sending), batch):
        ledger.append((), [solution for solution, _ in chunk])
        sending.send([task for _, task in chunk])
        done = sending.done
        progress("push", done.tasks, None, f"{done.added} added, {done.known} were there")
    sending.finish()
    return sending.done


class _Sending:
    """The state of one push: what the server has, and what was done."""

    def __init__(
        self,
        studio: Studio,
        project: int,
        done: Pushed,
        predictions: Mapping[str, Annotation],
        patience: float,
    ) -> None:
        self.done = done
        self.predictions = predictions
        self.by = ""
        self.predicted: set[int] = set()
        self.known: dict[str, KnownTask] = {}
        self.late: dict[int, NewTask] = {}
        self._sure = True  # whether `predicted` is what the server has
        self._studio = studio
        self._project = project
        self._patience = patience

    def look(self) -> None:
        """See what the server has, however often it breaks off meanwhile."""
        for task in self._persist(lambda: list(self._studio.tasks(self._project))):
            self.known.setdefault(task.uid, task)
        if self.predictions and not self.by:
            rater = next(iter(self.predictions.values())).rater
            self.by = f"{rater.kind}:{rater.name}"
            self.predicted = self._persist(lambda: self._studio.predicted(self._project, self.by))

    def send(self, tasks: list[NewTask]) -> None:
        """Add those of the tasks that are not there.

        When the server breaks off, nobody knows what it has stored: look before sending again.
        """
        for attempt in range(ATTEMPTS):
            todo = [task for task in tasks if task.uid not in self.known]
            if not todo:
                break
            try:
                added = self._studio.import_tasks(self._project, todo)
                if added != len(todo):
                    raise StudioDownError(f"the server says that it added {added} of {len(todo)} tasks")
            except StudioDownError:
                self.done.retries += 1
                if attempt + 1 == ATTEMPTS:
                    raise
                wait_until_healthy(self._studio, self._patience)
                self.look()
            else:
                self.known.update({task.uid: KnownTask(0, task.uid, task.data["prm_hash"]) for task in todo})
        self.done.added += len(tasks)
        self.done.predictions += sum(bool(task.prediction) for task in tasks)

    def finish(self) -> None:
        """Predictions for tasks that were there without; then remove what a broken request stored a second time."""
        for number, task in self.late.items():
            self._persist(partial(self._predict, number, task))
            self.done.predictions += 1
        if self.done.predictions:
            self._studio.update_project(self._project, predictions_by=self.by)
        if self.done.retries:
            self._remove_duplicates()

    def _predict(self, number: int, task: NewTask) -> None:
        """Add a prediction, unless it was stored and only the answer lost."""
        if not self._sure:
            self.predicted = self._studio.predicted(self._project, self.by)
        self._sure = False
        if number not in self.predicted:
            self._studio.predict(number, task)
        self._sure = True

    def _remove_duplicates(self) -> None:
        """Of tasks with the same identity, keep the first and all that somebody has labelled."""
        seen: set[str] = set()
        twice = []
        for task in self._persist(lambda: list(self._studio.tasks(self._project))):
            if task.uid in seen and task.uid and not task.annotations:
                twice.append(task.id)
            seen.add(task.uid)
        if twice:
            self._studio.delete_tasks(self._project, twice)
        self.done.duplicates_removed = len(twice)

    def _persist(self, ask: Callable[[], Answer]) -> Answer:
        for _ in range(ATTEMPTS - 1):
            try:
                return ask()
            except StudioDownError:
                self.done.retries += 1
                wait_until_healthy(self._studio, self._patience)
        return ask()


def _new_tasks(solutions: Iterable[Solution], page: Page, sending: _Sending) -> Iterator[tuple[Solution, NewTask]]:
    """Tasks that the server does not have; what it has is counted and compared."""
    done = sending.done
    planned: set[str] = set()
    for solution in solutions:
        done.solutions += 1
        try:
            pages = list(tasks_of(solution, page))
        except InputError as error:
            done.skipped[solution.id] = str(error)
            continue
        for data in pages:
            done.tasks += 1
            task = _with_prediction(data, sending.predictions.get(solution.id), sending.by)
            known = sending.known.get(task.uid)
            if known is None and task.uid not in planned:
                planned.add(task.uid)
                yield solution, task
                continue
            done.known += 1
            if known is None or task.uid in planned:
                continue  # the same solution, given twice
            if known.hash != data["prm_hash"]:
                done.differing.append(task.uid)
            if task.prediction and known.id and known.id not in sending.predicted:
                sending.late[known.id] = task


def _with_prediction(data: dict[str, Any], annotation: Annotation | None, by: str) -> NewTask:
    if annotation is None:
        return NewTask(data)
    _, _, first, last = data["prm_window"]
    values = {
        label.step - first: int(label.value)
        for label in annotation.labels
        if label.value is not None and first <= label.step < last
    }
    return NewTask(data, prediction(values), by)


def _batches(tasks: Iterable[tuple[Solution, NewTask]], most: int) -> Iterator[list[tuple[Solution, NewTask]]]:
    """Requests; the pages of a solution go in one, so that nothing comes to stand between them."""
    held: list[tuple[Solution, NewTask]] = []
    size = 0
    for pair in tasks:
        length = len(json.dumps(pair[1].data))
        another = held and pair[0].id != held[-1][0].id
        if another and (len(held) >= most or size + length > BATCH_BYTES):
            yield held
            held, size = [], 0
        held.append(pair)
        size += length
    if held:
        yield held
