"""The rule labeller: what can be said of a step without a model.

-1  an equality in it is wrong (rule `arithmetic`)
 0  it says nothing new: `repeated` (an earlier step, or an answer that was announced before), `restates` (a sentence
    of the problem or of an earlier step), `filler` (nothing but a phrase)
+1  every equality in it that can be checked is right, and there is one (rules `arithmetic`, `identity`)
null otherwise: the rule abstains

A wrong equality outweighs a repetition, and that outweighs a right equality. Which rule fired, and why, is the label's
comment, one "rule: detail" a line. A number that comes from nowhere (rule `number`) is a comment and a flag, no label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction

from labeling.claims import Claim, find_claims
from labeling.rule_report import RULES, rule_report
from labeling.tokens import number, readable
from prm_kit.quantities import plain_text
from prm_kit.records import Annotation, LabelValue, Rater, Solution, StepLabel, step_hash

__all__ = ["RULES", "VERSION", "RuleLabeler", "label_rules", "rule_report"]

VERSION = "1"
"""Goes up whenever a label would come out differently."""

UNSUPPORTED_NUMBER = "unsupported_number"
"""Flag of an annotation in which a step uses a number that comes from nowhere."""

MIN_RESTATED_WORDS = 6
_COMMENT_CHARACTERS = 200

_HEADING = re.compile(
    r"^\s*(?:\**(?:step|第)\s*\d+\s*(?:步)?\s*[:.)：]*\**|\(?\d{1,2}[.)](?!\d)|[-*•])\s*", re.IGNORECASE
)
_MARKUP = re.compile(r"[\s$*_`~]+|\\[()\[\],;! ]")
_SEPARATORS = re.compile(r"[-.,;:!?。，；：！？…\s]+")
_PUNCTUATION = ".,;:!?。，；：！？"
_FILLER = re.compile(
    r"(?:(?:so|and|well|hm+|oh|ok(?:ay)?|all right|alright|right|yes|yeah|sure|great|good|nice|exactly|indeed|correct"
    r"|perfect|cool|thanks?|thank you|you'?re welcome|of course|i agree|i see|got it|agreed|now|then|next|finally|hence"
    r"|therefore|thus|that'?s (?:right|correct|it|true|good|great)|that is (?:right|correct|true)|sounds good"
    r"|good (?:job|idea|point|question)|(?:now |so |ok(?:ay)? |first )*let(?:'s| us) (?:think|see|begin|start|go"
    r"|continue|proceed|do it|get started|solve (?:it|this(?: problem)?))"
    r"(?: (?:about (?:it|this(?: problem)?)|step by step|carefully|then|now))*"
    r"|(?:thought process|solution|answer|explanation|reasoning)"
    r"|(?:here is|here'?s) (?:the|my|a) (?:solution|answer|reasoning)"
    r"|i (?:will|can|need to) (?:solve|think about) this(?: problem)?(?: step by step)?|what (?:next|now|else)"
    r"|好的?|嗯|对|是的|让我们(?:一步一步)?(?:思考|来看|开始)(?:一下)?|思考过程|解)\s*|\s+)*"
)
_ANNOUNCED = re.compile(
    r"(?:(?:so|thus|therefore|hence|finally|then|and)?,?\s*(?:the|our)?\s*(?:final|correct)?\s*answer\s*(?:is|:|=)+\s*:?"
    r"|\#{4}|(?:所以|因此)?,?\s*答案(?:是|为|：|:)+)\s*(?P<answer>\S.{0,80}?)[.。]?\s*$",
    re.IGNORECASE,
)
_LEAD_IN = re.compile(
    r"^(?:(?:so|now|first|well|ok(?:ay)?|we (?:know|are (?:given|told)|have)|it is (?:given|stated|known)|given"
    r"|the (?:problem|question) (?:says|states|tells us|asks(?: us)?(?: to find)?|gives us)|that|recall|note|remember"
    r"|according to the (?:problem|question)|as (?:stated|given)|from the (?:problem|question)"
    r"|题目(?:中)?(?:说|告诉我们|给出)|已知)\s+)+"
)
_WORD = re.compile(r"[a-z0-9]+|[\u4e00-\u9fff]|[-+*/=<>^%\\]")
_LETTERS = re.compile(r"[a-z]{2,}|[\u4e00-\u9fff]")
_SENTENCE_END = re.compile(r"(?<=[^\d\s])[.!?;。](?:\s|$)|(?<=\d)\.(?:\s|$)")
_POINTS_ELSEWHERE = re.compile(
    r"\b(?:this|that|these|those|it|its|such|case|other|another|again|here|there|now|next|then|none|both|same)\b|[这那此该其]"
)
_NUMBER = re.compile(r"(?<![\w.])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\w)|\d+(?:\.\d+)?|(?<!\d)\.\d+")
_COMMON_NUMBERS = frozenset(
    Fraction(n) for n in (*range(13), 16, 20, 24, 25, 30, 50, 52, 60, 90, 100, 180, 360, 365, 366, 1000, 3600, 5280)
) | {Fraction(1, 2), Fraction(1, 4), Fraction(3, 4), Fraction(1, 10), Fraction(1, 100), Fraction(314, 100)}
_NUMBER_WORDS = {
    "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip


class RuleLabeler:
    """Labels steps by rules; implements `labeling.labeler.Labeler`.

    Attributes:
        rater: Signs the annotations.
    """

    def __init__(self, flag_numbers: bool = True) -> None:
        """Make a labeller.

        Args:
            flag_numbers: Whether numbers that come from nowhere are noted.
        """
        self.rater = Rater("rule", "prm-kit-rules", VERSION if flag_numbers else f"{VERSION}-no-numbers")
        self._flag_numbers = flag_numbers

    def label(self, solutions: Iterable[Solution]) -> Iterator[Annotation]:
        """Annotate each solution; one in which nothing can be checked gets an annotation without labels.

        The annotation's meta says how many steps there were ("steps"), so that coverage can be counted.
        """
        for solution in solutions:
            yield self._annotate(solution)

    def _annotate(self, solution: Solution) -> Annotation:
        history = _History(solution.problem)
        labels: list[StepLabel] = []
        flags: tuple[str, ...] = ()
        for index, text in enumerate(solution.steps):
            claims = find_claims(text, solution.problem, solution.completion)
            value, reasons = _judge(index, text, claims, history)
            if self._flag_numbers and (unknown := history.new_numbers(text, claims)):
                reasons.append(f"number: {', '.join(unknown)} neither in the problem nor in an earlier step")
                flags = (UNSUPPORTED_NUMBER,)
            if reasons:
                comment = "\n".join(reason[:_COMMENT_CHARACTERS] for reason in reasons)
                labels.append(StepLabel(index, value, step_hash(text), comment=comment))
        return Annotation(solution.id, self.rater, tuple(labels), flags=flags, meta={"steps": len(solution.spans)})


def label_rules(solutions: Iterable[Solution]) -> Iterator[Annotation]:
    """Annotate a stream of solutions with the default rules."""
    return RuleLabeler().label(solutions)


class _History:
    """What the problem and the steps so far have said."""

    def __init__(self, problem: str) -> None:
        self._problem = problem
        self._texts: dict[str, int] = {}
        self._answers: dict[str, int] = {}
        self._sentences: dict[str, int] = {}
        self._problem_words: str | None = None
        self._numbers: set[Fraction | int] | None = None

    def repeats(self, index: int, text: str) -> str | None:
        """Why the step adds nothing, or None. Remembers the step."""
        bare = _MARKUP.sub(" ", _HEADING.sub("", text)).strip().lower().rstrip(_PUNCTUATION)
        if len(bare) < 120 and _FILLER.fullmatch(_SEPARATORS.sub(" ", bare)):
            return "filler: nothing is said"
        stated = _ANNOUNCED.fullmatch(_HEADING.sub("", text).strip())
        if stated:
            earlier = self._answers.setdefault(plain_text(stated["answer"].strip("$* ")), index)
            return f"repeated: the answer of step {earlier}" if earlier != index else None
        earlier = self._texts.setdefault(bare, index)
        self._texts[bare] = index
        if earlier != index and (earlier == index - 1 or not _POINTS_ELSEWHERE.search(bare)):
            return f"repeated: step {earlier}"
        return self._restates(index, bare)

    def _restates(self, index: int, bare: str) -> str | None:
        """Whether the step is a passage of the problem, or nothing but sentences that earlier steps said."""
        if self._problem_words is None:
            self._problem_words = _flat(self._problem.lower())
        sentences = [_LEAD_IN.sub("", sentence) for sentence in _SENTENCE_END.split(bare)]
        flats = [flat for flat in map(_flat, sentences) if len(flat) > 2]
        said = [self._sentences.setdefault(flat, index) for flat in flats]
        words = _LETTERS.findall(" ".join(flats))
        if flats and len(words) >= MIN_RESTATED_WORDS and all(flat in self._problem_words for flat in flats):
            return "restates: the problem"
        if flats and max(said) < index and len(words) >= MIN_RESTATED_WORDS and not _POINTS_ELSEWHERE.search(bare):
            return f"restates: step {max(said)}"
        return None

    def new_numbers(self, text: str, claims: list[Claim]) -> list[str]:
        """Numbers of the step that come from nowhere, as written. Remembers all numbers of the step."""
        if self._numbers is None:
            self._numbers = {number(found)[0] for found in _NUMBER.findall(readable(self._problem))}
            lower = self._problem.lower()
            self._numbers.update(value for word, value in _NUMBER_WORDS.items() if word in lower)
        text = readable(_HEADING.sub("", text))
        known = self._numbers
        here = {found: number(found)[0] for found in _NUMBER.findall(text) if len(found) < 40}
        unknown = {found: value for found, value in here.items() if value not in known and value not in _COMMON_NUMBERS}
        if unknown:
            computed = {
                number(found)[0] for claim in claims for found in _NUMBER.findall(claim.text.rpartition("=")[2])
            }
            unknown = {found: value for found, value in unknown.items() if value not in computed}
        known.update(here.values())
        return list(unknown)


def _judge(index: int, text: str, claims: list[Claim], history: _History) -> tuple[LabelValue | None, list[str]]:
    repeated = history.repeats(index, text)
    wrong = [claim for claim in claims if claim.verdict == "wrong"]
    if wrong:
        return -1, [f"{claim.rule}: {claim.text}, but {claim.detail}" for claim in wrong]
    if repeated:
        return 0, [repeated]
    if claims and all(claim.verdict == "right" for claim in claims):
        return 1, [f"{rule}: {_first(claims, rule)}" for rule in ("arithmetic", "identity") if _first(claims, rule)]
    return None, []


def _first(claims: list[Claim], rule: str) -> str | None:
    return next((claim.text for claim in claims if claim.rule == rule), None)


def _flat(text: str) -> str:
    return f" {' '.join(_WORD.findall(text))} "
