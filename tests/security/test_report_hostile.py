"""Text from outside stays text in the HTML report and in the terminal."""

import io
import json
from html.parser import HTMLParser

import pytest
from rich.console import Console

from prm_kit.evaluate import DevSplit, evaluate
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.report import print_tables, render
from prm_kit.score import StepScores

ATTACKS = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "{{7*7}} {% for i in range(9) %}x{% endfor %} {{ ''.__class__.__mro__ }}",
    "javascript:alert(1) <a href='javascript:alert(1)'>link</a>",
    '" onmouseover="alert(1)" x=\'',
    "</textarea></style><style>body{display:none}</style>",
    "<!--<script>",
    "]]><svg onload=alert(1)>",
    "\u202eevil\u200b <iframe srcdoc=x></iframe> \u2028 \\u003cscript\\u003e",
    "&lt;script&gt;",
]


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.scripts, self.tags, self.attributes, self.text = [], set(), [], ""
        self._in_script = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        self._in_script = tag in ("script", "style")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, text):
        if not self._in_script:
            self.text += text
        elif self.scripts:
            self.scripts[-1] += text


def rows(text, prefix):
    found = []
    for i in range(4):
        solution = Solution.from_steps(
            f"{prefix}{i} {text}",
            [f"{text} {i}", f"{text} again"],
            is_correct=i % 2 == 0,
            generator=text,
            source=text,
            final_answer=text,
            meta={"subset": text},
        )
        found.append(Labelled(solution, Annotation.of(solution, Rater("human", text), [1, -1 if i % 2 else 1])))
    return found


def scores(n):
    return [StepScores(((0.1, 0.1, 0.8), (0.6, 0.1, 0.3) if i % 2 else None)) for i in range(n)]


def hostile(text):
    name = f"prm {text}"
    dev = DevSplit(text, rows(text, "d"), {name: scores(4)})
    return evaluate(
        rows(text, "e"), {name: scores(4)}, name=text, dev=dev, about={text: text}, resamples=5, shown=2
    ) | {"warnings": [text], "notes": [text]}


@pytest.fixture(scope="module")
def benign():
    return Page(render(hostile("plain")))


@pytest.mark.parametrize("text", ATTACKS)
def test_hostile_text_brings_no_tag_no_attribute_and_no_script_and_is_shown_as_it_is(text, benign):
    page = Page(render(hostile(text)))
    assert page.tags == benign.tags
    assert len(page.scripts) == 2
    assert page.scripts[1] == benign.scripts[1]
    assert {(tag, name) for tag, name, _ in page.attributes} == {(tag, name) for tag, name, _ in benign.attributes}
    links = [value for tag, name, value in page.attributes if name == "href"]
    assert all(value.startswith("#") for value in links)
    assert text in page.text
    assert json.loads(page.scripts[0])["solutions"][0]["subset"] == text
    assert "</" not in page.scripts[0]


def test_all_of_them_together_ten_times_over_change_nothing(benign):
    text = " ".join(ATTACKS) * 10
    page = Page(render(hostile(text)))
    assert page.tags == benign.tags


def test_terminal_tables_print_markup_and_escape_sequences_as_text():
    console = Console(file=io.StringIO(), width=200, color_system=None)
    print_tables(hostile("[red]x[/red] [link=file:///etc/passwd]y[/link] \x1b]0;title\x07"), console)
    out = console.file.getvalue()
    assert "[red]x[/red]" in out
    assert "\x1b]0;" not in out
