"""The tables of a ledger, and the triggers that keep them append-only."""

from __future__ import annotations

from prm_kit.records import RATER_KINDS

LEDGER_VERSION = 1
"""Raised whenever a reader of the version before would misread a ledger."""

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
