"""Generative PRMs: language models that write what they think of each step, and end it with a verdict.

GenPRM judges step after step in one conversation; ThinkPRM writes one verification of the whole solution. Where no
verdict can be read the step has no score: it is never taken for right, nor for a toss-up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import Tensor
from transformers import PreTrainedModel

from prm_kit.encode import TooLongError
from prm_kit.engines.engine import Engine
from prm_kit.engines.transformers_engine import TransformersEngine
from prm_kit.records import Solution
from prm_kit.released.assembly import one_token
from prm_kit.released.checkpoint import Checkpoint
from prm_kit.released.writing import Chat, Written, next_log_probabilities, token_at, write_until
from prm_kit.score import Probabilities, StepScores, check_scores

GENPRM_SYSTEM = "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."
GENPRM_ANALYZE = "<analyze>\nLet's analyze the Paragraph {number} step by step: "
GENPRM_OUTPUT = "<output>\n**Judgement**: $\\boxed"
THINKPRM_USER = (
    "You are given a math problem and a proposed step-by-step solution:\n\n[Math Problem]\n\n{problem}\n\n"
    "[Solution]\n\n{solution}\n\nReview and critique each step in the proposed solution to determine whether each step "
    "is correct. If the solution is incomplete, only verify the provided steps."
)
THINKPRM_OPENING = "\nLet's verify step by step:"
"""Prompts of RyanLiu112/GenPRM and mukhal/ThinkPRM (MIT), which the models were trained with."""

_TOP = 20  # log-probabilities that GenPRM's script asks for; a token beyond them counts as the least of them
_VERDICT = re.compile(r"\\boxed\{(correct|incorrect)\}")


@dataclass
class Writing:
    """How a generative PRM is asked. The authors sample; the likeliest token, the default here, can be reproduced.

    Attributes:
        model: The language model.
        chat: Its conversations.
        engine: Generates with it.
        name: What reports call the scorer.
        max_new_tokens: Most tokens of one analysis.
        temperature: 0 takes the likeliest token (GenPRM's script: 0.6, ThinkPRM's: 0.7).
        samples: Verifications whose verdicts are averaged.
        seed: Of the sampling.
        token_budget: Most padded tokens of one forward that reads verdicts.
    """

    model: PreTrainedModel
    chat: Chat
    engine: Engine
    name: str
    max_new_tokens: int = 2048
    temperature: float = 0.0
    samples: int = 1
    seed: int = 0
    token_budget: int = 16_384

    def write(
        self,
        solutions: Sequence[Solution],
        prompts: Sequence[list[int]],
        stops: Sequence[Sequence[str]],
        sample: int,
        turn: int = 0,
    ) -> list[Written]:
        """One text for each prompt, the one of this sample and turn, whatever is asked beside it."""
        most = int(getattr(self.model.config, "max_position_embeddings", None) or 1 << 30)
        for solution, prompt in zip(solutions, prompts, strict=True):
            if len(prompt) + self.max_new_tokens > most:
                raise TooLongError(
                    f"solution {solution.id}: {len(prompt)} tokens and {self.max_new_tokens} to write are more than "
                    f"the {most} of the model; lower max_new_tokens",
                    solution.id,
                    len(prompt) + self.max_new_tokens,
                    most,
                )
        seed = (self.seed, sample, turn)
        return write_until(self.engine, self.chat, prompts, stops, self.max_new_tokens, self.temperature, seed)


class GenPrm:
    r"""GenPRM (arXiv 2504.00891): a turn for each step, an analysis, then `\boxed{Yes}` or `\boxed{No}`.

    The authors can also let the model write Python and run it; that is left out here.
    """

    def __init__(self, writing: Writing) -> None:
        self.name = writing.name
        self.writing = writing

    def score(self, solutions: Sequence[Solution]) -> list[StepScores]:
        """Score every step of every solution; None where no verdict was written."""
        found: list[list[list[float]]] = [[[] for _ in solution.spans] for solution in solutions]
        for sample in range(self.writing.samples):
            contents: list[list[str]] = [[] for _ in solutions]
            for step in range(max((len(solution.spans) for solution in solutions), default=0)):
                members = [index for index, solution in enumerate(solutions) if step < len(solution.spans)]
                for index in members:
                    problem = f"{solutions[index].problem}\n" if step == 0 else ""
                    contents[index].append(problem + solutions[index].steps[step])
                asked = [(solutions[index], contents[index]) for index in members]
                for index, right in zip(members, self._turn(asked, step + 1, sample), strict=True):
                    found[index][step] += [] if right is None else [right]
        scores = [_scores(steps) for steps in found]
        check_scores(solutions, scores)
        return scores

    def _turn(self, asked: Sequence[tuple[Solution, list[str]]], number: int, sample: int) -> list[float | None]:
        """Probability that a step is right; the answers are appended to the contents of the conversations."""
        opening = GENPRM_ANALYZE.replace("{number}", str(number))
        solutions = [solution for solution, _ in asked]
        roles: list[tuple[str, str | None]] = [("system", GENPRM_SYSTEM)]
        roles += [(role, None) for _ in range(number) for role in ("user", "assistant")][:-1]

        def write(tails: Sequence[str], stop: str, turn: int) -> tuple[list[list[int]], list[Written]]:
            chat = self.writing.chat
            prompts = [chat.ids(roles, contents, tail, False) for (_, contents), tail in zip(asked, tails, strict=True)]
            return prompts, self.writing.write(solutions, prompts, [[stop]] * len(prompts), sample, turn)

        _, analyses = write([opening] * len(asked), "</analyze>\n", 2 * number)
        tails = [f"{opening}{one.text}{'' if one.stop else '</analyze>' + chr(10)}{GENPRM_OUTPUT}" for one in analyses]
        prompts, outputs = write(tails, "</output>\n", 2 * number + 1)
        for (_, contents), tail, output in zip(asked, tails, outputs, strict=True):
            contents.append(tail + output.text)
        return self._verdicts(solutions, prompts, outputs)

    def _verdicts(
        self, solutions: Sequence[Solution], prompts: Sequence[list[int]], outputs: Sequence[Written]
    ) -> list[float | None]:
        tokens = {word: one_token(self.writing.chat.checkpoint, word) for word in ("Yes", "No")}
        chosen: list[tuple[int, str, int]] = []
        for index, output in enumerate(outputs):
            match = re.search(r"(Yes|No)\}", output.text, re.IGNORECASE)
            word = match[1].capitalize() if match else ""
            if word and tokens[word] in output.ids:
                last = len(output.ids) - 1 - output.ids[::-1].index(tokens[word])
                chosen.append((index, word, last))
        prefixes = [[*prompts[index], *outputs[index].ids[:at]] for index, _, at in chosen]
        found: list[float | None] = [None] * len(outputs)
        if chosen:
            rows = _read(self.writing, [solutions[index] for index, _, _ in chosen], prefixes)
            for (index, word, _), row_V in zip(chosen, rows, strict=True):
                found[index] = yes_share(row_V, tokens["Yes"], tokens["No"], word)
        return found


class ThinkPrm:
    r"""ThinkPRM (arXiv 2504.16828): one verification with `\boxed{correct}` or `\boxed{incorrect}` for each step.

    A step's verdict is the last one in the block that its "Step i:" opens; its probability is that of the verdict's
    first token against the other's. The yes or no that the authors ask for at the end is about the whole solution.
    """

    def __init__(self, writing: Writing) -> None:
        self.name = writing.name
        self.writing = writing

    def score(self, solutions: Sequence[Solution]) -> list[StepScores]:
        """Score every step of every solution; None where no verdict was written."""
        chat = self.writing.chat
        prompts = [
            chat.ids([("user", None)], [self.prompt(solution)], THINKPRM_OPENING, True) for solution in solutions
        ]
        stops = [["Is the solution correct?", "</think>", f"Step {len(solution.spans) + 1}:"] for solution in solutions]
        found: list[list[list[float]]] = [[[] for _ in solution.spans] for solution in solutions]
        for sample in range(self.writing.samples):
            for index, written in enumerate(self.writing.write(solutions, prompts, stops, sample)):
                for step, right in self._verdicts(solutions[index], prompts[index], written).items():
                    found[index][step].append(right)
        scores = [_scores(steps) for steps in found]
        check_scores(solutions, scores)
        return scores

    def prompt(self, solution: Solution) -> str:
        """The user's message."""
        steps = "\n".join(f"Step {number + 1}: {step}" for number, step in enumerate(solution.steps)).strip()
        before, rest = THINKPRM_USER.split("{problem}")
        between, after = rest.split("{solution}")
        return f"{before}{solution.problem}{between}{steps}{after}"

    def _verdicts(self, solution: Solution, prompt: list[int], written: Written) -> dict[int, float]:
        chat = self.writing.chat
        right, wrong = chat.first_token("correct"), chat.first_token("incorrect")
        places = {}
        for step, (start, end) in blocks(written.text, len(solution.spans)).items():
            verdicts = list(_VERDICT.finditer(written.text, start, end))
            if verdicts:
                at = token_at(chat, written.ids, verdicts[-1].start(1))
                if written.ids[at] == (right if verdicts[-1][1] == "correct" else wrong):
                    places[step] = at
        if not places:
            return {}
        prefixes = [[*prompt, *written.ids[:at]] for at in places.values()]
        rows = _read(self.writing, [solution] * len(prefixes), prefixes)
        pair_N2 = rows[:, [wrong, right]].softmax(-1)
        return dict(zip(places, pair_N2[:, 1].tolist(), strict=True))


