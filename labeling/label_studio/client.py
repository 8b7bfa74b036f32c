"""The one module that imports label-studio-sdk: a server of Label Studio, behind `studio.Studio`.

Errors of the SDK print the answer's headers and with them a session cookie: only status and body are passed on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from labeling.label_studio.studio import KnownTask, NewTask, Project, StudioDownError, StudioError
from prm_kit.errors import UsageError
from prm_kit.secrecy import is_loopback

if TYPE_CHECKING:
    from label_studio_sdk.client import LabelStudio

TIMEOUT = 600.0
"""Seconds: an export of ten thousand tasks takes minutes on SQLite."""

_PAGE = 500
_ONCE: Any = {"max_retries": 0}
"""For what must not be sent twice: the SDK repeats any request whose answer was lost."""


def check_url(url: str, insecure: bool = False) -> str:
    """The server's address in the form that the SDK needs (it joins paths to it).

    Raises:
        UsageError: It is no http(s) address, names a user, or would send the token readable through a network.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"{url!r} is not the address of a server, such as http://127.0.0.1:8080")
    if parts.username or parts.password:
        raise UsageError(
            "the address of the server holds a user or password; give a token in the environment or a file"
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname) and not insecure:
        raise UsageError(f"{url}: the token would go through the network readable; use https, or --insecure")
    return url.rstrip("/") + "/"


