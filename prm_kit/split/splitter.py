"""Text to steps: the one entrance for all methods, and the helpers that make solutions."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from prm_kit.answer_text import extract_final_answer
from prm_kit.errors import InputError, UsageError, unknown_name
from prm_kit.record_checks import Span
from prm_kit.records import Solution
from prm_kit.split.answer import find_answer
from prm_kit.split.attach import attach
from prm_kit.split.boundaries import METHODS, Layout, automatic
from prm_kit.split.cap import CountTokens, cap, estimate_tokens
from prm_kit.split.protect import protect
from prm_kit.split.sections import sections

MAX_STEP_TOKENS = 512
"""Default cap of a step's length."""


@dataclass(frozen=True, slots=True)
class Split:
    """Where the steps of a completion are.

    Invariant: the text outside the spans is white space, think tags and the caller's step tokens, and nothing else.

    Attributes:
        spans: Per step (start, end) as character offsets; in order, never blank or overlapping, trimmed.
        think: Contents of the think sections (tags excluded). No step crosses their edges.
        answer: The final answer's own text, or None where none is stated outside the think sections.
        method: The method used; for "auto" the one chosen (joined by "+" where sections differ).
        capped: How many steps were too long and were cut further.
    """

    spans: tuple[Span, ...]
    think: tuple[Span, ...] = ()
    answer: Span | None = None
    method: str = "auto"
    capped: int = 0

    @property
    def answer_step(self) -> int | None:
        """Index of the step that the final answer starts in, or None."""
        if self.answer is None:
            return None
        index = bisect_right(self.spans, self.answer[0], key=lambda span: span[0]) - 1
        return index if index >= 0 and self.answer[0] < self.spans[index][1] else None

    @property
    def think_steps(self) -> tuple[int, ...]:
        """Indices of the steps inside think sections."""
        return think_steps(self.spans, self.think)


def split(
    completion: str,
    method: str = "auto",
    *,
    token: str | None = None,
    max_step_tokens: int | None = MAX_STEP_TOKENS,
    count_tokens: CountTokens | None = None,
    attached: bool = True,
) -> Split:
    r"""Find the steps of a completion.

    No boundary falls inside a LaTeX environment or formula, a code fence, a table or a calculator span (see
    `protect`), except for the caller's step token and where a step over the cap can be cut nowhere else.

    Args:
        completion: Verbatim text; empty or blank text has no steps. "\r\n" ends a line as "\n" does.
        method: "auto" or another of `METHODS`.
        token: The step token of method "token" (say "ки" or "<extra_0>"); it belongs to no step.
        max_step_tokens: Longest step; longer ones are cut further, never truncated. None for no cap (as where every
            token of method "token" has to keep its one step).
        count_tokens: Counts the tokens of a text. None for a cheap estimate from bytes (`estimate_tokens`); a cap
            that has to hold for a model takes that model's tokenizer.
        attached: Join headings, announced formulas and the like to the piece they belong to (see `attach`); False
            for exactly the pieces that the method cuts. Method "token" never joins.

    Raises:
        UsageError: Unknown method, a token missing or out of place, or a cap below 1.
        InputError: The completion is no text.
    """
    _check(completion, method, token, max_step_tokens)
    spans: list[Span] = []
    think: list[Span] = []
    used: dict[str, None] = {}
    n_capped = 0
    parts = sections(completion)
    for start, end, is_think in parts:
        if is_think:
            think.append((start, end))
        text = completion[start:end]
        layout = Layout(text, protect(text), token)
        if method == "auto":
            name, pieces = automatic(layout, attached)
        else:
            name, pieces = method, METHODS[method](layout)
            if attached and method != "token":
                pieces = attach(text, pieces, layout.blocks, lists=method == "blank_line")
        if max_step_tokens is not None:
            pieces, cut = cap(text, pieces, layout.blocks, max_step_tokens, count_tokens or estimate_tokens)
            n_capped += cut
        if pieces:
            used[name] = None
        spans += ((start + a, start + b) for a, b in pieces) if start else pieces
    return Split(
        spans=tuple(spans),
        think=tuple(think),
        answer=find_answer(completion, token, parts),
        method="+".join(used) or method,
        capped=n_capped,
    )


