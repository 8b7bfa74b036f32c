"""What is said over HTTP, in both directions. Light: pydantic and the records, no web framework.

A step's reward is the number that a solution's score folds: 1 - p(-1), the chance that the step is not wrong, in
[0, 1]; where a scorer's numbers are no probabilities (`bounded` false) reward and value are that number itself.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from prm_kit.aggregate import aggregate, step_numbers
from prm_kit.errors import InputError
from prm_kit.record_checks import Span
from prm_kit.records import Solution
from prm_kit.score import Probabilities, StepScores
from prm_kit.settings import Settings
from prm_kit.split import split_solution

AggregationName = Literal["min", "last", "mean", "product"]


class StepsItem(Settings):
    """A solution whose steps are known.

    Attributes:
        problem: The problem's text.
        steps: The steps' texts, in order; none may be blank.
        separator: What stands between the steps.
        reference_answer: The right final answer, for scorers that want it.
    """

    problem: str
    steps: list[str]
    separator: str = "\n\n"
    reference_answer: str | None = None


class CompletionItem(Settings):
    """A solution as text.

    Attributes:
        problem: The problem's text.
        completion: Verbatim text.
        spans: Per step (start, end) as character offsets (code points) into `completion`; null: it is split here.
        reference_answer: The right final answer, for scorers that want it.
    """

    problem: str
    completion: str
    spans: list[Span] | None = None
    reference_answer: str | None = None


def _kind(item: Any) -> str:
    steps = "steps" in item if isinstance(item, dict) else isinstance(item, StepsItem)
    return "steps" if steps else "completion"


Item = Annotated[
    Annotated[StepsItem, Tag("steps")] | Annotated[CompletionItem, Tag("completion")], Discriminator(_kind)
]


class ScoreRequest(Settings):
    """Solutions to score, and how their steps' rewards make one score; null: as the scorer's card says."""

    items: list[Item] = Field(min_length=1)
    aggregation: AggregationName | None = None


class ScoredStep(Settings):
    """One step: p(-1), p(0), p(+1); p(+1) - p(-1); the reward; how unsure the scorer is. Null where it does not say."""

    probabilities: Probabilities | None
    value: float | None
    reward: float | None
    uncertainty: float | None = None


class ScoredItem(Settings):
    """One solution: its spans in the completion, its steps, and the rewards aggregated.

    Attributes:
        spans: Per step (start, end) as character offsets (code points) into the completion, or the joined steps.
        steps: One entry per span.
        score: The rewards aggregated; null where there is none.
        bounded: Whether values and rewards come from probabilities.
    """

    spans: list[Span]
    steps: list[ScoredStep]
    score: float | None
    bounded: bool

    def step_scores(self) -> StepScores:
        """The scores as the scorer gave them."""
        unbounded = None if self.bounded else tuple(step.value for step in self.steps)
        unsure = tuple(step.uncertainty for step in self.steps)
        known = any(one is not None for one in unsure)
        return StepScores(tuple(step.probabilities for step in self.steps), unbounded, unsure if known else None)


class ServedPrm(Settings):
    """Who scores.

    Attributes:
        scorer: What the scorer is called.
        fingerprint: Another one where other files score; null: not known.
        aggregation: What makes a solution's score unless a request says otherwise.
    """

    model_config = ConfigDict(extra="ignore")

    scorer: str
    fingerprint: str | None
    aggregation: AggregationName


class ScoreResponse(Settings):
    """Answers in the order asked.

    Attributes:
        scorer: What the scorer is called.
        fingerprint: See `ServedPrm`.
        aggregation: What made the solutions' scores.
        items: One per item of the request.
    """

    model_config = ConfigDict(extra="ignore")

    scorer: str
    fingerprint: str | None = None
    aggregation: AggregationName
    items: list[ScoredItem]


class Detail(Settings):
    """One reason, and the part of the request that it is about, such as "items.3.steps"."""

    where: str
    reason: str


class Failure(Settings):
    """Why a request was refused or failed."""

    reason: str
    details: list[Detail] = Field(default_factory=list)


def solution_of(item: StepsItem | CompletionItem) -> Solution:
    """The solution that an item describes.

    Raises:
        InputError: Blank steps, spans that do not fit, or text that cannot be stored.
    """
    if isinstance(item, StepsItem):
        return Solution.from_steps(item.problem, item.steps, item.separator, reference_answer=item.reference_answer)
    if item.spans is None:
        return split_solution(item.problem, item.completion, reference_answer=item.reference_answer)
    return Solution(item.problem, item.completion, tuple(item.spans), reference_answer=item.reference_answer)


def item_of(solution: Solution) -> CompletionItem:
    """The item that describes a solution exactly."""
    return CompletionItem(
        problem=solution.problem,
        completion=solution.completion,
        spans=list(solution.spans),
        reference_answer=solution.reference_answer,
    )


def scored_item(solution: Solution, scores: StepScores, aggregation: str) -> ScoredItem:
    """Scores as they are sent.

    Raises:
        InputError: A product of numbers that are no probabilities.
    """
    if aggregation == "product" and not scores.is_bounded:
        raise InputError("these scores are no probabilities, so they have no product; ask for min, last or mean")
    rewards = step_numbers(scores, "p_ok") if scores.is_bounded else scores.values
    uncertainty = scores.uncertainty or (None,) * len(rewards)
    return ScoredItem(
        spans=list(solution.spans),
        steps=[
            ScoredStep(probabilities=p, value=value, reward=reward, uncertainty=unsure)
            for p, value, reward, unsure in zip(scores.probabilities, scores.values, rewards, uncertainty, strict=True)
        ],
        score=aggregate(rewards, aggregation),
        bounded=scores.is_bounded,
    )