class SdkStudio:
    """A server, spoken to with label-studio-sdk.

    Args:
        url: Its address.
        token: A legacy token, or a personal access token (the SDK exchanges it for short-lived ones).
        insecure: Allow http:// beyond this machine.
        timeout: Seconds for one request.

    Raises:
        UsageError: label-studio-sdk is not installed, or the address is not allowed.
        StudioError: The token is expired or malformed.
    """

    def __init__(self, url: str, token: str, insecure: bool = False, timeout: float = TIMEOUT) -> None:
        try:
            import httpx
            from label_studio_sdk.client import LabelStudio
            from label_studio_sdk.core.api_error import ApiError
        except ImportError:
            raise UsageError(
                "label-studio-sdk is not installed; install it with: pip install 'prm-kit[label-studio]'"
            ) from None
        self.url = check_url(url, insecure)
        self._errors = (ApiError, httpx.HTTPError)
        self._down = (httpx.TransportError,)
        # No redirects: the token would go along to wherever they point.
        self._http = httpx.Client(timeout=timeout, follow_redirects=False)
        try:
            with self._asking("the token"):
                self._sdk: LabelStudio = LabelStudio(base_url=self.url, api_key=token, httpx_client=self._http)
        except StudioError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def healthy(self) -> bool:
        """Whether the server says that it is up."""
        try:
            return bool(self._http.get(f"{self.url}health", timeout=5).status_code == 200)
        except self._errors:
            return False

    def projects(self) -> list[Project]:
        """Every project that the account sees."""
        with self._asking("the list of projects"):
            return [_project(found) for found in self._sdk.projects.list(page_size=100)]

    def create_project(self, title: str, description: str, guide: str, label_config: str, overlap: int) -> Project:
        """Make a project that serves its tasks in order."""
        with self._asking("a new project"):
            made = self._sdk.projects.create(
                title=title,
                description=description,
                expert_instruction=guide,
                show_instruction=True,
                label_config=label_config,
                maximum_annotations=overlap,
                sampling="Sequential sampling",
                show_collab_predictions=False,
                enable_empty_annotation=True,
                request_options=_ONCE,
            )
            return _project(self._sdk.projects.get(made.id))

    def update_project(self, project: int, **changes: Any) -> None:
        """Change settings of a project."""
        names = {"guide": "expert_instruction", "overlap": "maximum_annotations", "predictions_by": "model_version"}
        sent = {names.get(name, name): value for name, value in changes.items()}
        if "model_version" in sent:
            sent["show_collab_predictions"] = True
        with self._asking(f"a change of project {project}"):
            self._sdk.projects.update(project, **sent)

    def tasks(self, project: int) -> Iterator[KnownTask]:
        """Every task of a project."""
        with self._asking(f"the tasks of project {project}"):
            for task in self._sdk.tasks.list(
                project=project,
                fields="task_only",
                include="id,data,total_annotations,cancelled_annotations",
                page_size=_PAGE,
            ):
                data = task.data or {}
                annotations = (task.total_annotations or 0) + (task.cancelled_annotations or 0)
                yield KnownTask(
                    task.id,
                    str(data.get("prm_uid", "")),
                    str(data.get("prm_hash", "")),
                    annotations,
                )

    def import_tasks(self, project: int, tasks: Sequence[NewTask]) -> int:
        """Add tasks."""
        rows = [
            {"data": dict(task.data)} | ({"predictions": [_prediction(task)]} if task.prediction else {})
            for task in tasks
        ]
        with self._asking(f"an import of {len(rows)} tasks"):
            done = self._sdk.projects.import_tasks(id=project, request=rows, request_options=_ONCE)
        return int(done.task_count or 0)

    def predicted(self, project: int, by: str) -> set[int]:
        """Tasks that have a prediction by `by`; the counter that a task carries is not always up to date."""
        with self._asking(f"the predictions of project {project}"):
            return {found.task for found in self._sdk.predictions.list(project=project) if found.model_version == by}

    def predict(self, number: int, task: NewTask) -> None:
        """Add the prediction of a task that is there.

        One at a time: importing many, the server checks them against a page without its steps, finds none to fit, and
        reports success.
        """
        with self._asking(f"a prediction of task {number}"):
            self._sdk.predictions.create(task=number, **_prediction(task), request_options=_ONCE)

    def delete_tasks(self, project: int, tasks: Sequence[int]) -> None:
        """Remove tasks."""
        selected: Any = {"all": False, "included": list(tasks)}
        with self._asking(f"the removal of {len(tasks)} tasks"):
            self._sdk.actions.create(id="delete_tasks", project=project, selected_items=selected)

    def export(self, project: int) -> Iterator[bytes]:
        """Annotated tasks as JSON. Without `download_all_tasks` the server sends exactly those with an annotation."""
        with self._asking(f"the export of project {project}"):
            yield from self._sdk.projects.exports.download_sync(project, export_type="JSON", download_all_tasks=False)

    def emails(self) -> dict[int, str]:
        """E-mail addresses by user number."""
        with self._asking("the list of users"):
            return {user.id: user.email for user in self._sdk.users.list() if user.email}

    def invite_link(self) -> str:
        """The organization's sign-up address."""
        with self._asking("an invitation"):
            link = self._sdk.organizations.invites.get_invite_link().invite_url or ""
        return self.url.rstrip("/") + link if link.startswith("/") else link

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._down as error:
            raise StudioDownError(f"{self.url}: {what}: {type(error).__name__}") from None
        except self._errors as error:
            status = getattr(error, "status_code", None)
            body = _short(getattr(error, "body", None))
            down = status is None or status in (408, 429) or status >= 500
            kind = StudioDownError if down else StudioError
            hint = "; is the token right?" if status in (401, 403) else ""
            raise kind(f"{self.url}: {what}: HTTP {status}: {body}{hint}") from None


def _project(found: Any) -> Project:
    return Project(
        found.id,
        found.title or "",
        found.description or "",
        found.label_config or "",
        found.maximum_annotations or 1,
        found.task_number or 0,
        found.created_at.isoformat() if found.created_at else "",
    )


def _prediction(task: NewTask) -> dict[str, Any]:
    return {"result": [dict(result) for result in task.prediction], "model_version": task.predicted_by}


def _short(body: Any) -> str:
    """The body of an error for people: a page of HTML says nothing."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, default=str)
    return "(a page)" if text.lstrip().startswith("<") else text[:500]
