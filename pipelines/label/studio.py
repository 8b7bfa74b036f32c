"""`prm-kit label studio ...`: people label in Label Studio, on a server of one's own or one that is there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pipelines.label.studio_inputs import in_order, naming, predictions_of, pushed_project, server_of, solutions_of
from pipelines.output import Json, Out, Output

if TYPE_CHECKING:
    from labeling.label_studio.interface import Keyboard
    from labeling.label_studio.wording import Language, Policy

app = typer.Typer(no_args_is_help=True, help="People label in Label Studio: up, push, invite, status, pull, down.")

Data = Annotated[Path | None, typer.Option(help="Directory of the local server; default in the user's data folder.")]
Url = Annotated[str | None, typer.Option(help="Address of a server that is there, instead of a local one.")]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with the token for --url; default: environment variable LABEL_STUDIO_API_KEY.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow http:// beyond this machine.")]
Title = Annotated[str, typer.Option("--project", help="Title of the project.")]
LedgerPath = Annotated[Path | None, typer.Option("--ledger", help="Ledger; default OUT/ledger.sqlite.")]
Names = Annotated[
    str, typer.Option(help="What annotators are called: pseudonym, email, or a JSON file {e-mail address: name}.")
]
PROJECT = "prm-kit"


@app.command("up")
def up(
    data: Data = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; default: any free one.")] = None,
    host: Annotated[str, typer.Option(help="Address to bind to; another than loopback belongs behind TLS.")] = (
        "127.0.0.1"
    ),
    public_url: Annotated[
        str | None, typer.Option(help="The https address under which a proxy serves it to others.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Start a local Label Studio; the first time, install it into a virtual environment of its own."""
    from labeling.label_studio import server
    from prm_kit.secrecy import is_loopback

    output = Output(as_json)
    if not is_loopback(host):
        sys.stderr.write(
            f"prm-kit: {host} can be reached from the network, and Label Studio speaks plain http: put a proxy with "
            "TLS before it (and give its address as --public-url), or passwords can be read on the way\n"
        )
    found, started = server.up(data or server.data_directory(), _tell, port, host, public_url)
    where = found.data / "credentials.json"
    row = {"url": found.url, "started": started, "account": found.credentials.email, "credentials": str(where)}
    _show(output, row | {"data": str(found.data)})


@app.command("down")
def down(data: Data = None, as_json: Json = False) -> None:
    """Stop the local Label Studio; its data stays."""
    from labeling.label_studio import server

    _show(Output(as_json), {"stopped": server.down(data or server.data_directory())})


@app.command("invite")
def invite(
    data: Data = None, url: Url = None, token_file: TokenFile = None, insecure: Insecure = False, as_json: Json = False
) -> None:
    """Show the address at which another annotator makes an account. Whoever has it can join."""
    with server_of(data, url, token_file, insecure) as studio:
        _show(Output(as_json), {"invite": studio.invite_link()})


