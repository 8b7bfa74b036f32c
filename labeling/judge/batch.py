"""Batch files in OpenAI's form: requests written, results read into the store of answers.

The same file runs at hosted batch services and with `vllm run-batch`. A result is found again by its `custom_id`, the
key of its request, so the order of results does not matter and a result of another run is refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from labeling.judge.answer import read_answer
from labeling.judge.labeler import JudgeLabeler
from labeling.judge.prompt import Asked, message_bytes, render
from labeling.judge.reply import MalformedReplyError, reply_of
from labeling.judge.session import answer_of, request_key
from labeling.judge.settings import request_body
from labeling.judge.store import Answer, AnswerStore
from prm_kit.errors import InputError, UsageError
from prm_kit.files import whole_file
from prm_kit.records import Solution

MOST_REQUESTS = 50_000
MOST_BYTES = 190_000_000
"""Limits of one file at hosted services: 50,000 requests and 200 MB."""

_MOST_RESULT_BYTES = 8 * 2**20


class Request(NamedTuple):
    """One request that a run begins with.

    Attributes:
        asked: The prompt with the solution in it.
        vote: Number of the vote.
        key: Its key in the store.
        body: The JSON body.
        size: Bytes of the messages.
    """

    asked: Asked
    vote: int
    key: str
    body: dict[str, Any]
    size: int


def write_batch(labeler: JudgeLabeler, solutions: Iterable[Solution], folder: Path) -> dict[str, int]:
    """Write a request for every vote that has no answer in the store, as batch-0001.jsonl and so on.

    Where the answer in the store was cut off, twice the tokens are asked for.

    Returns:
        Counts: files, requests, answered (votes that need no request).

    Raises:
        UsageError: The folder holds batch files: they would stand beside these, or be written over.
    """
    there = sorted(path.name for path in folder.glob("batch-[0-9][0-9][0-9][0-9].jsonl"))
    if there:
        raise UsageError(f"{folder}: holds {there[0]} of an earlier batch; give another folder, or remove its batches")
    store = AnswerStore(labeler.connection.store)
    counts = Counter({"files": 0, "requests": 0, "answered": 0})
    lines: list[bytes] = []
    size = 0

    def write() -> None:
        counts["files"] += 1
        with whole_file(folder / f"batch-{counts['files']:04d}.jsonl", "wb") as file:
            file.writelines(lines)

    try:
        for first in requests_for(labeler, solutions):
            request = unanswered(labeler, first, store)
            if request is None:
                counts["answered"] += 1
                continue
            row = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": request.body}
            line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
            if lines and (len(lines) == MOST_REQUESTS or size + len(line) > MOST_BYTES):
                write()
                lines, size = [], 0
            lines.append(line)
            size += len(line)
            counts["requests"] += 1
        if lines:
            write()
    finally:
        store.close()
    return dict(counts)


def read_batch(labeler: JudgeLabeler, solutions: Iterable[Solution], files: Iterable[Path]) -> dict[str, int]:
    """Read results into the store; afterwards labelling finds them there.

    Returns:
        Counts: read, and those without use: failed (the service says so), malformed, unknown (of another run), twice
        (several results for one request, of which the first counts), known (in the store already).

    Args:
        labeler: The judge that the batch was written for.
        solutions: All that the batch may be about, also those that are labelled by now.
        files: Results.

    Raises:
        InputError: A file cannot be read, or no file holds a result that fits.
    """
    files = list(files)
    wanted = {
        request.key: request
        for first in requests_for(labeler, solutions)
        for request in (first, _request(labeler, first.asked, first.vote, first.size, longer=True))
    }
    counts = Counter(dict.fromkeys(("read", "failed", "malformed", "unknown", "twice", "known"), 0))
    store = AnswerStore(labeler.connection.store)
    seen: set[str] = set()
    try:
        for file in files:
            answers: list[Answer] = []
            for line in _lines(file):
                kind, answer = _result(labeler, wanted, line)
                if answer is not None:
                    kind = "twice" if answer.key in seen else "known" if store.holds(answer) else kind
                    seen.add(answer.key)
                    if kind == "read":
                        answers.append(answer)
                counts[kind] += 1
            store.append(answers)
    finally:
        store.close()
    if files and not (counts["read"] or counts["known"]):
        names = ", ".join(map(str, files))
        raise InputError(f"{names}: no result for these solutions, prompt and settings: {dict(counts)}")
    return dict(counts)


def requests_for(labeler: JudgeLabeler, solutions: Iterable[Solution]) -> Iterator[Request]:
    """The first request of every vote on every solution; none where no step says anything."""
    settings, prompt = labeler.settings, labeler.prompt
    for solution in solutions:
        if labeler.says_nothing(solution):
            continue
        asked = render(prompt, solution, settings.show_reference)
        size = message_bytes(asked.messages)
        for vote in range(settings.votes):
            yield _request(labeler, asked, vote, size)


def unanswered(labeler: JudgeLabeler, request: Request, store: AnswerStore) -> Request | None:
    """What is still to be asked: the request, or with twice the tokens if its answer was cut off; None for nothing."""
    if store.get(request.key) is not None:
        return None
    if store.cut_off(request.key) is None:
        return request
    longer = _request(labeler, request.asked, request.vote, request.size, longer=True)
    return longer if (store.get(longer.key) or store.cut_off(longer.key)) is None else None


def _request(labeler: JudgeLabeler, asked: Asked, vote: int, size: int, longer: bool = False) -> Request:
    prompt = labeler.prompt
    steps = len(asked.ids)
    body = request_body(labeler.settings, asked.messages, steps, prompt.file.asks, labeler.form, vote, longer)
    key = request_key(labeler.connection.endpoint.base_url, body, prompt.version, vote)
    return Request(asked, vote, key, body, size)


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as handle:
            while line := handle.readline(_MOST_RESULT_BYTES):
                if line.strip():
                    yield line
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error}") from None


def _result(labeler: JudgeLabeler, wanted: dict[str, Request], line: bytes) -> tuple[str, Answer | None]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return "malformed", None
    if not isinstance(value, dict) or not isinstance(value.get("custom_id"), str):
        return "malformed", None
    if value["custom_id"] not in wanted:
        return "unknown", None
    response = value.get("response")
    if value.get("error") or not isinstance(response, dict) or response.get("status_code", 200) != 200:
        return "failed", None
    request = wanted[value["custom_id"]]
    try:
        reply = reply_of(json.dumps(response.get("body")).encode(), request.size)
    except MalformedReplyError:
        return "malformed", None
    reading = read_answer(labeler.prompt.file.asks, reply.text, request.asked.ids, request.asked.shown)
    return "read", answer_of(request.key, labeler.settings.model, reply, reading)
