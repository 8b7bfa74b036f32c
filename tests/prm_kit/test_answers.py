import subprocess
import sys
import threading
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_kit import answers
from prm_kit.answers import AnswerChecker, Verdict, extract_final_answer
from prm_kit.errors import PrmKitError, UsageError
from prm_kit.quantities import parse_quantity, plain_text


@pytest.fixture(scope="module")
def checker():
    with AnswerChecker(seconds=30) as made:
        yield made


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{1}, no, \boxed{\frac{1}{\sqrt{2}}}.", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{3} and then cut off \boxed{\frac{1}{2", "3"),
        (r"$\boxed 7$", "7"),
        (r"\boxed{\text{east}}", r"\text{east}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\$5.50}.", r"\$5.50"),
        ("She has 2+3=5.\n#### 42", "42"),
        ("#### 1,350\nThe answer is: 1350", "1350"),
        ("The answer is: 13520", "13520"),
        ("The answer is 42. Because it is.", "42"),
        ("So the final answer is $3.5$ hours. I hope it is correct.", "3.5 hours"),
        ("**Answer:** 17 apples", "17 apples"),
        ("Final Answer: The final answer is $107$. I hope it is correct.", "107"),
        ("**Final Answer**: $x = 3$", "x = 3"),
        ("Answer: $5", "$5"),
        ("So it takes 2+1=3 bolts\nA: 3", "3"),
        ("A: Enhancer\nB: Repressor\nso it is the first", None),
        ("所以答案是 12。", "12"),
        ("答案：12元", "12元"),
        ("答案为$\\frac{1}{2}$", r"\frac{1}{2}"),
        ("3 + 4 = 7", None),
        ("The answer is not 5.", None),
        ("<think>The answer is 5</think>\nThe answer is 6", "6"),
        (r"<think>\boxed{5}</think> I agree.", "5"),
        (r"\boxed{5} hm </think> Answer: 6", "6"),
        ("<think>The answer is 5", "5"),
        ("", None),
    ],
)
def test_the_stated_answer_is_found_and_none_is_guessed(text, answer):
    assert extract_final_answer(text) == answer


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ("42", "42", Verdict(True, "exact")),
        (" $42$. ", "42", Verdict(True, "exact")),
        (r"\text{East}", "east", Verdict(True, "exact")),
        ("(C)", "C", Verdict(True, "exact")),
        ("C", "D", Verdict(False, "different")),
        (r"\text{Evelyn}", "42", Verdict(False, "different")),
        ("two", "2", Verdict(None, "unparsed")),
        (r"864 \mbox{ inches}^2", "864", Verdict(True, "numeric")),
        ("是", "否", Verdict(False, "different")),
        ("42.0", "42", Verdict(True, "numeric")),
        ("1,000", "1000", Verdict(True, "numeric")),
        (r"11,\! 111", "11111", Verdict(True, "numeric")),
        ("x = 5", "5.0", Verdict(True, "numeric")),
        (r"\dfrac{3}{4}", "0.75", Verdict(True, "numeric")),
        ("2 1/2", "2.5", Verdict(True, "numeric")),
        ("2½", r"2\frac12", Verdict(True, "numeric")),
        ("３／４", "0.75", Verdict(True, "numeric")),
        ("50%", "0.5", Verdict(True, "numeric")),
        ("50", "0.5", Verdict(False, "different")),
        ("$5", "5 dollars", Verdict(True, "numeric")),
        ("50 cents", "$0.50", Verdict(True, "numeric")),
        ("5 dollars", "5 cents", Verdict(False, "different")),
        ("36 inches", "36", Verdict(True, "numeric")),
        ("5 m", "500 cm", Verdict(True, "numeric")),
        ("5 m", "5 kg", Verdict(False, "different")),
        ("5 apples", "5 pears", Verdict(None, "unparsed")),
        (r"90^\circ", "90", Verdict(True, "numeric")),
        (r"3 \times 10^5", "3e5", Verdict(True, "numeric")),
        ("0.333333", "1/3", Verdict(True, "numeric")),
        ("0.33", "1/3", Verdict(False, "different")),
        ("1/0", "5", Verdict(None, "unparsed")),
        ("1010_2", "1010_3", Verdict(False, "different")),
        ("listen to 5", "silent to 5", Verdict(None, "unparsed")),
        ("", "5", Verdict(None, "unparsed")),
        (None, "5", Verdict(None, "unparsed")),
        ("7" * 2001, "7", Verdict(None, "too_long")),
    ],
)
def test_what_needs_no_algebra_is_decided_without_a_process(a, b, verdict, monkeypatch):
    monkeypatch.setattr(answers.AnswerProcess, "ask", lambda self, *_: Verdict(None, "unparsed"))
    with AnswerChecker() as quick:
        assert quick.equal(a, b) == verdict
        assert quick.equal(b, a) == verdict
        assert quick.counts == {verdict.reason: 2}


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (r"3\sqrt{2}", r"\sqrt{18}", True),
        ("(x+1)^2", "x^2+2x+1", True),
        ("(1,2)", "(2,1)", False),
        (r"\{1,2\}", r"\{2, 1\}", True),
        ("y = 2x+3", "2x+3", True),
        ("7:30", "8:30", False),
        (r"90^\circ", r"3\sqrt{13}", False),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ 2/1 \end{bmatrix}", True),
        ("9**9", "9**8", False),
    ],
)
def test_algebra_is_decided_in_the_worker(checker, a, b, equal):
    assert checker.equal(a, b) == Verdict(equal, "symbolic" if equal else "different")


