"""Which structured output an endpoint honours: asked once, with one small solution of our own, and noted.

Servers accept a schema and ignore it, refuse it, or return nothing with it; only trying tells. The probe is a real
request, so it also shows that address, key and model are right before ten thousand are sent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from labeling.judge.answer import Reading, read_answer
from labeling.judge.client import EndpointError, RefusedError, UnansweredError
from labeling.judge.prompt import Prompt, render
from labeling.judge.reply import Reply
from labeling.judge.session import Connection, Session
from labeling.judge.settings import JudgeSettings, request_body
from labeling.judge.store import AnswerStore
from labeling.judge.structured import LADDER, Form, forms_for
from prm_kit.records import Solution

EXAMPLE = Solution.from_steps(
    "A shelf holds 3 rows of 4 books. Two books are taken away. How many are left?",
    ["There are 3 times 4, so 12 books on the shelf.", "After two are taken away, 12 - 2 = 10 books are left."],
)


def noted_form(connection: Connection, prompt: Prompt, model: str) -> Form | None:
    """The form that an earlier probe found; None if there was none."""
    store = AnswerStore(connection.store)
    try:
        noted = store.fact(_fact(connection, prompt, model))
    finally:
        store.close()
    return next((form for form in LADDER if form == noted), None)


async def probe(
    connection: Connection, prompt: Prompt, settings: JudgeSettings, forms: Sequence[Form] | None = None
) -> Form:
    """Try the forms in order, note the first one that works and return it; None: those of `forms_for`.

    A form works if the endpoint takes it and the answer is JSON with steps; the last one only has to be taken, because
    there is nothing below it.

    Raises:
        EndpointError: The endpoint cannot be used, or refuses or does not answer even the last form.
        LimitReachedError: The budget does not allow it.
    """
    if forms is None:
        forms = forms_for(prompt.file.asks)
    async with connection.open() as session:
        for form in forms:
            why = await _try(session, prompt, settings, form, last=form == forms[-1])
            if why is None:
                break
        else:
            raise EndpointError(f"{connection.endpoint.chat_url}: no answer to a test request: {why}")
    store = AnswerStore(connection.store)
    try:
        store.note(_fact(connection, prompt, settings.model), form)
    finally:
        store.close()
    return form


async def _try(session: Session, prompt: Prompt, settings: JudgeSettings, form: Form, last: bool) -> str | None:
    """Why a form does not work, None if it does."""
    asked = render(prompt, EXAMPLE)
    asks, steps = prompt.file.asks, len(asked.ids)
    body = request_body(settings, asked.messages, steps, asks, form)

    def read(reply: Reply) -> Reading:
        return read_answer(asks, reply.text, asked.ids, asked.shown)

    try:
        reply, reading, _ = await session.ask(body, prompt.version, 0, read)
    except RefusedError as error:
        return str(error)
    except UnansweredError as error:
        # A server that fails on one form may do well with the next, unless it cannot be reached at all.
        if error.kind in ("connection", "429", "not in store"):
            raise EndpointError(f"no answer to a test request: {error}") from None
        return str(error)
    if reading.judged or last or _has_steps(reply.text):
        return None
    return f"asked for {form}, it wrote {reply.text[:80]!r}"


def _has_steps(text: str) -> bool:
    """Whether the whole text is an object of the form asked for, whatever it says: the form was honoured."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and isinstance(value.get("steps"), list)


def _fact(connection: Connection, prompt: Prompt, model: str) -> str:
    return f"form {connection.endpoint.base_url} {model} {prompt.version}"
