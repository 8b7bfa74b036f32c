"""Attack inputs against answer checking: always a verdict or a counted failure, never a side effect or a dead pool."""

import threading

import pytest

from prm_kit import answers
from prm_kit.answers import REASONS, AnswerChecker, extract_final_answer, refusal

BOMBS = [
    "9**9**9",
    "$9^{9^{9^9}}$",
    r"\boxed{\dfrac{5^{5^{5^{5^5}}-4}-5}{16}}",
    "factorial(10**8)",
    "$10000000!$",
    r"$\binom{10^9}{5\cdot10^8}$",
    r"\sum_{i=1}^{10^{12}} i^{-3}",
    r"\int_0^1 \frac{\sin x^x}{x^{x^x}}dx",
    "$(x+1)^{100000}$",
    r"\frac{1}{" * 400 + "2" + "}" * 400,
    r"\frac{1}{" * 150 + "2" + "}" * 150,
    r"\sqrt{" * 300 + "2" + "}" * 300,
    "+".join(f"x^{n}" for n in range(3000)),
    "+".join(f"x^{n}" for n in range(300)),
    "(" * 5000,
    "(" * 1500,
    "9" * 100_000,
    "9" * 1500 + "x",
    "1e999999999",
]
CODE = [
    "__import__('os').system('touch PWNED')",
    "().__class__.__bases__[0].__subclasses__()",
    "lambda:0",
    'exec("1")',
    "f\"{__import__('os')}\"",
    r"\text{__import__('os').system('touch PWNED')}",
    "_＿import_＿('os')",
    "os.system('touch PWNED')",
    "open('PWNED','w')",
]
ODD = [
    "４２",
    "\u202e24\u202c",
    "4\u200b2",
    "42\x00",
    "\ud800",
    "\x1b[31m42",
    "",
    " ",
    "$$",
    "\\",
    "{",
    "}",
    "^",
    "\\frac",
]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", BOMBS + CODE, ids=lambda text: text[:24].encode("ascii", "replace").decode())
def test_a_bomb_or_code_is_turned_away_before_any_process_sees_it(text, monkeypatch):
    monkeypatch.setattr(answers.AnswerProcess, "ask", lambda *_: pytest.fail("reached the worker"))
    with AnswerChecker() as checker:
        for pair in ((text, "43"), ("x + 43", text)):
            verdict = checker.equal(*pair)
            assert verdict.equal is None
            assert verdict.reason in ("refused", "too_long")
        assert sum(checker.counts.values()) == 2


def test_odd_characters_get_a_verdict():
    with AnswerChecker(seconds=20) as checker:
        verdicts = {text: checker.equal(text, "42") for text in ODD}
        assert verdicts["４２"].equal is True
        assert verdicts["4\u200b2"].equal is True
        assert verdicts["\u202e24\u202c"].equal is False  # read in the order of its characters
        assert verdicts["42\x00"].reason == verdicts["\ud800"].reason == verdicts["\x1b[31m42"].reason == "refused"
        assert all(verdict.reason in REASONS for verdict in verdicts.values())
        assert checker.equal("x+1", "1+x").reason == "symbolic"


def test_bombs_that_reach_the_worker_are_killed_and_the_pool_lives_on(monkeypatch):
    monkeypatch.setattr(answers, "refusal", lambda text: None)
    with AnswerChecker(seconds=0.8) as checker:
        for late, bomb in enumerate(("$9^{9^{9^9}}$", r"\frac{1}{" * 150 + "2" + "}" * 150), start=1):
            assert checker.equal(bomb, "43").equal is None
            assert checker.restarts == checker.counts["timeout"] + checker.counts["crashed"] == late
        assert checker.equal("43 + x", "x + 43").reason in ("symbolic", "timeout")
    with AnswerChecker(seconds=20) as checker:
        assert checker.equal("x+1", "1+x").equal is True


def test_code_that_reaches_the_worker_does_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(answers, "refusal", lambda text: None)
    with AnswerChecker(seconds=5) as checker:
        for text in CODE:
            assert checker.equal(text, "x + 43").equal is not True
        assert not list(tmp_path.iterdir())
        assert checker.equal("x+1", "1+x").equal is True


def test_the_worker_refuses_to_write_connect_or_start_a_process():
    import os

    from prm_kit.answer_worker import refuse_side_effects

    for event in ("socket.connect", "subprocess.Popen", "os.system", "os.fork", "os.remove", "ctypes.dlopen"):
        with pytest.raises(PermissionError):
            refuse_side_effects(event, ())
    with pytest.raises(PermissionError):
        refuse_side_effects("open", ("PWNED", "w", os.O_WRONLY | os.O_CREAT))
    refuse_side_effects("open", ("late_import.py", "r", os.O_RDONLY))
    refuse_side_effects("import", ("sympy",))


def test_many_threads_and_two_workers_under_attack_get_every_verdict_in_order():
    attacks = [("9**9**9", "1"), ("x+1", "1+x"), ("(" * 5000, "2"), ("x^2", "x*x"), ("7", "7.0"), ("lambda:0", "3")]
    expected = [None, True, None, True, True, None]
    with AnswerChecker(workers=2, seconds=20) as checker:
        found: dict[int, list[bool | None]] = {}
        threads = [
            threading.Thread(
                target=lambda n=n: found.update({n: [verdict.equal for verdict in checker.equal_many(attacks)]})
            )
            for n in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
        assert found == dict.fromkeys(range(3), expected)
        assert sum(checker.counts.values()) == 18


def test_refusal_lets_ordinary_answers_pass():
    for text in (r"\frac{\sqrt{3}}{2}", "x^{2n}+1", "e^{-x^2}", "2^{10}", "10!", r"\binom{10}{3}", "[0, 1)", "3.5e10",
                 r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "f'(x)=2x", "9:30 a.m.", "y=x^2+1", "e^{x^2+1}"):  # fmt: skip
        assert refusal(text) is None, text


def test_a_hostile_completion_costs_little_to_search_for_an_answer():
    for text in (
        "\\boxed{" * 100_000,
        "answer" + " " * 200_000 + "x",
        "answer is " * 50_000,
        "<think>" * 100_000,
        "answer: " + "\\(" * 100_000,
        "answer: " + "$" * 100_000,
        "\\boxed" * 50_000,
        "{" * 100_000 + "\\boxed{1}" + "}" * 100_000,
    ):
        extract_final_answer(text)
    assert extract_final_answer("\\boxed{7}" + "\\boxed{" * 50_000) == "7"
