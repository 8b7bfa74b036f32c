"""The judge as a labeller: votes of a model on every step, to labels with shares."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from labeling.judge.answer import FAULT_TEXT, READING, Fault, Reading, read_answer
from labeling.judge.client import RefusedError, UnansweredError
from labeling.judge.facets import DERIVATION, derived
from labeling.judge.prompt import Asked, Prompt, render
from labeling.judge.reply import Reply
from labeling.judge.session import Connection, Session
from labeling.judge.settings import JudgeSettings, request_body
from labeling.judge.structured import Form
from labeling.judge.votes import Outcome, Vote, critic_outcomes, tally
from labeling.rules import FILLER, says_nothing
from labeling.rules import VERSION as RULES_VERSION
from prm_kit.files import value_sha256
from prm_kit.records import Annotation, Rater, Solution, StepLabel, step_hash

FLAGS = ("unparsed", "partial", "refused", "tie", "control_text", "nothing_said")
"""Flags of a judge's annotations: no answer could be read; some steps could not; the model or the server declined;
votes were even; marks of a chat template stood in the text; no step says anything, so no model was asked."""


@dataclass(frozen=True)
class Ballot:
    """One vote: what was read from up to two answers.

    Attributes:
        reading: What was read.
        keys: The keys of the answers in the store.
        model: The model that answered, in the server's words.
        refused: Whether it, or the server, declined.
    """

    reading: Reading
    keys: tuple[str, ...] = ()
    model: str = ""
    refused: bool = False


class JudgeLabeler:
    """Labels steps by asking a model.

    Args:
        connection: How it is reached.
        prompt: What it is asked.
        settings: How it is asked.
        form: Structured output that the endpoint honours.
    """

    def __init__(self, connection: Connection, prompt: Prompt, settings: JudgeSettings, form: Form) -> None:
        self.connection = connection
        self.prompt = prompt
        self.settings = settings
        self.form = form
        # The number of requests at once, retries and the like change no label and are not part of the version.
        how = value_sha256([settings.model_dump(), form, DERIVATION, READING, RULES_VERSION])
        self._rater = Rater("judge", f"{settings.model}/{prompt.file.name}", f"{prompt.version}.{how[:8]}")

    @property
    def rater(self) -> Rater:
        """Model and prompt; the version holds the prompt's version and hash and a hash of the settings."""
        return self._rater

    def label(self, solutions: Sequence[Solution]) -> Iterator[Annotation]:
        """Label every solution, all at once. The answers are stored; nothing is written to a ledger.

        Raises:
            EndpointError, UnansweredError, LimitReachedError: See `labeling.judge.client`.
        """

        async def ask() -> list[Annotation]:
            async with self.connection.open() as session:
                return await asyncio.gather(*(self.judge(solution, session) for solution in solutions))

        return iter(asyncio.run(ask()))

    async def judge(self, solution: Solution, session: Session) -> Annotation:
        """Label one solution.

        Raises:
            EndpointError, UnansweredError, LimitReachedError: See `labeling.judge.client`.
        """
        fillers = self._fillers(solution)
        if len(fillers) == len(solution.spans):
            labels = [StepLabel(i, -1, step_hash(text), comment=fillers[i]) for i, text in enumerate(solution.steps)]
            return self._annotation(solution, labels, ["nothing_said"], {})
        asked = render(self.prompt, solution, self.settings.show_reference)
        votes = range(self.settings.votes)
        ballots = await asyncio.gather(
            *(self._ballot(solution, asked, n, session) for n in votes), return_exceptions=True
        )
        for ballot in ballots:
            if isinstance(ballot, BaseException):
                raise ballot
        return self._counted(solution, asked, [ballot for ballot in ballots if isinstance(ballot, Ballot)], fillers)

    async def _ballot(self, solution: Solution, asked: Asked, vote: int, session: Session) -> Ballot:
        """One vote: ask, and once more if the answer was cut off or something in it could not be read.

        Where nothing may be asked, an answer in which something could be read stands as it is; one that was cut off
        does not, so that the solution stays to be asked with twice the tokens.
        """
        try:
            reply, reading, key = await self._ask(asked, vote, session)
        except RefusedError:
            return Ballot(Reading(), refused=True)
        first = Ballot(reading, (key,), reply.model, reply.refused)
        if reply.refused or not (reply.cut_off or reading.faults):
            return first
        try:
            if reply.cut_off:
                again, second, other = await self._ask(asked, vote, session, longer=True)
            else:
                fault = max(reading.faults, key=lambda kind: reading.faults[kind])
                told = render(self.prompt, solution, self.settings.show_reference, FAULT_TEXT[fault])
                again, second, other = await self._ask(told, vote, session)
        except RefusedError:  # too long for the server, say: what the first answer said remains
            return first
        except UnansweredError as error:
            if reply.cut_off or error.kind != "not in store":
                raise
            return first
        return Ballot(_joined(reading, second), (key, other), again.model, again.refused)

    async def _ask(self, asked: Asked, vote: int, session: Session, longer: bool = False) -> tuple[Reply, Reading, str]:
        asks, steps = self.prompt.file.asks, len(asked.ids)
        body = request_body(self.settings, asked.messages, steps, asks, self.form, vote, longer)

        def read(reply: Reply) -> Reading:
            return read_answer(asks, reply.text, asked.ids, asked.shown)

        return await session.ask(body, self.prompt.version, vote, read)

    def _counted(self, solution: Solution, asked: Asked, ballots: list[Ballot], fillers: dict[int, str]) -> Annotation:
        """Votes to labels, with all that is needed to derive the labels again."""
        steps = len(solution.spans)
        readings = [ballot.reading for ballot in ballots]
        judged = [reading for reading in readings if reading.judged]
        critic = self.prompt.file.asks == "first_error"
        outcomes = _critics(judged, steps) if critic else tally([_vote(reading) for reading in judged], steps)
        said = {"first_errors": _indices(readings)} if critic else {"facets": _codes(readings, steps)}
        labels = [
            self._step_label(step, text, outcome, judged, fillers.get(step))
            for step, (text, outcome) in enumerate(zip(solution.steps, outcomes, strict=True))
            if outcome is not None
        ]
        raised = {
            "unparsed": not judged,
            "partial": bool(judged) and not critic and None in outcomes,
            "refused": any(ballot.refused for ballot in ballots),
            "tie": any(outcome is not None and outcome.tied for outcome in outcomes),
            "control_text": asked.defused > 0,
        }
        faults = Counter[Fault]()
        for reading in readings:
            faults.update(reading.faults)
        meta = {
            "answered_by": sorted({ballot.model for ballot in ballots if ballot.model}),
            "answers": [list(ballot.keys) for ballot in ballots],
            "faults": dict(sorted(faults.items())),
        }
        return self._annotation(solution, labels, [flag for flag in FLAGS if raised.get(flag)], said | meta)

    def _step_label(self, step: int, text: str, outcome: Outcome, read: list[Reading], filler: str | None) -> StepLabel:
        if filler is not None and outcome.value == 1:
            # Phrases that say nothing draw a "correct" from judges (arXiv 2507.08794); that is known without one.
            return StepLabel(step, 0, step_hash(text), comment=filler)
        reason = next(
            (
                reading.reasons[step]
                for reading in read
                if step in reading.facets and derived(reading.facets[step]) == outcome.value and reading.reasons[step]
            ),
            None,
        )
        return StepLabel(step, outcome.value, step_hash(text), outcome.shares, outcome.votes or None, comment=reason)

    def _annotation(
        self, solution: Solution, labels: list[StepLabel], flags: list[str], meta: Mapping[str, object]
    ) -> Annotation:
        provenance = {
            "steps": len(solution.spans),
            "prompt": self.prompt.version,
            "prompt_sha256": self.prompt.sha256,
            "derivation": DERIVATION,
            "form": self.form,
        }
        # microseconds: of two passes within one second, the later one must still count as another
        time = datetime.now(UTC).isoformat(timespec="microseconds")
        return Annotation(solution.id, self._rater, tuple(labels), time, tuple(flags), meta=provenance | dict(meta))

    def says_nothing(self, solution: Solution) -> bool:
        """Whether no step says anything, so that no model is asked."""
        return len(self._fillers(solution)) == len(solution.spans)

    def _fillers(self, solution: Solution) -> dict[int, str]:
        """Steps that say nothing, by the rules, with the rule's comment. What can be the answer says something."""
        answers = [answer for answer in (solution.final_answer, solution.reference_answer) if answer is not None]
        last = len(solution.spans) - 1
        return {
            step: FILLER for step, text in enumerate(solution.steps) if says_nothing(text, answers, last=step == last)
        }


def _vote(reading: Reading) -> Vote:
    return {step: derived(said) for step, said in reading.facets.items()}


def _critics(judged: Sequence[Reading], steps: int) -> list[Outcome | None]:
    return critic_outcomes([reading.first_error for reading in judged], steps)[0] if judged else [None] * steps


def _codes(readings: Sequence[Reading], steps: int) -> list[list[str | None]]:
    """Per vote and step the facets as three letters; None where nothing could be read."""
    return [
        [reading.facets[step].code if step in reading.facets else None for step in range(steps)] for reading in readings
    ]


def _indices(readings: Sequence[Reading]) -> list[int | str | None]:
    return [reading.first_error if reading.judged else "unparsed" for reading in readings]


def _joined(first: Reading, second: Reading) -> Reading:
    """What two answers say together: for a step that both judge the first one counts, of two indices the later."""
    return Reading(
        facets={**second.facets, **first.facets},
        reasons={**second.reasons, **first.reasons},
        first_error=second.first_error if second.judged else first.first_error,
        judged=first.judged or second.judged,
        faults=dict(second.faults),
    )