def test_a_worker_that_is_late_is_killed_counted_and_replaced(monkeypatch):
    monkeypatch.setattr(answers, "refusal", lambda text: None)
    with AnswerChecker(seconds=0.3) as quick:
        assert quick.equal("10000000!", "43") == Verdict(None, "timeout")
        assert (quick.counts["timeout"], quick.restarts) == (1, 1)
        quick._seconds = 30
        assert quick.equal("x+1", "1+x") == Verdict(True, "symbolic")


def test_a_worker_that_dies_between_two_questions_is_replaced(checker):
    assert checker.equal("x+1", "1+x").equal is True
    checker._workers[0]._process.kill()
    checker._workers[0]._process.wait()
    assert checker.equal("x+2", "2+x").equal is True


def test_a_worker_that_cannot_start_is_an_error_and_not_a_verdict():
    with AnswerChecker(memory_mb=16) as small, pytest.raises(PrmKitError, match="memory_mb"):
        small.equal("x+1", "1+x")


def test_a_process_starts_only_when_algebra_is_needed_and_ends_with_the_checker():
    with AnswerChecker(seconds=30) as made:
        made.equal("4", "5")
        assert made._workers[0]._process is None
        made.equal("x+1", "1+x")
        process = made._workers[0]._process
        assert process.poll() is None
    assert process.poll() is not None
    with pytest.raises(UsageError, match="closed"):
        made.equal("4", "5")


def test_answers_are_checked_from_any_thread_and_come_back_in_order(checker):
    found = []
    thread = threading.Thread(
        target=lambda: found.extend(checker.equal_many([("x+3", "3+x"), ("4", "5"), ("a", "b+1"), ("5", "5")]))
    )
    thread.start()
    thread.join(timeout=60)
    assert [verdict.equal for verdict in found] == [True, False, False, True]


def test_a_limit_that_is_not_positive_is_refused():
    for limits in ({"workers": 0}, {"seconds": 0.0}, {"memory_mb": 0}):
        with pytest.raises(UsageError):
            AnswerChecker(**limits)


def test_importing_the_checker_imports_neither_torch_nor_sympy():
    code = (
        "import sys, prm_kit.answers; sys.exit(any(name in sys.modules for name in ('torch', 'sympy', 'math_verify')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@settings(max_examples=60, deadline=None)
@given(
    st.fractions(max_denominator=400), st.sampled_from(["{n}/{d}", r"\frac{{{n}}}{{{d}}}", r"$\dfrac{{{n}}}{{{d}}}$"])
)
def test_a_written_fraction_is_read_exactly(value, form):
    quantity = parse_quantity(plain_text(form.format(n=value.numerator, d=value.denominator)))
    assert quantity is not None
    assert quantity.value == value


@settings(max_examples=60, deadline=None)
@given(st.integers(-(10**9), 10**9), st.integers(0, 4))
def test_a_written_decimal_is_read_exactly(digits, places):
    value = Fraction(digits, 10**places)
    sign = "-" if digits < 0 else ""
    text = f"{sign}{abs(digits) // 10**places:,}" + (f".{abs(digits) % 10**places:0{places}d}" if places else "")
    quantity = parse_quantity(plain_text(text))
    assert quantity is not None
    assert (quantity.value, quantity.decimals) == (value, places)
