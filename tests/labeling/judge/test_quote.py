import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.judge.quote import is_quoted

STEP = r"We have \(x^2 + 1 = 5\), so \(x = \pm 2\) because the square of either is 4."


@pytest.mark.parametrize(
    "quote",
    [
        r"We have \(x^2 + 1 = 5\), so \(x =",
        "We have x^2 + 1 = 5, so x",
        "we  have\n\\( x^2+1=5 \\),\nso",
        "WE HAVE $x^2 + 1 = 5$, so",
        "the square of either is 4",
        "We have x^2 + 1 = 5, sp x = pm 2 becuase",
        "We have \\(x^2 + 1 = 5\\), so \\(x = \\pm 2\\)".replace("\\p", "p"),
    ],
)
def test_a_quote_is_found_whatever_spacing_case_and_latex_marks_became(quote):
    assert is_quoted(quote, STEP)


@pytest.mark.parametrize(
    "quote",
    [
        "",
        "We",
        "We have",
        "We find that y equals seven and go on",
        "The step is correct and well argued",
        "the square of either is 9, so we are done",
        "...",
        STEP[::-1],
    ],
)
def test_a_quote_of_something_else_or_of_too_little_is_refused(quote):
    assert not is_quoted(quote, STEP)


def test_a_short_step_is_quoted_whole():
    assert is_quoted("x = 5", "x = 5.")
    assert not is_quoted("x", "x = 5.")
    assert not is_quoted("x = 7", "x = 5.")


def test_a_step_whose_first_eight_words_are_mostly_signs_is_quoted_by_them():
    step = r"\[ x \] , ( y ) and therefore the two sums agree"
    assert is_quoted(r"\[ x \] , ( y ) and", step)
    assert not is_quoted(r"\[ x \]", step)


def test_a_step_of_signs_only_is_quoted_as_it_is():
    assert is_quoted("...", " ... ")
    assert not is_quoted("!!", "...")


def test_chinese_is_quoted_by_its_characters():
    assert is_quoted("因为三加四等于七，所以答案", "因为三加四等于七,所以答案是七。")
    assert not is_quoted("因为五加六等于十一，所以", "因为三加四等于七,所以答案是七。")


@given(st.text(min_size=1, max_size=80).filter(str.strip), st.integers(0, 40), st.integers(1, 40))
def test_the_first_words_of_a_step_are_always_a_quote_of_it(step, start, length):
    assert is_quoted(" ".join(step.split()[:8]), step)


def test_a_megabyte_is_looked_through_in_no_time():
    assert not is_quoted("nothing of the kind " * 50_000, "so " * 400_000)
