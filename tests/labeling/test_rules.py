import pytest

from labeling.rules import UNSUPPORTED_NUMBER, VERSION, RuleLabeler, label_rules, rule_report
from prm_kit.records import Annotation, Rater, Solution

PROBLEM = "Tim buys a package of fireworks worth $400 and another pack worth twice that much. How much did he spend?"


def annotate(*steps, problem=PROBLEM):
    [annotation] = RuleLabeler().label([Solution.from_steps(problem, steps)])
    return annotation


def values(*steps, problem=PROBLEM):
    return annotate(*steps, problem=problem).values(len(steps))


def test_wrong_right_and_unchecked_steps_get_minus_one_plus_one_and_null():
    assert values(
        "The second pack costs 2 * $400 = $800.",
        "Together they cost $400 + $800 = $1300.",
        "That is a lot of money for fireworks.",
    ) == (1, -1, None)


def test_the_comment_says_which_rule_fired_and_why():
    annotation = annotate("The second pack costs 2 * 400 = 900.", "So he spent 400 + 900 = 1300.")
    assert [label.comment for label in annotation.labels] == [
        "arithmetic: 2 * 400 = 900, but 800 is not 900",
        "arithmetic: 400 + 900 = 1300",
    ]
    assert annotation.rater == Rater("rule", "prm-kit-rules", VERSION)
    assert annotation.meta == {"steps": 2}


def test_a_wrong_equality_outweighs_a_repetition_and_that_a_right_one():
    assert values("Now 2 + 2 = 5.", "Now 2 + 2 = 5.", "So 400 + 800 = 1200.", "So  400 + 800 = 1200") == (-1, -1, 1, 0)


def test_one_doubtful_equality_withholds_the_plus_one():
    assert values("2 + 2 = 4 and 5 * 3 = 15 + 2 = 17.") == (None,)


@pytest.mark.parametrize(
    "step", ["Right.", "OK, so now let's think step by step.", "...", "Thought process:", "好的。", "Step 3: Well..."]
)
def test_a_step_of_mere_phrases_is_filler(step):
    assert values(step) == (0,)
    assert annotate(step).labels[0].comment.startswith("filler:")


def test_a_sentence_of_the_problem_is_restated():
    assert values("We know that Tim buys a package of fireworks worth $400.") == (0,)
    assert values("Tim buys a package of fireworks, and I like it.") == (None,)


def test_a_repeated_step_is_zero_unless_its_words_point_elsewhere():
    other = "The area of the square is 25."
    assert values(other, "Therefore we go on.", f"2. {other}") == (None, None, 0)
    assert values(
        "Dividing, we get 50.", "This is divisible by 5.", "Dividing, we get 10.", "This is divisible by 5."
    ) == (
        None,
        None,
        None,
        None,
    )
    assert values("This is divisible by 5.", "This is divisible by 5.") == (None, 0)


def test_an_answer_announced_twice_is_repeated():
    assert values("#### 1,200", "The answer is: 1,200", "The answer is 7") == (None, 0, None)
    assert values("答案是12。", "答案：12") == (None, 0)


def test_a_number_from_nowhere_is_flagged_and_not_punished():
    annotation = annotate("He has 37 friends.", "So 400 + 800 = 1200.", "He keeps 1200.")
    assert annotation.flags == (UNSUPPORTED_NUMBER,)
    assert annotation.values(3) == (None, 1, None)
    assert annotation.labels[0].comment == "number: 37 neither in the problem nor in an earlier step"
    # 800 is in no earlier text either, and not the result of the equality
    assert annotation.labels[1].comment.splitlines()[1].startswith("number: 800 ")
    assert not next(RuleLabeler(flag_numbers=False).label([Solution.from_steps("p", ["37 it is"])])).flags


def test_a_solution_in_which_nothing_can_be_checked_gets_an_annotation_without_labels():
    annotation = annotate("I like fireworks.", "They are loud.")
    assert annotation.labels == ()


def test_a_step_too_long_to_read_is_not_judged_and_says_so():
    annotation = annotate("1 + 1 = 3 " * 10_000, "1 + 1 = 2")
    assert annotation.values(2) == (None, 1)
    assert annotation.labels[0].comment.startswith("too_long: not read, 100")


def test_solutions_are_labelled_as_a_stream_in_order():
    read = []

    def stream():
        for n in range(3):
            read.append(n)
            yield Solution.from_steps(f"problem {n}", [f"{n} + 1 = {n + 1}"])

    annotations = label_rules(stream())
    assert next(annotations).values(1) == (1,)
    assert read == [0]
    assert len(list(annotations)) == 2


def test_labels_do_not_depend_on_what_was_labelled_before():
    solution = Solution.from_steps("p", ["so 2+2=<<2+2=4>>4", "and 3 * 3 = 10"])
    first, second = label_rules([solution, solution])
    assert first == second


def test_the_report_counts_coverage_and_agreement_per_rule():
    solutions = [
        Solution.from_steps("a", ["1 + 1 = 2", "1 + 1 = 3", "I see.", "Something else."]),
        Solution.from_steps("b", ["Nothing to check."]),
    ]
    human = Rater("human", "h")
    reference = [Annotation.of(solutions[0], human, [-1, -1, None, 1]), Annotation.of(solutions[1], human, [1])]
    report = rule_report(label_rules(solutions), reference)
    assert (report["solutions"], report["solutions_without_labels"], report["steps"]) == (2, 1, 5)
    assert (report["labelled_steps"], report["coverage"]) == (3, 0.6)
    assert report["values"] == {"-1": 1, "0": 1, "1": 1}
    assert report["rules"]["arithmetic"]["-1"] == {
        "steps": 1, "coverage": 0.2, "compared": 1, "agree": 1, "precision": 1.0
    }  # fmt: skip
    assert report["rules"]["arithmetic"]["1"]["precision"] == 0.0
    assert report["rules"]["filler"]["0"] == {"steps": 1, "coverage": 0.2, "compared": 0, "agree": 0, "precision": None}
    assert report["reference"] == {"-1": 2, "0": 0, "1": 2}
    assert report["recall"] == {"-1": 0.5, "0": None, "1": 0.0}
    assert "recall" not in rule_report(label_rules(solutions))


def test_hostile_text_costs_little():
    steps = [
        "so " * 6000,
        "ok " * 39,
        " , " * 6000 + ".",
        "answer is " * 1900,
        "the the " * 2400 + "\n" * 100 + "x",
        "1" * 19_000,
    ]
    [annotation] = label_rules([Solution.from_steps("the " * 100_000, steps)])
    assert annotation.meta == {"steps": 6}
