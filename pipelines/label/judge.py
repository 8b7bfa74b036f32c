"""`prm-kit label judge`: a language model behind an OpenAI-compatible endpoint labels each step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.output import Json, Out, Output

_COUNTED = "the answers that OUT holds and all attempts of this run (lost ones of earlier runs are not known)"


def judge(
    inputs: Annotated[list[Path], typer.Argument(help="Snapshot directories, or files that `prm-kit import` reads.")],
    base_url: Annotated[str, typer.Option(help="OpenAI-compatible server, such as http://127.0.0.1:8000/v1.")],
    model: Annotated[str, typer.Option(help="Name of the model at the server.")],
    out: Out,
    ledger: Annotated[Path | None, typer.Option(help="Ledger to write to; default OUT/ledger.sqlite.")] = None,
    prompt: Annotated[str, typer.Option(help="facets, processbench, or a prompt file (.yaml).")] = "facets",
    language: Annotated[str, typer.Option(help="Language of the prompt: en or zh.")] = "en",
    votes: Annotated[int, typer.Option(min=1, help="Answers per solution, stored as shares.")] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE: temperature, top_p, seed, max_tokens, show_reference, extra_body.NAME."),
    ] = None,
    structured: Annotated[
        str,
        typer.Option(
            help="auto (tried once; text for processbench), json_schema_bounded, json_schema, json_object or text."
        ),
    ] = "auto",
    key_env: Annotated[str, typer.Option(help="Environment variable that holds the API key.")] = "PRM_KIT_API_KEY",
    key_file: Annotated[Path | None, typer.Option(help="File with the API key, readable by you only.")] = None,
    insecure: Annotated[bool, typer.Option(help="Allow http to another machine.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Most requests at once; adapts below it.")] = 100,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one attempt.")] = 180.0,
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds for one request with its retries.")] = 1800.0,
    prices: Annotated[Path | None, typer.Option(help="YAML: currency, models.NAME.{input,output} per million.")] = None,
    max_cost: Annotated[float | None, typer.Option(help=f"Most to pay for {_COUNTED}; needs --prices.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help=f"Most tokens, read and written, of {_COUNTED}.")] = None,
    max_calls: Annotated[int | None, typer.Option(help=f"Most calls: {_COUNTED}.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Label at most so many more solutions.")] = None,
    seed: Annotated[int, typer.Option(help="Of the order in which solutions are asked.")] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before spending.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would ask and cost, and stop.")] = False,
    batch_out: Annotated[Path | None, typer.Option(help="Write OpenAI batch files into this folder, and stop.")] = None,
    batch_in: Annotated[list[Path] | None, typer.Option(help="Read results of a batch first; often.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask nothing: use the answers in OUT only.")] = False,
    compare_with: Annotated[str, typer.Option(help="Kind of the raters in the inputs to compare with.")] = "human",
    as_json: Json = False,
) -> None:
    """Let a language model judge each step. Run the same command again to resume: nothing is paid for twice."""
    from labeling.judge.budget import Ceilings, load_price
    from labeling.judge.client import Patience
    from labeling.judge.endpoint import endpoint, load_key
    from labeling.judge.session import Connection
    from pipelines.label.judging import Judging, judge_settings

    price, currency = load_price(prices, model)
    connection = Connection(
        endpoint(base_url, load_key(key_env, key_file), insecure),
        out / "answers.sqlite",
        model,
        offline,
        Ceilings(max_calls, max_tokens, max_cost),
        price,
        concurrency=concurrency,
        patience=Patience(attempt=timeout, deadline=deadline),
    )
    judging = Judging(
        connection, prompt, language, structured, judge_settings(model, votes, settings or []), currency, out, ledger
    )
    output = Output(as_json)
    judging.start(inputs, seed, limit, output)
    if batch_out is not None:
        summary = judging.write_batch(batch_out)
    else:
        read = judging.read_batch(batch_in or [])
        estimate = judging.estimate()
        output.say(f"to do: {estimate}")
        summary = {"batch": read, "estimate": estimate}
        if not dry_run:
            judging.agree(estimate, yes)
            summary |= judging.label(output, compare_with, estimate["solutions"])
    judging.finish(summary, output)