def split_solution(problem: str, completion: str, method: str = "auto", **options: Any) -> Solution:
    """Make a solution of a completion, split into steps.

    Args:
        problem: The problem's text.
        completion: Verbatim text.
        method: As in `split`.
        options: Options of `split`, and fields of `Solution`. `final_answer` is what the completion states
            (`extract_final_answer`) where it is not given; `meta` gets `split_method` (and `capped_steps`, where there
            are any).

    Raises:
        UsageError: As `split`.
        InputError: As `Solution`.
    """
    how = {key: options.pop(key) for key in _OPTIONS if key in options}
    found = split(completion, method, **how)
    if options.get("final_answer") is None:
        options["final_answer"] = extract_final_answer(completion)
    options["meta"] = {**options.get("meta", {}), **_provenance(found)}
    return Solution(problem, completion, found.spans, **options)


def resplit(solution: Solution, method: str = "auto", **options: Any) -> Solution:
    """Split a solution's completion anew. Where the spans change it is another solution: labels do not carry over.

    Step indices of the old split mean nothing in the new one, so `parent` and `branch_step` leave `meta`;
    `resplit_of` holds the old id.

    Args:
        solution: Any solution.
        method: As in `split`.
        options: Options of `split`.

    Raises:
        UsageError: As `split`.
    """
    found = split(solution.completion, method, **options)
    if found.spans == solution.spans:
        return solution
    kept = {key: value for key, value in solution.meta.items() if key not in ("parent", "branch_step", "capped_steps")}
    return dataclasses.replace(
        solution, spans=found.spans, meta={**kept, **_provenance(found), "resplit_of": solution.id}
    )


def think_steps(spans: Iterable[Span], think: Iterable[Span]) -> tuple[int, ...]:
    """Indices of the spans that begin inside a think section, both in text order."""
    indices: list[int] = []
    areas = iter(think)
    area = next(areas, None)
    for index, (start, _) in enumerate(spans):
        while area is not None and start >= area[1]:
            area = next(areas, None)
        if area is not None and start >= area[0]:
            indices.append(index)
    return tuple(indices)


def summarise(splits: Iterable[Split]) -> dict[str, Any]:
    """Count what was split: the canary against a policy that stops making steps.

    Returns:
        `solutions`, `steps`, `without_steps`, `of_one_step` (solutions), `most_steps`, `capped` (steps that were too
        long), `with_answer`, `with_think`, and solutions by `method`.
    """
    totals: Counter[str] = Counter()
    methods: Counter[str] = Counter()
    most = 0
    for one in splits:
        n = len(one.spans)
        most = max(most, n)
        methods[one.method] += 1
        totals.update(
            solutions=1,
            steps=n,
            without_steps=n == 0,
            of_one_step=n == 1,
            capped=one.capped,
            with_answer=one.answer is not None,
            with_think=bool(one.think),
        )
    keys = ("solutions", "steps", "without_steps", "of_one_step", "capped", "with_answer", "with_think")
    return {key: int(totals[key]) for key in keys} | {"most_steps": most, "method": dict(sorted(methods.items()))}


_OPTIONS = ("token", "max_step_tokens", "count_tokens", "attached")


def _provenance(found: Split) -> dict[str, Any]:
    return {"split_method": found.method} | ({"capped_steps": found.capped} if found.capped else {})


def _check(completion: str, method: str, token: str | None, max_step_tokens: int | None) -> None:
    if method not in METHODS:
        raise unknown_name("splitting method", method, METHODS)
    if (method == "token") != bool(token):
        raise UsageError(
            "splitting by 'token' needs the step token" if method == "token" else f"{method!r} takes no step token"
        )
    if max_step_tokens is not None and max_step_tokens < 1:
        raise UsageError(f"max_step_tokens is {max_step_tokens}; it is at least 1, or None for no cap")
    if not isinstance(completion, str):
        raise InputError(f"completion is {type(completion).__name__}, not text")
