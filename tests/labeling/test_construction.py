from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.claims import find_claims
from labeling.construction import Constructor
from labeling.corruptions import CORRUPTIONS, Source
from labeling.draft import Draft
from prm_kit.errors import UsageError
from prm_kit.records import Annotation, Problem, Rater, Solution, check_annotation
from prm_kit.split import split_solution
from prm_kit.tasks.arithmetic import ArithmeticTask, final_answer, parse_problem

PERSON = Rater("human", "someone")
PROBLEM = "Ann has 12 bags of 5 apples. She eats 8 apples. How many are left?"
STEPS = [
    "She has 12 * 5 = 60 apples at first.",
    "Then 60 - 8 = 52 apples are left.",
    "So half of them would be 52 / 2 = 26.",
    "The answer is 52.",
]
TASK = ArithmeticTask()


def right_solution(**fields):
    about = {"final_answer": "52", "reference_answer": "52", "is_correct": True, "source": "apples", **fields}
    return Solution.from_steps(PROBLEM, STEPS, "\n", **about)


def made(kind, solution=None, values=(1, 1, 0, 1), seed=0):
    solution = solution or right_solution()
    annotation = None if values is None else Annotation.of(solution, PERSON, values)
    return list(Constructor([kind], seed=seed).construct(solution, annotation))


