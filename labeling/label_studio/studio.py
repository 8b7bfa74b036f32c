"""What prm-kit asks of a Label Studio server: one small protocol, so that push and pull can be tested without one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from prm_kit.errors import PrmKitError


class StudioError(PrmKitError):
    """The server refused something."""


class StudioDownError(StudioError):
    """The server cannot be reached just now, or broke off: worth another try."""


@dataclass(frozen=True)
class Project:
    """A project as the server has it.

    Attributes:
        made: When it was made, as the server says: its number alone is any server's; "" unknown.
    """

    id: int
    title: str
    description: str
    label_config: str
    overlap: int
    tasks: int
    made: str = ""


@dataclass(frozen=True)
class KnownTask:
    """A task that is on the server.

    Attributes:
        id: The server's number of it.
        uid: Its `prm_uid`, "" where it has none: somebody else's task.
        hash: Its `prm_hash`.
        annotations: How many annotations it has, skips included.
    """

    id: int
    uid: str
    hash: str
    annotations: int = 0


@dataclass(frozen=True)
class NewTask:
    """A task to import.

    Attributes:
        data: From `tasks.task_data`.
        prediction: Results that fill the page in beforehand; empty: none.
        predicted_by: Who made them.
    """

    data: Mapping[str, Any]
    prediction: Sequence[Mapping[str, Any]] = ()
    predicted_by: str = ""
    uid: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uid", self.data["prm_uid"])


class Studio(Protocol):
    """A Label Studio server. Every call raises StudioError, or StudioDownError where it is worth another try.

    Attributes:
        url: Its address, with a slash at the end.
    """

    url: str

    def healthy(self) -> bool:
        """Whether the server answers. Never raises."""
        ...

    def projects(self) -> list[Project]:
        """Every project that the account sees."""
        ...

    def create_project(self, title: str, description: str, guide: str, label_config: str, overlap: int) -> Project:
        """Make a project."""
        ...

    def update_project(self, project: int, **changes: Any) -> None:
        """Change `description`, `guide`, `label_config`, `overlap`, or `predictions_by`: whose fill the pages in."""
        ...

    def tasks(self, project: int) -> Iterator[KnownTask]:
        """Every task of a project, in the order of their numbers."""
        ...

    def import_tasks(self, project: int, tasks: Sequence[NewTask]) -> int:
        """Add tasks, in this order; return how many. Never tries twice by itself."""
        ...

    def predicted(self, project: int, by: str) -> set[int]:
        """Numbers of the tasks that have a prediction by `by`."""
        ...

    def predict(self, number: int, task: NewTask) -> None:
        """Add the prediction of a task that is there already. Never tries twice by itself."""
        ...

    def delete_tasks(self, project: int, tasks: Sequence[int]) -> None:
        """Remove tasks."""
        ...

    def export(self, project: int) -> Iterator[bytes]:
        """Every task that has an annotation (skips included) with its annotations, as JSON text in pieces."""
        ...

    def emails(self) -> dict[int, str]:
        """The accounts' e-mail addresses by user number."""
        ...

    def invite_link(self) -> str:
        """Address at which another annotator makes an account."""
        ...


def wait_until_healthy(studio: Studio, patience: float, pause: float = 0.5) -> None:
    """Wait for a server that is being restarted.

    Args:
        studio: The server.
        patience: Seconds to wait.
        pause: Seconds between two looks.

    Raises:
        StudioDownError: It does not come back in time.
    """
    until = time.monotonic() + patience
    while not studio.healthy():
        if time.monotonic() > until:
            raise StudioDownError(
                f"the Label Studio server has not answered for {patience:.0f} s; once it runs, the same command goes on"
            )
        time.sleep(pause)
