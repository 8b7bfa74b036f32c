"""One opened connection to a judge: client, store of answers, budget and group commit, in one event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labeling.judge.answer import FAULT_TEXT, Reading
from labeling.judge.budget import Budget, Ceilings, Need, Price
from labeling.judge.client import ChatClient, Patience, UnansweredError
from labeling.judge.commit import COMMIT_SECONDS, MOST_UNCOMMITTED, GroupCommit
from labeling.judge.endpoint import Endpoint
from labeling.judge.limiter import AdaptiveLimit
from labeling.judge.prompt import message_bytes
from labeling.judge.reply import Reply
from labeling.judge.settings import most_tokens
from labeling.judge.store import Answer, AnswerStore
from prm_kit.files import value_sha256
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, Solution

_RESERVED_BYTES_PER_TOKEN = 2


@dataclass(frozen=True)
class Judged:
    """A solution with the judge's annotation, on its way to the ledger."""

    solution: Solution
    annotation: Annotation


@dataclass(frozen=True)
class Connection:
    """How a judge is reached. Plain values: opening it makes the rest.

    Attributes:
        endpoint: Where to ask.
        store: File of the answers.
        offline: Ask nothing: only answers that are in the store count.
        ceilings: What it may cost.
        price: Price of the model.
        asked_model: The model's name in requests, under which its cost is counted.
        start: Requests in flight at first.
        concurrency: Requests in flight at most.
        patience: How long and how often to try.
        most_uncommitted: Records that a killed run may lose, besides the requests in flight.
        commit_seconds: Longest wait of a record for its commit.
    """

    endpoint: Endpoint
    store: Path
    asked_model: str
    offline: bool = False
    ceilings: Ceilings = field(default_factory=Ceilings)
    price: Price | None = None
    start: int = 10
    concurrency: int = 100
    patience: Patience = field(default_factory=Patience)
    most_uncommitted: int = MOST_UNCOMMITTED
    commit_seconds: float = COMMIT_SECONDS

    @asynccontextmanager
    async def open(self, ledger: Path | None = None, rater: Rater | None = None) -> AsyncIterator[Session]:
        """Open a session; leaving it writes what is held, whatever happened.

        Args:
            ledger: Where annotations go; None where there will be none.
            rater: Whose annotations they are.
        """
        store = AnswerStore(self.store)
        try:
            budget = Budget(self.ceilings, self.price, store.spent(self.asked_model))
            limit = AdaptiveLimit(self.start, self.concurrency)
            writer = _Writer(self.store, ledger, rater)
            async with (
                ChatClient(self.endpoint, limit, budget, self.patience) as client,
                GroupCommit[Answer | Judged](writer, self.most_uncommitted, self.commit_seconds) as commit,
            ):
                yield Session(self, client, store, commit, writer)
        finally:
            store.close()


@dataclass
class Session:
    """What is open.

    Attributes:
        connection: What was opened.
        client: Sends requests.
        store: Reads answers; they are written through `commit`.
        commit: Takes answers and annotations to the disk.
        writer: Counts what went to the ledger.
        from_store: Answers that were not asked for because they were there.
        faults: What was wrong with answers, by kind.
    """

    connection: Connection
    client: ChatClient
    store: AnswerStore
    commit: GroupCommit[Answer | Judged]
    writer: _Writer
    from_store: int = 0
    faults: dict[str, int] = field(default_factory=dict)

    async def ask(
        self, body: dict[str, Any], prompt_version: str, vote: int, read: Callable[[Reply], Reading]
    ) -> tuple[Reply, Reading, str]:
        """The answer to a request, from the store or from the endpoint.

        Args:
            body: The request.
            prompt_version: Version of the prompt.
            vote: Number of the vote: equal requests of several votes are answered one by one.
            read: Reads an answer. What it can read something from is stored to be found again.

        Returns:
            The answer, what was read, and the request's key. An answer in the store that was cut off is returned as it
            is: the same limit would cut it off again.

        Raises:
            EndpointError, RefusedError, UnansweredError, LimitReachedError: As `ChatClient.send`.
        """
        key = request_key(self.connection.endpoint.base_url, body, prompt_version, vote)
        if (known := self.store.get(key) or self.store.cut_off(key)) is not None:
            self.from_store += 1
            return known, self._counted(read(known)), key
        if self.connection.offline:
            raise UnansweredError("not in store", "no answer in the store, and nothing may be asked")

        async def deliver(reply: Reply) -> tuple[Reply, Reading, str]:
            reading = self._counted(read(reply))
            await self.commit.add(answer_of(key, self.connection.asked_model, reply, reading))
            return reply, reading, key

        need = Need(message_bytes(body["messages"]) // _RESERVED_BYTES_PER_TOKEN, most_tokens(body))
        return await self.client.send(body, need, deliver, key)

    def _counted(self, reading: Reading) -> Reading:
        for fault, times in reading.faults.items():
            self.faults[fault] = self.faults.get(fault, 0) + times
        return reading


def request_key(base_url: str, body: Mapping[str, Any], prompt_version: str, vote: int) -> str:
    """Hash of all that leads to an answer: 32 hex digits."""
    return value_sha256({"base_url": base_url, "body": body, "prompt": prompt_version, "vote": vote})[:32]


def answer_of(key: str, asked_model: str, reply: Reply, reading: Reading) -> Answer:
    """A record for the store. Refusals, answers cut off and unreadable ones are not the answer to their request."""
    usable = reading.judged and not reply.cut_off and not reply.refused
    faults = [FAULT_TEXT[fault] for fault in reading.faults]
    return Answer(key, asked_model, reply, usable, "; ".join(faults))


class _Writer:
    """Writes answers, then annotations: an annotation is never on disk without the answers it came from."""

    def __init__(self, store: Path, ledger: Path | None, rater: Rater | None) -> None:
        self.labelled_meanwhile = 0
        self._paths = (store, ledger)
        self._rater = rater
        self._store: AnswerStore | None = None
        self._ledger: Ledger | None = None

    def write(self, records: Sequence[Answer | Judged]) -> None:
        """Write records durably. What the same rater has labelled meanwhile, in another process, is left out."""
        store, ledger = self._paths
        self._store = self._store or AnswerStore(store)
        self._store.append([record for record in records if isinstance(record, Answer)])
        judged = [record for record in records if isinstance(record, Judged)]
        if not judged or ledger is None:
            return
        self._ledger = self._ledger or Ledger(ledger)
        new = [record for record in judged if not self._is_labelled(record)]
        self.labelled_meanwhile += len(judged) - len(new)
        self._ledger.append([record.annotation for record in new], [record.solution for record in new])

    def close(self) -> None:
        """Close both files."""
        if self._store is not None:
            self._store.close()
        if self._ledger is not None:
            self._ledger.close()

    def _is_labelled(self, record: Judged) -> bool:
        assert self._ledger is not None
        history = self._ledger.history(record.solution.id, self._rater)
        return bool(history) and history[-1].rater == self._rater