def blocks(text: str, steps: int) -> dict[int, tuple[int, int]]:
    """Where the verification of each step stands in a text: from its "Step i:" to the next one's, or to the end.

    Steps that the text does not name in order have no block.
    """
    openings: list[tuple[int, int, int]] = []
    for match in re.finditer(r"\bStep (\d+):", text):
        if (openings[-1][0] if openings else 0) < int(match[1]) <= steps:  # a look back to a step opens no block
            openings.append((int(match[1]), match.start(), match.end()))
    starts = [start for _, start, _ in openings] + [len(text)]
    return {number - 1: (start, end) for (number, _, start), end in zip(openings, starts[1:], strict=True)}


def genprm(checkpoint: Checkpoint) -> GenPrm:
    """GenPRM-1.5B, -7B and -32B."""
    return GenPrm(_writing(checkpoint))


def thinkprm(checkpoint: Checkpoint) -> ThinkPrm:
    """ThinkPRM-1.5B, -7B and -14B."""
    return ThinkPrm(_writing(checkpoint))


def _writing(checkpoint: Checkpoint) -> Writing:
    model = checkpoint.causal()
    return Writing(model, Chat(checkpoint), TransformersEngine(model), checkpoint.name)


def _read(writing: Writing, solutions: Sequence[Solution], prefixes: Sequence[list[int]]) -> Tensor:
    names = [f"solution {solution.id}" for solution in solutions]
    return next_log_probabilities(writing.model, prefixes, names, writing.token_budget)


def yes_share(row_V: Tensor, yes: int, no: int, word: str) -> float:
    """Yes against no as GenPRM's script reads them: the word not written counts as the least of the best ones there."""
    least = float(row_V.topk(min(_TOP, len(row_V))).values[-1])
    written = float(row_V[yes if word == "Yes" else no])
    other = float(row_V[no if word == "Yes" else yes])
    other = other if other >= least else min(least, written)
    odds = Tensor([written, other]).softmax(-1)
    return float(odds[0] if word == "Yes" else odds[1])


def _scores(steps: Sequence[Sequence[float]]) -> StepScores:
    found: list[Probabilities | None] = []
    for values in steps:
        right = fmean(values) if values else None
        found.append(None if right is None else (1.0 - right, 0.0, right))
    return StepScores(tuple(found))
