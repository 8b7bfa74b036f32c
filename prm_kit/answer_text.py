r"""Find the final answer that a completion states: \boxed{}, "#### 42", "The answer is: 42", "答案是 42"."""

from __future__ import annotations

import re

from prm_kit.quantities import strip_delimiters

MAX_CHARACTERS = 2000
"""A stated answer longer than this is returned as it stands."""

_THINK = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)
_THINK_END = re.compile(r"</think(?:ing)?>")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*(\{|(?=[^\s{]))")
_STATED = re.compile(
    r"""\#{4}[ \t]*(?P<hashes>[^\n]+)
    |answer[ ]*+\**+[ ]*+(?:\bis\b(?![ ]*+not\b)[ ]*+(?:that\b)?[ ]*+|(?=[:：=]))
        \**+[:：=]?\**+[ ]*+(?P<english>[^\s:：][^\n]*)
    |^[ \t]*\**A\**[ ]*[:：][ ]*(?P<letter>[^\n]+)
    |答案(?:应该|就)?(?:是|为|[:：])[ ]*[:：]?[ ]*(?P<chinese>[^\n]+)""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"(?<=[^\s.])\.(?=\s+[A-Z\"'(\\$]|\s*$)|[。；]|(?<=\w)[!?](?=\s|$)|\s<\|")
_INLINE_MATH = re.compile(r"\$([^$\n]+)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\]")


def extract_final_answer(completion: str) -> str | None:
    r"""The last final answer that the text states, or None: an answer is never guessed from a last "= X".

    Precedence: \boxed{} before spoken forms; the last of a kind; outside of `<think>` sections before inside.
    Math delimiters and closing punctuation are taken off, units stay.
    """
    outside = _outside_think(completion)
    found = _answer_in(outside)
    if found is None and outside != completion:
        found = _answer_in(completion)
    return found


def _outside_think(text: str) -> str:
    text = _THINK.sub("\n", text)
    ends = [match.end() for match in _THINK_END.finditer(text)]
    return text[ends[-1] :] if ends else text  # an end without a start: the chat template had opened the section


def _answer_in(text: str) -> str | None:
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    last: str | None = None
    for match in _STATED.finditer(text):
        if match["letter"] and text[match.end() :].strip():
            continue  # "A: ..." in the middle is an option of a list, not an answer
        stated = _cleaned(next(group for group in match.groups() if group is not None))
        while inner := _STATED.match(stated.removeprefix("The ").removeprefix("final ")):  # "Answer: The answer is 5"
            stated = _cleaned(next(group for group in inner.groups() if group is not None))
        last = stated or last
    return last


def _last_boxed(text: str) -> str | None:
    """Content of the last box that is closed; one that was cut off does not count. One pass over the text."""
    starts = {match.end(): match for match in _BOXED.finditer(text) if match[1]}
    answers = {match.start(): text[match.end()] for match in _BOXED.finditer(text) if not match[1]}
    position = min(starts, default=len(text))
    open_braces = [position]
    while position < len(text):
        character = text[position]
        if character == "\\":  # an escaped brace, or the first letter of a command
            position += 1
        elif character == "{":
            open_braces.append(position + 1)
        elif character == "}" and open_braces:
            start = open_braces.pop()
            if start in starts:
                answers[starts[start].start()] = text[start:position]
        position += 1
    for start in sorted(answers, reverse=True):
        inner = strip_delimiters(answers[start]).rstrip(".,;")
        if inner:
            return inner
    return None


def _cleaned(text: str) -> str:
    text = text.strip().removeprefix("**")
    if len(text) > MAX_CHARACTERS:
        return text
    end = _SENTENCE_END.search(text)
    if end and end.start() > 0:
        text = text[: end.start()]
    text = strip_delimiters(text.strip().strip("*").strip())
    text = _INLINE_MATH.sub(lambda match: next(group for group in match.groups() if group is not None).strip(), text)
    return text.strip().strip("*").rstrip(".,;:。，；").strip()
