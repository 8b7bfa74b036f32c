"""What the verbs of `prm-kit label studio` are given: a server, solutions in order, predictions, names of people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from labeling.label_studio.interface import Page
    from labeling.label_studio.studio import Project, Studio
    from prm_kit.ledger import Ledger
    from prm_kit.records import Annotation, Solution


@contextmanager
def server_of(data: Path | None, url: str | None, token_file: Path | None, insecure: bool) -> Iterator[Studio]:
    """The server that was named, or the local one.

    Raises:
        UsageError: There is none, no token, or the address is not allowed.
    """
    from labeling.label_studio.client import SdkStudio
    from labeling.label_studio.credentials import token_for
    from labeling.label_studio.server import data_directory, running
    from prm_kit.errors import UsageError

    if url is not None:
        token = token_for(url, token_file)
    else:
        there = running(data or data_directory())
        if there is None:
            raise UsageError(
                "no local Label Studio runs; start it with: prm-kit label studio up (or name one with --url)"
            )
        url, token, insecure = there.url, there.credentials.token, True  # ours, on this machine
    with SdkStudio(url, token, insecure) as studio:
        yield studio


class Pushed(NamedTuple):
    """A project that was pushed, and the ledger from which it was."""

    studio: Studio
    ledger: Ledger
    project: Project
    page: Page


@contextmanager
def pushed_project(
    data: Path | None, url: str | None, token_file: Path | None, insecure: bool, ledger: Path, title: str
) -> Iterator[Pushed]:
    """The project of that title on the server that was named, or on the local one.

    Raises:
        UsageError: There is no such project, or as `server_of`.
        InputError: There is no such ledger.
    """
    from labeling.label_studio.projects import find_project, page_of
    from prm_kit.ledger import Ledger

    with server_of(data, url, token_file, insecure) as studio, Ledger(ledger, must_exist=True) as opened:
        project = find_project(studio, title)
        yield Pushed(studio, opened, project, page_of(project))


def solutions_of(snapshots: list[Path], ledger: Ledger) -> Iterable[Solution]:
    """The solutions of the snapshots, or, if there are none, those of the ledger."""
    from pipelines.data import solutions

    return solutions(snapshots) if snapshots else ledger.solutions()


def in_order(solutions: Iterable[Solution], queue: Path | None, ledger: Ledger) -> Iterable[Solution]:
    """The solutions as they come, or those of a queue in its order. The whole queue is checked first.

    Args:
        solutions: The inputs.
        queue: Lines {"solution_id": ...}.
        ledger: Asked for what is not in the inputs, such as gold questions.

    Raises:
        InputError: A line of the queue is malformed, names a solution twice, or one that is nowhere.
    """
    from prm_kit.errors import InputError

    if queue is None:
        return solutions
    wanted: dict[str, int] = {}
    for number, line in enumerate(queue.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            solution_id = json.loads(line)["solution_id"]
        except (ValueError, TypeError, KeyError):
            solution_id = None
        if not isinstance(solution_id, str):
            raise InputError(f"{queue}:{number}: not an object with a solution_id")
        if wanted.setdefault(solution_id, number) != number:
            raise InputError(f"{queue}:{number}: solution {solution_id} stands in line {wanted[solution_id]} already")
    found = {solution.id: solution for solution in solutions if solution.id in wanted}
    chosen = []
    for solution_id, number in wanted.items():
        solution = found.get(solution_id) or ledger.solution(solution_id)
        if solution is None:
            raise InputError(f"{queue}:{number}: solution {solution_id} is neither in the inputs nor in the ledger")
        chosen.append(solution)
    return chosen


def predictions_of(ledger: Ledger, rater: str) -> dict[str, Annotation]:
    """The current labels of a rater, by solution.

    Raises:
        UsageError: The ledger has no such rater.
    """
    from prm_kit.errors import unknown_name

    found: dict[str, Annotation] = {}
    raters = set()
    for annotation in ledger.current():
        name = f"{annotation.rater.kind}:{annotation.rater.name}"
        raters.add(name)
        if name == rater:
            found[annotation.solution_id] = annotation
    if not found:
        raise unknown_name("rater", rater, raters)
    return found


def naming(names: str) -> Callable[[str], str]:
    """How an e-mail address becomes a rater's name.

    Raises:
        UsageError: No such way, or the file is not {address: name}.
        InputError: On calling: the file does not name the address.
    """
    from labeling.label_studio.pull import pseudonym
    from prm_kit.errors import InputError, UsageError

    if names == "pseudonym":
        return pseudonym
    if names == "email":
        return lambda email: email
    try:
        table = json.loads(Path(names).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--names {names}: neither pseudonym nor email, and no JSON file: {error}") from None
    if not isinstance(table, dict) or not all(isinstance(name, str) and name for name in table.values()):
        raise UsageError(f"--names {names}: not an object {{e-mail address: name}}")

    def named(email: str) -> str:
        if email not in table:
            raise InputError(f"{names}: no name for the annotator {email}")
        return str(table[email])

    return named
