import pytest

from prm_kit.split.answer import find_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{1}, no: \\(\\boxed{ \\{2\\} }\\)", "\\{2\\}"),
        ("first \\boxed{3}, then \\boxed{4", "3"),  # truncated: the last whole box counts
        ("put it in the \\boxed{}. The answer is 7.", "7"),
        ("48+24=72\n#### 72", "72"),
        ("#### $1,234.50", "$1,234.50"),
        ("Step 11: #### 25\nStep 12: The answer is: 26", "26"),
        ("#### 2. Compute the sum\nIt is 3.", None),  # a Markdown heading
        ("Therefore, the final answer is **3.14**.", "3.14"),
        ("The answer to the question is 12 apples. Good.", "12 apples"),
        ("**Answer:** 42", "42"),
        ("# Answer: The final answer is 5", "5"),
        ("ANSWER: (B)", "(B)"),
        ("Final Answer:\n\\[\nx = 5\n\\]", "x = 5"),
        ("**Final Answer**\n\n17", "17"),
        ("8+8=16\nA: 16", "16"),
        ("point A: it lies on BC", None),
        ("所以答案是：5个。谢谢", "5个"),
        ("**最终答案**：\\(x=2\\)", "\\(x=2\\)"),
        ("8÷2=4\n答：每人4个。", "每人4个"),
        ("The answer is 8 ки", "8"),
        ("we know nothing", None),
        ("", None),
        ("<think>The answer is 3.</think>", None),
        ("<think>\\boxed{3}</think>So it is \\boxed{4}.", "4"),
        ("So \\boxed{4}.<think>or \\boxed{3}</think>", "4"),
        ("<think>perhaps \\boxed{3}", None),
        ("The answer is 3.\r\nThanks", "3"),
    ],
)
def test_the_final_answer_is_what_a_reader_takes_it_for(text, answer):
    found = find_answer(text, "ки")
    assert (text[slice(*found)] if found else None) == answer
