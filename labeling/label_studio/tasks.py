"""Solutions as Label Studio tasks: windows of at most fourteen steps, and the identity by which they are known again.

A task is known by `prm_uid`: the solution's id, which is the hash of its text and steps, and the window. A changed
text is another solution and so another task. `prm_hash` is over everything else in the task, so that a task that was
edited on the server is found out. Labels never go into a task, and gold answers neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labeling.label_studio.interface import MAX_STEPS, Page, first_error_options, options
from labeling.label_studio.mathml import to_html
from labeling.label_studio.wording import WORDING
from prm_kit.errors import InputError
from prm_kit.files import value_sha256
from prm_kit.records import Solution, step_hash


@dataclass(frozen=True)
class Window:
    """A part of a solution that is labelled on one page.

    Attributes:
        index: 0-based, among the solution's windows.
        count: How many windows the solution has.
        first: Index of its first step.
        last: One past the index of its last step.
    """

    index: int
    count: int
    first: int
    last: int


def windows(n_steps: int, most: int = MAX_STEPS) -> list[Window]:
    """Cut steps into as few windows as possible, of sizes that differ by at most one, larger ones first.

    Raises:
        InputError: There are no steps.
    """
    if n_steps < 1:
        raise InputError("a solution without steps cannot be labelled")
    count = -(-n_steps // most)
    size, larger = divmod(n_steps, count)
    edges = [index * size + min(index, larger) for index in range(count + 1)]
    return [Window(index, count, edges[index], edges[index + 1]) for index in range(count)]


def uid(solution_id: str, window: Window) -> str:
    """The identity of a task."""
    return f"{solution_id}-{window.index + 1}of{window.count}"


def task_data(solution: Solution, window: Window, page: Page) -> dict[str, Any]:
    """What a page shows, and by which it is known again.

    Args:
        solution: What is labelled. Its reference answer is shown, whether its final answer is right is not.
        window: Which of its steps.
        page: The project's settings.
    """
    wording = WORDING[page.language]
    texts = solution.steps
    titles = [wording.step.format(number=step + 1, total=len(texts)) for step in range(len(texts))]
    note = wording.policy[page.policy]
    if window.count > 1:
        part = wording.part.format(index=window.index + 1, total=window.count, first=window.first + 1, last=window.last)
        note = f"{part} {note}"
    earlier = "".join(f"<p><b>{titles[step]}</b><br>{to_html(texts[step])}</p>" for step in range(window.first))
    data: dict[str, Any] = {
        "prm_uid": uid(solution.id, window),
        "prm_solution": solution.id,
        "prm_window": [window.index, window.count, window.first, window.last],
        "prm_policy": page.policy,
        "prm_page": page.version,
        "problem_html": _block(to_html(solution.problem)),
        "reference_html": _block(_answer(solution.reference_answer, wording.unknown)),
        "final_html": _block(_answer(solution.final_answer, wording.unknown)),
        "note_html": f'<div class="prm-part">{to_html(note)}</div>',
        "earlier": [{"html": f'<div class="prm-text prm-earlier">{earlier}</div>'}] if earlier else [],
        "steps": [
            {
                "title": titles[step],
                "html": _block(to_html(texts[step])),
                "hash": step_hash(texts[step]),
                "options": options(step - window.first, page),
            }
            for step in range(window.first, window.last)
        ],
        "first_error_options": first_error_options(window.first, window.last, page),
    }
    return data | {"prm_hash": value_sha256(data)}


def tasks_of(solution: Solution, page: Page) -> Iterator[dict[str, Any]]:
    """The task data of every window of a solution.

    Raises:
        InputError: The solution has no steps.
    """
    try:
        for window in windows(len(solution.spans)):
            yield task_data(solution, window, page)
    except InputError as error:
        raise InputError(f"solution {solution.id}: {error}") from None


def window_of(data: Mapping[str, Any], solution: Solution | None) -> Window:
    """Check that a task is what was pushed, and about this solution; return its window.

    Args:
        data: The task data as the server has it.
        solution: The solution that it names, None if unknown here.

    Raises:
        InputError: The task was edited, or its solution is unknown or has other steps.
    """
    if value_sha256({key: value for key, value in data.items() if key != "prm_hash"}) != data.get("prm_hash"):
        raise InputError("the task was changed on the server after it was pushed")
    if solution is None:
        raise InputError(f"solution {data.get('prm_solution')} is not in the ledger: it was not pushed from here")
    try:
        window = Window(*data["prm_window"])
        expected = windows(len(solution.spans), MAX_STEPS)
        hashes = [step["hash"] for step in data["steps"]]
    except (KeyError, TypeError) as error:
        raise InputError(f"the task is malformed: {error}") from None
    texts = solution.steps[window.first : window.last]
    if window not in expected or uid(solution.id, window) != data["prm_uid"]:
        raise InputError("the task does not show a part of the solution that it names")
    if hashes != [step_hash(text) for text in texts]:
        raise InputError("the text of the solution has changed since the task was pushed")
    return window


def _block(html: str) -> str:
    return f'<div class="prm-text">{html}</div>'


def _answer(answer: str | None, unknown: str) -> str:
    """An answer; TeX without delimiters, as data sets often have it, is a formula too."""
    if answer is None:
        return f"<i>{unknown}</i>"
    return to_html(f"${answer}$" if "\\" in answer and "$" not in answer and "\\(" not in answer else answer)
