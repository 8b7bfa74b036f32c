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
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

from labeling.claims import MAX_CHARACTERS, Claim, find_claims
from labeling.rule_report import RULES, rule_report
from labeling.tokens import MAX_DIGITS, number, readable
from prm_kit.quantities import plain_text
from prm_kit.records import Annotation, LabelValue, Rater, Solution, StepLabel, step_hash

__all__ = ["RULES", "VERSION", "RuleLabeler", "label_rules", "rule_report"]

VERSION = "1"
"""Goes up whenever a label would come out differently."""

UNSUPPORTED_NUMBER = "unsupported_number"
"""Flag of an annotation in which a step uses a number that comes from nowhere."""

MIN_RESTATED_WORDS = 6
_COMMENT_CHARACTERS = 200

FILLER = "filler: nothing is said"
MAX_FILLER = 120
_HEADING = re.compile(
    r"^\s*(?:\**(?:step|第)\s*\d+\s*(?:步)?\s*[:.)：]*\**|\(?\d{1,2}[.)](?!\d)|[-*•])\s*", re.IGNORECASE
)
_MARKUP = re.compile(r"(?:[\s$*_`~]|,\s)+|\\[()\[\],;! ]")
_HAS_MARKUP = re.compile(r"[$*_`~,\\]")
_SEPARATORS = re.compile(r"[-.,;:!?。，；：！？…\s]+")
_PUNCTUATION = ".,;:!?。，；：！？"
_FILLER = re.compile(
    r"(?: ?(?:so|and|well|hm+|oh|ok(?:ay)?|all right|alright|right|yes|yeah|sure|great|good|nice|exactly|indeed|correct"
    r"|perfect|cool|thanks?|thank you|you'?re welcome|of course|i agree|i see|got it|agreed|now|then|next|finally|hence"
    r"|therefore|thus|that'?s (?:right|correct|it|true|good|great)|that is (?:right|correct|true)|sounds good"
    r"|good (?:job|idea|point|question)|first|let(?:'s| us) (?:think|see|begin|start|go"
    r"|continue|proceed|do it|get started|solve (?:it|this(?: problem)?))"
    r"(?: (?:about (?:it|this(?: problem)?)|step by step|carefully|then|now))*"
    r"|(?:thought process|solution|answer|explanation|reasoning)"
    r"|(?:here is|here'?s) (?:the|my|a) (?:solution|answer|reasoning)"
    r"|i (?:will|can|need to) (?:solve|think about) this(?: problem)?(?: step by step)?|what (?:next|now|else)"
    r"|好的?|嗯|对|是的|让我们(?:一步一步)?(?:思考|来看|开始)(?:一下)?|思考过程|解))* ?"
)
_VERDICT = re.compile(
    r"(?:(?:so|and|then|hence|therefore|thus) )*"
    r"(?:yes|yeah|right|correct|(?:that'?s|that is) (?:right|correct|true)|对|是的)"
)
_ANNOUNCED = re.compile(
    r"(?:(?:(?:so|thus|therefore|hence|finally|then|and),? )?(?:(?:the|our) )?(?:(?:final|correct) )?"
    r"answer ?(?:is|:|=) ?:?|\#{4}|(?:所以|因此)?[,，]?答案(?:是|为|：|:)) ?(?P<answer>\S.{0,80}?)[.。]?",
    re.IGNORECASE,
)
_LEAD_IN = re.compile(
    r"^(?:(?:so|now|first|well|ok(?:ay)?|we (?:know|are (?:given|told)|have)|it is (?:given|stated|known)|given"
    r"|the (?:problem|question) (?:says|states|tells us|asks(?: us)?(?: to find)?|gives us)|that|recall|note|remember"
    r"|according to the (?:problem|question)|as (?:stated|given)|from the (?:problem|question)"
    r"|题目(?:中)?(?:说|告诉我们|给出)|已知)\s+)+"
)
_LETTERS = re.compile(r"[a-z]{2,}|[\u4e00-\u9fff]")
_SENTENCE_END = re.compile(r"[.!?;。](?:\s|$)")
_POINTS_ELSEWHERE = re.compile(
    r"\b(?:this|that|these|those|it|its|such|case|other|another|again|here|there|now|next|then|none|both|same)\b|[这那此该其]"
)
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_COMMON_NUMBERS = frozenset(
    (*range(13), 16, 20, 24, 25, 30, 50, 52, 60, 90, 100, 180, 360, 365, 366, 1000, 3600, 5280)
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
            if len(text) > MAX_CHARACTERS:
                comment = f"too_long: not read, {len(text)} characters are more than {MAX_CHARACTERS}"
                labels.append(StepLabel(index, None, step_hash(text), comment=comment))
                continue
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
        self._problem_bare: str | None = None
        self._number_texts: set[str] = set()
        self._numbers: set[Fraction | int] | None = None

    def repeats(self, index: int, text: str) -> str | None:
        """Why the step adds nothing, or None. Remembers the step."""
        bare = _bare(text)
        if _is_filler(bare):
            return FILLER
        stated = _ANNOUNCED.fullmatch(" ".join(_HEADING.sub("", text).split())) if len(bare) < 200 else None
        if stated:
            earlier = self._answers.setdefault(plain_text(stated["answer"].strip("$* ")), index)
            return f"repeated: the answer of step {earlier}" if earlier != index else None
        earlier = self._texts.setdefault(bare, index)
        self._texts[bare] = index
        if earlier != index and (earlier == index - 1 or _stands_alone(bare)):
            return f"repeated: step {earlier}"
        return self._restates(index, bare)

    def _restates(self, index: int, bare: str) -> str | None:
        """Whether the step is a passage of the problem, or nothing but sentences that earlier steps said."""
        if len(_LETTERS.findall(bare)) < MIN_RESTATED_WORDS:
            return None
        if self._problem_bare is None:
            self._problem_bare = _bare(self._problem)
        sentences = [_LEAD_IN.sub("", sentence) for sentence in _SENTENCE_END.split(bare) if sentence]
        said = max([self._sentences.setdefault(sentence, index) for sentence in sentences])
        of_problem = all(sentence in self._problem_bare for sentence in sentences)
        if (not of_problem and said == index) or len(_LETTERS.findall(" ".join(sentences))) < MIN_RESTATED_WORDS:
            return None
        if of_problem:
            return "restates: the problem"
        return f"restates: step {said}" if _stands_alone(bare) else None

    def new_numbers(self, text: str, claims: list[Claim]) -> list[str]:
        """Numbers of the step that come from nowhere, as written. Remembers all numbers of the step."""
        if self._numbers is None:
            self._number_texts.update(_NUMBER.findall(readable(self._problem)))
            lower = self._problem.lower()
            self._numbers = {_value(found) for found in self._number_texts} | _COMMON_NUMBERS
            self._numbers.update(value for word, value in _NUMBER_WORDS.items() if word in lower)
        texts = set(_NUMBER.findall(text)) - self._number_texts
        if not texts:
            return []
        text = readable(_HEADING.sub("", text))
        here = {found: _value(found) for found in _NUMBER.findall(text) if found not in self._number_texts}
        unknown = [found for found, value in here.items() if value not in self._numbers]
        if unknown:
            results = " ".join(claim.text.rpartition("=")[2] for claim in claims)
            computed = {_value(found) for found in _NUMBER.findall(results)}
            unknown = [found for found in unknown if here[found] not in computed]
        self._number_texts.update(texts)
        self._numbers.update(here.values())
        return unknown


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


def says_nothing(text: str, answers: Sequence[str] = (), last: bool = False) -> bool:
    """Whether a step is nothing but a phrase, or holds no words at all (rule `filler`).

    Args:
        text: The step.
        answers: What the solution or the reference answers; a step that is one of them says something.
        last: Whether it is the last step; "Yes." and the like are then an answer.
    """
    if len(text) >= MAX_FILLER * 8 or not _is_filler(bare := _bare(text)):
        return False
    if last and _VERDICT.fullmatch(_SEPARATORS.sub(" ", bare).strip()):
        return False
    return not bare.strip() or all(_bare(answer).strip() != bare.strip() for answer in answers)


def _is_filler(bare: str) -> bool:
    return len(bare) < MAX_FILLER and _FILLER.fullmatch(_SEPARATORS.sub(" ", bare)) is not None


def _stands_alone(bare: str) -> bool:
    """Whether a step says the same wherever it is said."""
    if _POINTS_ELSEWHERE.search(bare):
        return False
    return any(character.isdigit() for character in bare) or len(_LETTERS.findall(bare)) >= 3


def _value(text: str) -> int | Fraction:
    """The number; one that is absurdly long counts as 0."""
    return number(text)[0] if len(text) < MAX_DIGITS else 0


def _bare(text: str) -> str:
    """The text without heading, markup and closing punctuation, in lower case."""
    text = " ".join(_HEADING.sub("", text).lower().split())
    return (_MARKUP.sub(" ", text) if _HAS_MARKUP.search(text) else text).strip().rstrip(_PUNCTUATION)
