import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.label_studio.mathml import MAX_TEXT, to_html

ALLOWED = {
    "span", "code", "br", "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "msqrt", "mroot", "mfrac", "msub",
    "msup", "msubsup", "munder", "mover", "munderover", "mtable", "mtr", "mtd", "mstyle",
}  # fmt: skip


class Reader(HTMLParser):
    """What a browser would find: elements, attributes, text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.attributes, self.shown = set(), set(), []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.shown.append(data)


def text_of(html):
    return "".join(Reader(html).shown)


def test_a_formula_between_dollars_becomes_mathml_with_its_source_as_tooltip():
    assert to_html("so $x^2$.") == (
        'so <span class="prm-math" title="x^2"><math><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math></span>.'
    )


@pytest.mark.parametrize("text", [r"\(x\)", r"\[x\]", "$$x$$", "$x$", r"\begin{align*}x\end{align*}"])
def test_every_usual_delimiter_is_known(text):
    html = to_html(text)
    assert "<math" in html
    assert "x" in text_of(html)


@pytest.mark.parametrize(
    "text",
    ["$40 per hour and $50 a day", "it costs $5, so 3*$5=$15", "$3 to 5$", "20$ and 30$", r"a \$ b \$ c", "$ $", "$"],
)
def test_sums_of_money_are_no_formulas(text):
    assert "<math" not in to_html(text)
    assert text_of(to_html(text)) == text


def test_bars_boxes_and_strokes_are_drawn_by_the_page():
    html = to_html(r"$\overline{AB} + \boxed{42} + \cancel{5}$")
    assert [found in html for found in ("prm-over", "prm-boxed", "prm-struck")] == [True] * 3


@pytest.mark.parametrize(
    "latex",
    [r"\frac{1}", r"\unknown{3}", r"\phantom{x}", "a & b", "{" * 100 + "}" * 100, "{", "x^1^2", "x" * 3000],
)
def test_a_formula_that_is_not_understood_is_shown_as_its_source(latex):
    assert "<math" not in to_html(f"${latex}$")
    assert text_of(to_html(f"${latex}$")) == f"${latex}$"


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        r"$\text{<script>alert(1)</script>}$",
        r"$\href{javascript:alert(1)}{x}$",
        r"$\style{display:none}{x}\class{y}{z}$",
        r"$\color{white}{x}$",
        "<img src=x onerror=alert(1)>",
        '$x" onmouseover="alert(1)$',
        "</div></textarea>{{7*7}}&lt;",
        r"\[ \text{" + "</span><h1>" + r"} \]",
    ],
)
def test_no_markup_of_the_text_reaches_the_page(text):
    found = Reader(to_html(text))
    assert found.elements <= ALLOWED
    assert found.attributes <= {"class", "title", "display", "stretchy", "lspace", "rspace", "fence", "form"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*"<>&\"'$\\{}[]()x1^_ \n", "\\text", "\\frac", "\\begin{align*}", "\\href"])))
def test_whatever_the_text_only_known_elements_come_out(pieces):
    found = Reader(to_html("".join(pieces)))
    assert found.elements <= ALLOWED
    assert "href" not in found.attributes
    assert "style" not in found.attributes


def test_lines_break_where_the_text_breaks_them_and_hidden_characters_are_named():
    assert to_html("a\r\nb\u202ec\x07") == "a<br>b⟨U+202E⟩c⟨U+0007⟩"


def test_a_negative_space_cannot_move_a_formula_out_of_sight():
    assert "99" not in re.sub(r'title="[^"]*"', "", to_html(r"$\hspace{-99em}x$"))


@pytest.mark.parametrize("text", ["$" * 20_000, "\\[" * 10_000, "$a" * 10_000, "\\begin{align*}" * 1500, "$x$" * 10**5])
def test_hostile_texts_take_no_long_time(text):
    start = time.process_time()
    to_html(text)
    assert time.process_time() - start < 10  # quadratic work would take minutes


def test_in_very_long_texts_formulas_stay_as_written():
    text = "$x$" + "a" * MAX_TEXT
    assert text_of(to_html(text)) == text
