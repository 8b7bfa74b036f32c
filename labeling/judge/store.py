"""Answers on disk, so that what was paid for is never asked twice.

Answers that can be used are found again by the hash of all that led to them. Those that cannot be used (refusals, cut
off, unreadable) are kept as well, to be looked at and counted, and never given out as the answer; one that was cut off
tells that twice the tokens are to be asked for. JSON text, compressed; no pickle.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labeling.judge.reply import Reply, Usage
from prm_kit.errors import InputError

STORE_VERSION = 1
APPLICATION_ID = 0x70726D4A
"""Marks the file as ours in its header: "prmJ"."""

_COLUMNS = "model, finish, refusal, prompt_tokens, completion_tokens, estimated, text"
_UNUSABLE_INDEX = "CREATE INDEX IF NOT EXISTS unusable_by_key ON answers (key) WHERE usable = 0"

_SCHEMA = (
    """
    CREATE TABLE answers (
        seq INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        usable INTEGER NOT NULL CHECK (usable IN (0, 1)),
        faults TEXT NOT NULL,  -- what was wrong with it, for people
        model TEXT NOT NULL,
        asked_model TEXT NOT NULL,
        finish TEXT NOT NULL,
        refusal TEXT,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        estimated INTEGER NOT NULL,
        text BLOB NOT NULL  -- UTF-8, zlib
    ) STRICT
    """,
    "CREATE UNIQUE INDEX answers_by_key ON answers (key) WHERE usable",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {STORE_VERSION}",
)


@dataclass(frozen=True)
class Answer:
    """A model's answer to one request, and whether anything could be read from it.

    Attributes:
        key: Hash of the request.
        asked_model: The model's name in the request.
        reply: The answer.
        usable: Whether it may be given out again.
        faults: What was wrong with it, in words; "" for nothing.
    """

    key: str
    asked_model: str
    reply: Reply
    usable: bool
    faults: str = ""


class AnswerStore:
    """An opened store of answers. One object belongs to one thread.

    Raises:
        InputError: The file is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=60.0, isolation_level=None)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise InputError(f"{path}: is no store of answers: {error}") from None
        except InputError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def append(self, answers: Sequence[Answer]) -> None:
        """Store answers, all of them or none. A usable answer that is already there stays as it is."""
        if not answers:
            return
        rows = [
            (
                answer.key,
                answer.usable,
                answer.faults,
                answer.reply.model,
                answer.asked_model,
                answer.reply.finish,
                answer.reply.refusal and _storable(answer.reply.refusal),
                answer.reply.usage.prompt_tokens,
                answer.reply.usage.completion_tokens,
                answer.reply.usage.estimated,
                zlib.compress(answer.reply.text.encode("utf-8", "replace"), 6),
            )
            for answer in answers
        ]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(
                "INSERT INTO answers (key, usable, faults, model, asked_model, finish, refusal, prompt_tokens, "
                "completion_tokens, estimated, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                rows,
            )
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def get(self, key: str) -> Reply | None:
        """The usable answer to a request, or None."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM answers WHERE key = ? AND usable", (key,))  # noqa: S608
        return next(map(_reply, rows), None)

    def cut_off(self, key: str) -> Reply | None:
        """The first answer to a request that the limit of tokens ended, or None."""
        return next((reply for reply in self._unusable(key) if reply.cut_off and not reply.refused), None)

    def holds(self, answer: Answer) -> bool:
        """Whether the request has a usable answer, or this very one that cannot be used: read a second time, say."""
        if self.get(answer.key) is not None:
            return True
        same = replace(answer.reply, text=_storable(answer.reply.text))
        if same.refusal is not None:
            same = replace(same, refusal=_storable(same.refusal))
        return any(reply == same for reply in self._unusable(answer.key))

    def _unusable(self, key: str) -> Iterator[Reply]:
        query = f"SELECT {_COLUMNS} FROM answers WHERE key = ? AND usable = 0 ORDER BY seq"  # noqa: S608
        return map(_reply, self._db.execute(query, (key,)).fetchall())

    def spent(self, asked_model: str) -> Usage:
        """What the answers of a model used, also those that cannot be used."""
        calls, read, written, estimated = self._db.execute(
            "SELECT count(*), total(prompt_tokens), total(completion_tokens), max(estimated) FROM answers "
            "WHERE asked_model = ?",
            (asked_model,),
        ).fetchone()
        return Usage(calls, int(read), int(written), bool(estimated))

    def fact(self, name: str) -> str | None:
        """A fact that was noted, such as the form of answer that an endpoint honours; None if it was not."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def note(self, name: str, value: str) -> None:
        """Note a fact."""
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def _prepare(self) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != APPLICATION_ID:
            raise InputError(f"{self.path}: a database of something else, no store of answers")
        self._to_wal()
        self._db.execute("PRAGMA synchronous = FULL")  # answers were paid for
        self._db.execute("BEGIN IMMEDIATE")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _SCHEMA:
                self._db.execute(statement)
            version = STORE_VERSION
        if version == STORE_VERSION:
            self._db.execute(_UNUSABLE_INDEX)  # stores of before it was added have none
        self._db.execute("COMMIT")
        if version != STORE_VERSION:
            raise InputError(f"{self.path}: store of version {version}, this prm-kit reads {STORE_VERSION}")

    def _to_wal(self) -> None:
        """Switching to the write-ahead log is the one statement that does not wait for another process."""
        until = time.monotonic() + 60.0
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.01)


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _reply(row: Sequence[Any]) -> Reply:
    model, finish, refusal, read, written, estimated, text = row
    usage = Usage(1, read, written, bool(estimated))
    return Reply(zlib.decompress(text).decode("utf-8"), finish, refusal, model, usage)