def test_an_early_answer_states_an_intermediate_result_and_is_wrong():
    for seed in range(8):
        ((solution, annotation),) = made("early_answer", seed=seed)
        at = solution.meta["branch_step"]
        assert solution.steps == (*STEPS[:at], f"The answer is {solution.final_answer}.")
        assert solution.final_answer == ["60", "26"][at // 2]  # 52, the result of step 1, would be right
        assert solution.is_correct is False
        assert annotation.values(at + 1) == (*(1, 1, 0)[:at], -1)


def test_a_repeated_step_adds_nothing_and_what_follows_keeps_its_labels():
    seen = set()
    for seed in range(20):
        ((solution, annotation),) = made("repeated_step", seed=seed)
        at = solution.meta["branch_step"]
        assert solution.steps == (*STEPS[:at], STEPS[at - 1], *STEPS[at:])
        values = [1, 1, 0, 1]
        assert annotation.values(5) == (*values[:at], 0, *values[at:])
        assert (solution.final_answer, solution.is_correct) == ("52", True)
        seen.add(at)
    assert seen == {1, 2, 3}  # "The answer is 52." states no equality


def test_a_step_that_nobody_called_right_is_not_repeated():
    assert made("repeated_step", values=None) == []


def test_a_contradiction_says_a_right_step_again_with_another_result():
    for seed in range(20):
        ((solution, annotation),) = made("contradictory_step", seed=seed)
        at = solution.meta["branch_step"]
        left = STEPS[at - 1].partition("= ")[0]
        assert solution.steps[at].startswith(left)
        assert solution.steps[at] != STEPS[at - 1]
        assert annotation.values(5) == (*(1, 1)[:at], -1, *[None] * (4 - at))
        assert "contradicts" in annotation.labels[-1].comment


@pytest.mark.parametrize("kind", ["altered_number", "altered_operator"])
def test_an_altered_step_holds_an_equality_that_the_rules_refute(kind):
    for seed in range(20):
        ((solution, annotation),) = made(kind, seed=seed)
        at = solution.meta["branch_step"]
        assert at < 2  # step 2 is labelled 0, step 3 states no equality
        differs = [i for i, (a, b) in enumerate(zip(solution.steps, STEPS, strict=True)) if a != b]
        assert differs == [at]
        assert any(claim.verdict == "wrong" for claim in find_claims(solution.steps[at]))
        assert annotation.values(4) == (*(1,)[:at], -1, *[None] * (3 - at))
        changed = sum(a != b for a, b in zip(solution.steps[at], STEPS[at], strict=True))
        assert changed == 1


def test_a_calculators_note_changes_together_with_the_number_it_computes():
    steps = ["She has 12*5=<<12*5=60>>60 apples.", "A: 60"]
    solution = Solution.from_steps(PROBLEM, steps, "\n", is_correct=True, final_answer="60")
    for kind in ("altered_number", "altered_operator", "contradictory_step"):
        for seed in range(10):
            ((spoilt, _),) = made(kind, solution, None, seed)
            text = spoilt.steps[spoilt.meta["branch_step"]]
            inner = text.partition("<<")[2].partition(">>")[0]
            assert text.startswith(f"She has {inner.partition('=')[0]}=<<")
            assert text.endswith(f">>{inner.partition('=')[2]} apples.")


def test_filler_is_put_between_steps_and_is_0():
    ((solution, annotation),) = list(
        Constructor(["filler_step"], fillers=["So far {result}."]).construct(
            right_solution(), Annotation.of(right_solution(), PERSON, (1, 1, 1, 1))
        )
    )
    at = solution.meta["branch_step"]
    assert solution.steps[at] == f"So far {[60, 52, 26][at - 1]}."
    assert annotation.values(5)[at] == 0
    ((plain, _),) = made("filler_step", values=None)
    assert plain.steps[plain.meta["branch_step"]] not in STEPS


@pytest.mark.parametrize("kind", ["dropped_step", "swapped_steps"])
def test_what_a_reader_may_forgive_is_made_only_where_a_program_labels_it(kind):
    constructor = Constructor([kind])
    annotated = Annotation.of(right_solution(), PERSON, (1, 1, 0, 1))
    assert list(constructor.construct(right_solution(), annotated)) == []
    assert constructor.counts == Counter({f"no certain label: {kind}": 1})


def test_where_a_construction_comes_from_is_on_it():
    source = right_solution(licence="CC0", meta={"split": "train", "samples": [3]})
    ((solution, annotation),) = made("altered_number", source)
    assert solution.meta == {
        "split": "train",
        "corruption": "altered_number",
        "parent": source.id,
        "branch_step": solution.meta["branch_step"],
        "parent_source": "apples",
    }
    assert (solution.source, solution.licence, annotation.rater.kind) == ("construction", "CC0", "construction")
    check_annotation(solution, annotation)


def test_only_right_solutions_are_spoilt():
    for solution, values, reason in (
        (right_solution(is_correct=False), (1, 1, 1, 1), "not a right solution"),
        (right_solution(), (1, -1, 1, 1), "not a right solution"),
        (right_solution(is_correct=None), (1, None, 1, 1), "not known to be right"),
        (Solution.from_steps("?", ["1"], is_correct=True), (1,), "fewer than two steps"),
    ):
        constructor = Constructor()
        assert list(constructor.construct(solution, Annotation.of(solution, PERSON, values))) == []
        assert constructor.counts == Counter({f"passed over: {reason}": 1})


def test_the_seed_and_the_solution_alone_decide():
    def ids(seed, others=()):
        constructor = Constructor(seed=seed)
        for other in others:
            list(constructor.construct(other))
        return [one.solution.id for one in constructor.construct(right_solution())]

    assert ids(0) == ids(0, [Solution.from_steps("x", STEPS, is_correct=True)])
    assert len({tuple(ids(seed)) for seed in range(5)}) > 1
    assert len(list(Constructor(per_solution=2).construct(right_solution()))) == 2


def test_unknown_kinds_and_empty_fillers_are_refused():
    with pytest.raises(UsageError, match="Did you mean 'early_answer'"):
        Constructor(["early_answr"])
    with pytest.raises(UsageError, match="at least 1"):
        Constructor(per_solution=0)
    with pytest.raises(UsageError, match="filler"):
        Constructor(fillers=[" "])


def embedded(n, seed):
    for demonstration in TASK.demonstrations("train", n, seed):
        solution = split_solution(
            demonstration.problem,
            demonstration.completion,
            "newline",
            attached=False,
            final_answer=final_answer(demonstration.completion),
            reference_answer=str(parse_problem(demonstration.problem).value),
            is_correct=TASK.verify(Problem(demonstration.problem), demonstration.completion),
        )
        yield solution, Annotation.of(solution, TASK.rater, TASK.label_steps(solution))


def test_every_label_is_the_one_that_the_embedded_tasks_program_gives():
    """The program knows nothing of how a solution was made."""
    constructor = Constructor(fillers=["So far {result}"])
    kinds = Counter()
    for source, labels in embedded(60, 1):
        for solution, annotation in constructor.construct(source, labels):
            true = TASK.label_steps(solution)
            assert all(true[label.step] == label.value for label in annotation.labels), solution.completion
            assert solution.is_correct == TASK.verify(Problem(solution.problem), solution.completion)
            assert solution.final_answer == final_answer(solution.completion)
            kinds[solution.meta["corruption"]] += 1
    assert set(kinds) == set(CORRUPTIONS) - {"dropped_step", "swapped_steps"}
    assert min(kinds.values()) > 10


def test_with_a_program_all_kinds_are_made_and_all_steps_labelled():
    constructor = Constructor(label_steps=TASK.label_steps, program="arithmetic-task-1", fillers=["So far {result}"])
    found = {}
    for source, labels in embedded(20, 2):
        for solution, annotation in constructor.construct(source, labels):
            assert annotation.values(len(solution.spans)) == TASK.label_steps(solution)
            found.setdefault(solution.meta["corruption"], []).append(annotation.first_error)
    assert set(found) == set(CORRUPTIONS)
    assert None not in found["dropped_step"]
    assert constructor.rater.version == "1-arithmetic-task-1"


texts = st.text(st.sampled_from("ab c=1\n"), min_size=1, max_size=8).filter(str.strip)


@given(st.lists(texts, min_size=1, max_size=5), st.sampled_from(["", "\n", "\n\n"]), texts, st.data())
def test_a_draft_is_the_solution_again_and_edits_touch_nothing_else(steps, separator, new, data):
    joined = Solution.from_steps("?", steps, separator)
    solution = Solution("?", f"<{joined.completion}>", tuple((a + 1, b + 1) for a, b in joined.spans))
    draft = Draft.of(solution)
    assert draft.joined() == (solution.completion, solution.spans)
    at = data.draw(st.integers(0, len(steps)))
    text, spans = draft.inserted(at, new).joined()
    assert [text[a:b] for a, b in spans] == [*steps[:at], new, *steps[at:]]
    assert text.startswith("<")
    assert text.endswith(">")
    order = data.draw(st.permutations(range(len(steps))))
    text, spans = draft.kept(order).joined()
    assert [text[a:b] for a, b in spans] == [steps[i] for i in order]
    assert text.count(">") == 1


def test_no_corruption_finds_an_occasion_in_plain_prose():
    solution = Solution.from_steps("Why?", ["Because of this.", "And that.", "So be it."], "\n", is_correct=True)
    source = Source(solution, Draft.of(solution), (1, 1, 1))
    for kind, corruption in CORRUPTIONS.items():
        assert (corruption(source, Random(0)) is None) == (kind != "filler_step")
