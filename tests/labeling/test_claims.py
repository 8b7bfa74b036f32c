import pytest

from labeling.claims import Claim, find_claims


def verdicts(step, problem="", solution=""):
    return [claim.verdict for claim in find_claims(step, problem, solution)]


@pytest.mark.parametrize(
    "step",
    [
        "17 * 23 = 391",
        "x = 12/4 = 3",
        "so she has 3+5=<<3+5=8>>8 apples",
        "$40 * 3 = $120",
        "20% of 50 = 10",
        "15/60 * 100 = 25%",
        "3 hours + 5 hours = 8 hours",
        "100 pounds + 5 pounds/item*10 items = 150 pounds",
        "10/3 = 3.33",
        "2/3 = 0.66",
        "10/3 ≈ 3.3",
        "1/3 = 0.333...",
        r"\sqrt{50} = 5\sqrt{2}",
        r"\pi \cdot 2^2 = 12.57",
        r"$\frac{12}{4}$ + $1$ = $4$",
        "5 plus 3 equals 8",
        "f(3) = 2 + 3 = 5",
        "- 5 + 3 = 8",
        "1) 5 + 3 = 8",
        "Total: 5 + 3 = 8 (apples)",
        "每小时60千米×3小时=180千米",
        "2(x+3) = 2x + 6",
        "3x + 2x = 5x",
        r"\(72 = 8 \cdot 9\)",
    ],
)
def test_a_right_equality_is_right(step):
    assert verdicts(step) == ["right"]


@pytest.mark.parametrize(
    ("step", "detail"),
    [
        ("17 * 23 = 381", "391 is not 381"),
        ("He gets 20/100 * ($400 + $800) = $160.", "240 is not 160"),
        ("so she has 3+5=<<3+5=9>>9 apples", "8 is not 9"),
        ("15 red balloons + 6 green balloons = 22 balloons in total.", "21 is not 22"),
        ("x = 12/4 = 4", "3 is not 4"),
        (r"\[ \frac{1}{2} + \frac{1}{3} = \frac{2}{5} \]", "5/6 is not 0.4"),
        ("20% of 50 = 12", "10 is not 12"),
        ("共有5×3＝16个", "15 is not 16"),
        ("5加3等于9", "8 is not 9"),
        (r"90^\circ + 30^\circ = 110^\circ", "120 is not 110"),
        ("The discount is 10/4 = 2.6", "2.5 is not 2.6"),
    ],
)
def test_a_wrong_equality_is_wrong_and_says_why(step, detail):
    wrong = [claim for claim in find_claims(step) if claim.verdict == "wrong"]
    assert [claim.detail for claim in wrong] == [detail]


@pytest.mark.parametrize(
    "step",
    [
        "5 * 3 = 15 + 2 = 17",  # running on
        "100 - 20% = 80",
        "30 * 2 = 1 hour",
        "30 minutes + 1 hour = 90 minutes",
        "-3^2 = 9",
        "60 / 2 * 5 = 6",  # meant 60 / (2 * 5)
        "If 3 + 4 = 8, that is not possible",
        "Does 3 + 4 = 8?",
        "3 + 4 = 8 is wrong",
        "half of 10 + 3 = 8",
        "7 / 2 = 3",
        "17 / 5 = 3 remainder 2",
        "33.3% of 300 = 100",
        r"180^\circ = \pi",
        "The cubes are (3-2), (0-2) = 1, -2",
        "2 dozen * 10 = 20",
    ],
)
def test_the_benefit_of_the_doubt_is_given(step):
    assert "wrong" not in verdicts(step)


@pytest.mark.parametrize(
    "step",
    [
        "2x + 3 = 11",
        "x + 3 = 8",
        "Total - 5 = 11",
        "5 + price = 12",
        "1 + 2 + ... + 10 = 54",
        "7:30 + 2:15 = 9:40",
        "12_8 + 3_8 = 17_8",
        "gcd(12, 18) = 5",
        "sin(4π) = 0",
        "(1, 2 + 3) = (1, 6)",
        "60 minutes = 1 hour",
        "total = 5",
        r"\begin{pmatrix} 4 \\ 7 \end{pmatrix} = 8 - 0 + 28",
        r"\frac{12}{5} x - x = 84",
        "3 ≠ 4 + 5",
        "3 + 4 < 8",
        "a 5-year plan = 3 + 4",
        r"60 + 1 = 2\pi r",
        "2 + 4 = 3 x",
    ],
)
def test_what_is_no_closed_equality_is_no_claim(step):
    assert verdicts(step) == []


def test_other_arithmetics_are_left_alone():
    assert verdicts("10^3 = -1") == ["wrong"]
    assert verdicts("10^3 = -1", solution="The powers of 10 cycle modulo 1001.") == ["unsure"]
    assert verdicts("5 + 5 = 12", problem="Add 5 and 5 in base 8.") == ["unsure"]
    assert verdicts("3 * 4 = 7", problem="Define the operation a * b = a + b.") == ["unsure"]


def test_every_equality_of_a_chain_is_judged():
    text = r"\begin{aligned} 5+3 &= 8 \\ &= 2 \cdot 4 \\ &= 9 \end{aligned}"
    assert verdicts(text) == ["right", "right", "wrong"]
    assert find_claims("So 2 + 2 = 4.") == [Claim("arithmetic", "right", "2 + 2 = 4")]


def test_a_hostile_step_costs_little():
    for text in (
        "1+" * 2000 + "1 = 2",
        "(" * 2000 + "1 = 2",
        "1+1=3, " * 400,
        "1=1+" * 1000,
        "9**9**9 = 1",
        "=" * 12000,
        "so " * 2000 + "1 + 1 = 3",
        "1,111," * 1000 + "1 = 2",
        "x_" * 2000 + "= 1",
        "a' " * 2000 + "= 2",
        "<<" * 2000 + "=",
        "\\text{" * 1000 + "=",
        "\x00 1 + 1 = 2 \ud800",
    ):
        find_claims(text)