@app.command("push")
def push(
    out: Out,
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(help="Snapshot directories or files to import; default: the solutions of the ledger."),
    ] = None,
    ledger: LedgerPath = None,
    project: Title = PROJECT,
    queue: Annotated[Path | None, typer.Option(help="Send these solutions in this order: from `label queue`.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Send the first so many solutions.")] = None,
    overlap: Annotated[int | None, typer.Option(min=1, help="How many people label each solution.")] = None,
    predictions: Annotated[
        str | None, typer.Option(help="Fill the pages in with this rater's labels (kind:name). They bias people.")
    ] = None,
    policy: Annotated[str, typer.Option(help="all: every step; first-error: up to the first wrong one.")] = "all",
    language: Annotated[str, typer.Option(help="Of page and guide: en or zh.")] = "en",
    keyboard: Annotated[str, typer.Option(help="qwerty, azerty or qwertz.")] = "qwerty",
    data: Data = None,
    url: Url = None,
    token_file: TokenFile = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Send solutions to people. Pushing again adds only what is not there."""
    from dataclasses import asdict
    from itertools import islice

    from labeling.label_studio import push as pushing
    from labeling.label_studio.interface import Page
    from labeling.label_studio.projects import open_project
    from pipelines.data import snapshots_of
    from prm_kit.ledger import Ledger
    from prm_kit.run_directory import RunDirectory

    output = Output(as_json)
    page = Page(cast("Policy", policy), cast("Language", language), cast("Keyboard", keyboard))
    run = RunDirectory(out)
    path = ledger or out / "ledger.sqlite"
    run.start({"label": "studio push", "inputs": [str(i) for i in inputs or ()], "project": project, **asdict(page)})
    with (
        server_of(data, url, token_file, insecure) as studio,
        output.progress() as progress,
        run.timed("push"),
        Ledger(path) as store,
    ):
        beforehand = predictions_of(store, predictions) if predictions else None
        snapshots = snapshots_of(inputs, out / "imported", progress) if inputs else []
        chosen = in_order(solutions_of(snapshots, store), queue, store)
        place = open_project(studio, project, page, overlap)
        pushed = pushing.push(studio, place, page, islice(chosen, limit), store, beforehand, progress)
    run.finish({"project_title": project, "ledger": str(path), **asdict(pushed)})
    _end(output, out, pushed.solutions, added=pushed.added, known=pushed.known, differing=len(pushed.differing),
         predictions=pushed.predictions, skipped=len(pushed.skipped), retries=pushed.retries)  # fmt: skip


@app.command("pull")
def pull(
    out: Out,
    ledger: LedgerPath = None,
    project: Title = PROJECT,
    names: Names = "pseudonym",
    partial: Annotated[
        bool, typer.Option("--partial", help="Also store solutions of which an annotator has not labelled all pages.")
    ] = False,
    data: Data = None,
    url: Url = None,
    token_file: TokenFile = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Bring what people labelled into the ledger. Pulling again stores only what is new."""
    from dataclasses import asdict

    from labeling.coverage import label_report
    from labeling.label_studio import pull as pulling
    from prm_kit.run_directory import RunDirectory

    output = Output(as_json)
    run = RunDirectory(out)
    path = ledger or out / "ledger.sqlite"
    run.start({"label": "studio pull", "project": project, "ledger": str(path), "partial": partial})
    name_of = naming(names)
    with pushed_project(data, url, token_file, insecure, path, project) as at, run.timed("pull"):
        pulled, joined = pulling.pull(
            at.studio, at.project, at.page, at.ledger, out / "export.json.gz", name_of, partial=partial
        )
        report = label_report(joined)
    for kind in ("refused", "incomplete", "edited", "withdrawn"):
        _write_lines(out / f"{kind}.jsonl", getattr(pulled, kind))
    row = {key: len(value) if isinstance(value, list) else value for key, value in asdict(pulled).items()}
    run.finish({"project_title": project, "ledger": str(path), **row, "labels": report})
    for entry in pulled.refused[:20] if not as_json else ():
        output.say(f"refused: task {entry['task']}, {entry['annotator']}: {entry['reason']}")
    _end(output, out, pulled.solutions, **{key: row[key] for key in ("stored", "known", "incomplete", "refused",
         "edited", "withdrawn", "superseded")}, skipped=sum(pulled.skipped.values()))  # fmt: skip


@app.command("status")
def status(
    ledger: Annotated[Path, typer.Option(help="The ledger that `push` wrote to.")],
    project: Title = PROJECT,
    names: Names = "email",
    data: Data = None,
    url: Url = None,
    token_file: TokenFile = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Show how far the annotators are. Nothing is stored."""
    from tempfile import TemporaryDirectory

    from labeling.label_studio import status as asking

    output = Output(as_json)
    name_of = naming(names)
    with pushed_project(data, url, token_file, insecure, ledger, project) as at, TemporaryDirectory() as folder:
        export = Path(folder) / "export.json.gz"
        found = asking.status(at.studio, at.project, at.page, at.ledger.solution, export, name_of)
    if as_json:
        _show(output, found)
    else:
        _table(output, found)


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    from prm_kit.files import whole_file

    with whole_file(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _show(output: Output, row: dict[str, Any]) -> None:
    from prm_kit.files import json_text

    if output.as_json:
        sys.stdout.write(json_text(row))
    else:
        for key, value in row.items():
            output.say(f"{key}: {value}")


def _end(output: Output, out: Path, solutions: int, **counts: int) -> None:
    if not output.as_json:
        output.say(f"solutions: {solutions}")
        for key, value in counts.items():
            output.say(f"{key}: {value}")
    output.summary(out / "summary.json")


def _table(output: Output, found: dict[str, Any]) -> None:
    from rich.table import Table

    output.say(
        f"{found['project']}: {found['tasks']} pages, {found['tasks_labelled']} labelled by somebody, "
        f"{found['tasks_finished']} by as many as asked for ({found['overlap']}); policy {found['policy']}"
    )
    table = Table("annotator", "pages", "right", "neutral", "wrong", "skipped", "refused", "s/step", "last")
    for row in found["annotators"]:
        labels = row["labels"]
        cells = [row["windows"], labels["1"], labels["0"], labels["-1"], row["skipped"], row["refused"]]
        pace = "" if row["seconds_per_step"] is None else str(row["seconds_per_step"])
        table.add_row(_plain(row["annotator"]), *map(str, cells), pace, (row["last"] or "")[:16])
    output.console.print(table)
    for entry in found["incomplete"][:20]:
        pages = "; ".join(
            f"page {page['page']} of {page['of']}{_by(page['labelled_by'])}: {page['open'] or 'not on the server'}"
            for page in entry["pages"]
        )
        output.say(f"missing from {entry['annotator']}: {pages}")
    if len(found["incomplete"]) > 20:
        output.say(f"... and of {len(found['incomplete']) - 20} more solutions; --json shows all")


def _by(names: list[str]) -> str:
    return f" (labelled by {', '.join(names)})" if names else ""


def _plain(text: str) -> Any:
    """Text in a table as it is, without the display's own markup."""
    from rich.text import Text

    return Text(text)
