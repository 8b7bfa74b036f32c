"""A language model that writes a verdict on every step, as a step scorer (the way of GenPRM, arXiv 2504.00891).

One conversation per solution: the model is shown the problem and the first step and writes what it thinks, with a
verdict in a fixed place; then the next step, with all that it wrote before it; and so on. A step's score is what the
model gave to the word for right against the word for wrong at the place of the verdict, whatever it then chose:

    p = sum of p(yes words) / (sum of p(yes words) + sum of p(no words))

A step on which no verdict can be found has no score. Nothing that the model writes is ever run.

P prefixes, T tokens, W words, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prm_kit.batching import micro_batches
from prm_kit.encode import TooLongError
from prm_kit.engines.engine import Engine, Limits
from prm_kit.errors import UsageError
from prm_kit.plain_text import plain_text_backend
from prm_kit.records import Solution
from prm_kit.score import Probabilities, StepScores, check_scores
from prm_kit.settings import Settings


class JudgeTemplate(Settings):
    """How a judge is asked, and where its verdict stands.

    Special tokens are parsed in the template's own texts; problem and steps are always plain text.

    Attributes:
        opening: What the conversation opens with (a system message).
        ask: Before what is shown (the user's header).
        lead: Between problem and first step.
        answer: After what is shown (the judge's header, and what it is made to begin with).
        close: After what the judge wrote.
        verdict: Pattern that what the judge wrote matches right before its verdict.
        yes: Words for right, one token each.
        no: Words for wrong, one token each.
    """

    opening: str = ""
    ask: str
    lead: str = "\n\n"
    answer: str
    close: str
    verdict: str = r"\\boxed\{"
    yes: tuple[str, ...] = ("Yes", " Yes")
    no: tuple[str, ...] = ("No", " No")


class NextToken(Protocol):
    """Says how likely tokens are to come next."""

    def log_probabilities(self, prefixes: Sequence[Sequence[int]], tokens: Sequence[int]) -> Tensor:
        """Natural log-probabilities of each of the tokens after each prefix, float32 [P, W] on the CPU."""
        ...


class TransformersNextToken:
    """`NextToken` with a Hugging Face causal language model.

    Args:
        model: In evaluation mode or not; it is read in evaluation mode, and the mode put back.
        token_budget: Padded tokens in one forward.
    """

    def __init__(self, model: Any, token_budget: int = 8_192) -> None:
        self.model = model
        self.token_budget = token_budget

    def log_probabilities(self, prefixes: Sequence[Sequence[int]], tokens: Sequence[int]) -> Tensor:
        """See `NextToken`."""
        found_PW = torch.zeros(len(prefixes), len(tokens))
        training = self.model.training
        self.model.train(False)
        try:
            with torch.inference_mode():
                for batch in micro_batches(range(len(prefixes)), [len(p) for p in prefixes], self.token_budget):
                    log_PV = self._last_logits([prefixes[index] for index in batch]).float().log_softmax(-1)
                    found_PW[batch] = log_PV[:, list(tokens)].cpu()
        finally:
            self.model.train(training)
        return found_PW

    def _last_logits(self, prefixes: Sequence[Sequence[int]]) -> Tensor:
        longest = max(map(len, prefixes))
        ids_PT = torch.tensor([[0] * (longest - len(prefix)) + list(prefix) for prefix in prefixes])
        mask_PT = torch.tensor([[0] * (longest - len(prefix)) + [1] * len(prefix) for prefix in prefixes])
        device = self.model.device
        output = self.model(
            input_ids=ids_PT.to(device),
            attention_mask=mask_PT.to(device),
            position_ids=(mask_PT.cumsum(1) - 1).clamp(min=0).to(device),
            use_cache=False,
            logits_to_keep=1,
        )
        logits_PV: Tensor = output.logits[:, -1]
        return logits_PV


@dataclass(frozen=True)
class VerdictReader:
    """Finds verdicts in what a judge wrote, and reads how sure it was of them.

    Attributes:
        tokenizer: The judge's.
        pattern: What the text before a verdict ends with.
        yes: Token ids for right.
        no: Token ids for wrong.
    """

    tokenizer: PreTrainedTokenizerBase
    pattern: re.Pattern[str]
    yes: tuple[int, ...]
    no: tuple[int, ...]

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, pattern: str, yes: Sequence[str], no: Sequence[str]
    ) -> VerdictReader:
        """Put a reader together. Words that are no single token of this tokenizer are left out.

        Raises:
            UsageError: None is left on one side, or a word is on both.
        """
        sides = [_single_tokens(tokenizer, words) for words in (yes, no)]
        for words, ids in zip((yes, no), sides, strict=True):
            if not ids:
                raise UsageError(f"none of {', '.join(map(repr, words))} is one token of this tokenizer")
        if set(sides[0]) & set(sides[1]):
            raise UsageError(f"yes {tuple(yes)} and no {tuple(no)} share a token")
        return cls(tokenizer, re.compile(f"(?:{pattern})$"), *sides)

    def places(self, ids: Sequence[int]) -> list[int]:
        """Indices of the tokens that are verdicts: yes or no, with the pattern right before them."""
        words = {*self.yes, *self.no}
        return [
            index
            for index, token in enumerate(ids)
            if token in words and self.pattern.search(str(self.tokenizer.decode(list(ids[:index]))))
        ]

    def probabilities(self, prefixes: Sequence[Sequence[int]], next_token: NextToken) -> list[float]:
        """p(yes) / (p(yes) + p(no)) of what comes after each prefix, in [0, 1]."""
        if not prefixes:
            return []
        log_PW = next_token.log_probabilities(prefixes, [*self.yes, *self.no]).double()
        yes_P, no_P = (part_PW.logsumexp(dim=-1) for part_PW in log_PW.tensor_split([len(self.yes)], dim=-1))
        found: list[float] = torch.sigmoid(yes_P - no_P).tolist()
        return found


@dataclass
class _Chain:
    """One conversation about one solution."""

    solution: int
    number: int
    ids: list[int]
    found: list[float | None]


class GenerativeScorer:
    """Scores steps by a judge's verdicts, all solutions side by side, step after step.

    Args:
        engine: Writes.
        next_token: Says how likely the words for right and wrong were; of the same model.
        tokenizer: The model's.
        template: How it is asked.
        limits: How long and at which temperature it writes on a step; its stop tokens end a verdict.
        conversations: About each solution, independent of each other; scores are the mean over those with a verdict.
        max_tokens: Most tokens of a conversation; None: no limit.
        name: What reports call it.

    Raises:
        UsageError: No word for right or wrong is a token, or no conversation is asked for.
    """

    def __init__(
        self,
        engine: Engine,
        next_token: NextToken,
        tokenizer: PreTrainedTokenizerBase,
        template: JudgeTemplate,
        *,
        limits: Limits,
        conversations: int = 1,
        max_tokens: int | None = None,
        name: str = "generative",
    ) -> None:
        if conversations < 1:
            raise UsageError(f"{conversations} conversations about each solution: at least 1 is needed")
        self.engine, self.next_token, self.tokenizer, self.template = engine, next_token, tokenizer, template
        self.limits, self.conversations, self.max_tokens, self.name = limits, conversations, max_tokens, name
        self.reader = VerdictReader.of(tokenizer, template.verdict, template.yes, template.no)
        self._backend: Any = tokenizer.backend_tokenizer
        self._plain = plain_text_backend(self._backend, literal=[], continued=True)

    def score(self, solutions: Sequence[Solution]) -> list[StepScores]:
        """Score every step of every solution; None where no conversation has a verdict on it.

        Raises:
            TooLongError: A conversation does not fit; the solution and the step are named.
        """
        opening = self._parsed(self.template.opening)
        chains = [
            _Chain(index, number, list(opening), [])
            for index in range(len(solutions))
            for number in range(self.conversations)
        ]
        for step in range(max((len(solution.spans) for solution in solutions), default=0)):
            self._ask([chain for chain in chains if step < len(solutions[chain.solution].spans)], solutions, step)
        scores = [
            StepScores(tuple(map(_mean, zip(*(c.found for c in chains if c.solution == index), strict=True))))
            for index in range(len(solutions))
        ]
        check_scores(solutions, scores)
        return scores

    def _ask(self, chains: Sequence[_Chain], solutions: Sequence[Solution], step: int) -> None:
        """Take every conversation one step further."""
        for chain in chains:
            chain.ids += self._question(solutions[chain.solution], step)
            if self.max_tokens is not None and len(chain.ids) + self.limits.max_new_tokens > self.max_tokens:
                raise TooLongError(
                    f"solution {solutions[chain.solution].id}, step {step}: the conversation has {len(chain.ids)} "
                    f"tokens and may get {self.limits.max_new_tokens} more; {self.max_tokens} are allowed",
                    solutions[chain.solution].id,
                    len(chain.ids) + self.limits.max_new_tokens,
                    self.max_tokens,
                    step,
                )
        places: list[tuple[_Chain, list[int]]] = []
        for number in range(self.conversations):
            mine = [chain for chain in chains if chain.number == number]
            limits = replace(self.limits, seed=self.limits.seed + number)
            for chain, [rollout] in zip(mine, self.engine.generate([c.ids for c in mine], 1, limits), strict=True):
                ended = rollout.finish == "stop"
                written = list(rollout.ids[:-1] if ended else rollout.ids)
                chain.found.append(None)
                found = self.reader.places(written)
                if found:  # the last verdict is the one that it came to
                    places.append((chain, chain.ids + written[: found[-1]]))
                chain.ids = chain.ids + written + self._parsed(self.template.close)
        values = self.reader.probabilities([prefix for _, prefix in places], self.next_token)
        for (chain, _), value in zip(places, values, strict=True):
            chain.found[-1] = value

    def _question(self, solution: Solution, step: int) -> list[int]:
        start, end = solution.spans[step]
        shown = solution.completion[start:end]
        if step == 0:
            shown = f"{solution.problem}{self.template.lead}{shown}"
        plain: list[int] = self._plain.encode(shown, add_special_tokens=False).ids
        return [*self._parsed(self.template.ask), *plain, *self._parsed(self.template.answer)]

    def _parsed(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids


def _single_tokens(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> tuple[int, ...]:
    every = [tokenizer.encode(word, add_special_tokens=False) for word in words]
    return tuple(dict.fromkeys(ids[0] for ids in every if len(ids) == 1 and ids[0] != tokenizer.unk_token_id))


def _mean(values: Sequence[float | None]) -> Probabilities | None:
    said = [value for value in values if value is not None]
    if not said:
        return None
    right = sum(said) / len(said)
    return 1 - right, 0.0, right
