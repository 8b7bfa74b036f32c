"""The tables of a ledger, the triggers that keep them append-only, and how the file is opened and written."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prm_kit.errors import InputError
from prm_kit.records import RATER_KINDS

LEDGER_VERSION = 1
"""Raised whenever a reader of the version before would misread a ledger."""

BUSY_SECONDS = 60.0
"""How long a writer waits for its turn before it gives up."""

APPLICATION_ID = 0x70726D4B
"""Marks the file as ours in its header: "prmK"."""

_KINDS = ", ".join(f"'{kind}'" for kind in RATER_KINDS)

_TABLES = (
    """
    CREATE TABLE solutions (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE CHECK (length(id) = 32),
        record TEXT NOT NULL  -- its JSON form; the id is its content address
    ) STRICT
    """,
    f"""
    CREATE TABLE annotations (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE CHECK (length(id) = 32),
        solution_id TEXT NOT NULL REFERENCES solutions (id),
        rater_kind TEXT NOT NULL CHECK (rater_kind IN ({_KINDS})),
        rater_name TEXT NOT NULL CHECK (rater_name <> ''),
        rater_version TEXT NOT NULL,
        time TEXT NOT NULL,
        flags TEXT NOT NULL,
        lead_time REAL,
        comment TEXT,
        meta TEXT NOT NULL,
        n_labels INTEGER NOT NULL CHECK (n_labels >= 0)
    ) STRICT
    """,
    """
    CREATE TABLE labels (
        annotation INTEGER NOT NULL REFERENCES annotations (seq),
        step INTEGER NOT NULL CHECK (step >= 0),
        value INTEGER CHECK (value IN (-1, 0, 1)),  -- null: not judged, or judged in shares only
        step_hash TEXT NOT NULL CHECK (length(step_hash) = 32),
        share_wrong REAL CHECK (share_wrong BETWEEN 0 AND 1),
        share_neutral REAL CHECK (share_neutral BETWEEN 0 AND 1),
        share_good REAL CHECK (share_good BETWEEN 0 AND 1),
        count INTEGER,
        stderr REAL,
        comment TEXT,
        sources TEXT NOT NULL,
        PRIMARY KEY (annotation, step),
        CHECK ((share_wrong IS NULL) = (share_neutral IS NULL) AND (share_wrong IS NULL) = (share_good IS NULL))
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX annotations_by_rater ON annotations (solution_id, rater_kind, rater_name, seq)",
)


def _append_only(table: str, key: str) -> list[str]:
    refuse = "SELECT RAISE(ABORT, 'the ledger is append-only')"
    return [
        f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} BEGIN {refuse}; END",
        f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} BEGIN {refuse}; END",
        # REPLACE deletes without asking the trigger above.
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "  # noqa: S608 - our own names
        f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {key}) BEGIN {refuse}; END",
    ]


SCHEMA = (
    *_TABLES,
    *_append_only("solutions", "id = NEW.id OR seq = NEW.seq"),
    *_append_only("annotations", "id = NEW.id OR seq = NEW.seq"),
    *_append_only("labels", "annotation = NEW.annotation AND step = NEW.step"),
    # An annotation is written with all of its labels: none is slipped in later.
    """
    CREATE TRIGGER labels_are_complete BEFORE INSERT ON labels
    WHEN (SELECT count(*) FROM labels WHERE annotation = NEW.annotation)
        >= coalesce((SELECT n_labels FROM annotations WHERE seq = NEW.annotation), 0)
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: this annotation has all of its labels'); END
    """,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {LEDGER_VERSION}",
)


def open_database(path: Path) -> sqlite3.Connection:
    """Open a ledger's file; an empty or absent one becomes a ledger.

    Raises:
        InputError: It is no ledger, one of another version, or cannot be opened.
    """
    try:
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise InputError(f"{path}: {error}") from None
    try:
        _prepare(db, path)
    except sqlite3.OperationalError as error:  # locked, or not to be written
        db.close()
        raise InputError(f"{path}: {error}") from None
    except sqlite3.DatabaseError as error:
        db.close()
        raise InputError(f"{path}: is no ledger: {error}") from None
    except InputError:
        db.close()
        raise
    return db


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """One transaction that takes its turn at the start, so that it never fails half way for want of it.

    Raises:
        InputError: The turn does not come, or the file cannot be written (a full disk); nothing is stored.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except BaseException as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError):
            path = db.execute("PRAGMA database_list").fetchone()[2]
            raise InputError(f"{path}: {error}; nothing was stored") from None
        raise


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    (mode,) = db.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        _retry(db, "PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    if _version(db) == 0:
        with writing(db):
            if _version(db) == 0:
                if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise InputError(f"{path}: a database of something else, no ledger")
                for statement in SCHEMA:
                    db.execute(statement)
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise InputError(f"{path}: a database of something else, no ledger")
    if _version(db) != LEDGER_VERSION:
        raise InputError(
            f"{path}: ledger of version {_version(db)}, this prm-kit reads {LEDGER_VERSION}; "
            "use the version that wrote it"
        )


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _retry(db: sqlite3.Connection, statement: str) -> None:
    """Run what SQLite does not wait for: switching to the write-ahead log while another process does the same."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)
