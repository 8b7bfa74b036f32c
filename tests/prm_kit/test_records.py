import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.errors import InputError, UsageError
from prm_kit.record_checks import join_steps
from prm_kit.record_json import annotation_from_json, annotation_to_json, solution_from_json, solution_to_json
from prm_kit.records import Annotation, Rater, Solution, StepLabel, step_hash

SOLUTION = Solution("2+3?", "2+3=5\n\nSo 5.", ((0, 5), (7, 12)), reference_answer="5")
HUMAN = Rater("human", "ann")
steps_of_text = st.lists(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1).filter(str.strip),
    min_size=1,
    max_size=6,
)


def test_the_id_is_the_hash_of_problem_completion_and_spans():
    # by hand: length-prefixed texts, then the spans
    text = "4:2+3?12:2+3=5\n\nSo 5.0-5,7-12"
    assert SOLUTION.id == hashlib.sha256(text.encode()).hexdigest()[:32]


def test_correcting_the_reference_answer_keeps_the_id():
    assert Solution(SOLUTION.problem, SOLUTION.completion, SOLUTION.spans, reference_answer="6").id == SOLUTION.id


def test_a_resplit_is_another_solution():
    assert Solution(SOLUTION.problem, SOLUTION.completion, ((0, 12),)).id != SOLUTION.id


def test_moving_a_character_between_problem_and_completion_changes_the_id():
    assert Solution("ab", "cd", ((0, 2),)).id != Solution("abc", "d", ((0, 1),)).id


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        (((0, 5), (4, 12)), "out of order"),
        (((0, 13),), "beyond the 12 characters"),
        (((5, 7),), "whitespace only"),
        (((3, 3),), "empty"),
    ],
)
def test_spans_that_cannot_be_steps_are_refused(spans, reason):
    with pytest.raises(InputError, match=reason):
        Solution("p", SOLUTION.completion, spans)


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"])
def test_text_that_no_file_can_hold_is_refused_with_its_offset(text):
    with pytest.raises(InputError, match="offset 1"):
        Solution("p", text, ())


@given(steps_of_text, st.sampled_from(["\n\n", "\n", " ", ""]))
def test_joined_steps_come_back_from_their_spans(steps, separator):
    completion, spans = join_steps(steps, separator)
    assert [completion[a:b] for a, b in spans] == steps


def test_an_empty_step_is_refused():
    with pytest.raises(InputError, match="step 1 is empty"):
        join_steps(["a", " \n"], "\n")


@given(steps_of_text)
def test_solutions_survive_json(steps):
    solution = Solution.from_steps("p", steps, generator="g", meta={"row_id": 3})
    assert solution_from_json(solution_to_json(solution)) == solution


def test_a_solution_whose_id_does_not_fit_its_text_is_refused():
    row = solution_to_json(SOLUTION) | {"completion": "2+3=6\n\nSo 6."}
    with pytest.raises(InputError, match="does not fit its content"):
        solution_from_json(row)


@pytest.mark.parametrize("spans", [None, "abc", [[0]], [["a", "b"]], [[0, 1, 2]]])
def test_spans_that_are_no_pairs_of_offsets_are_refused_by_name(spans):
    with pytest.raises(InputError, match="is not a list of pairs of offsets"):
        solution_from_json({"problem": "p", "completion": "ab", "spans": spans})


def test_minus_one_zero_plus_one_and_null_are_four_different_labels():
    solution = Solution.from_steps("p", ["a", "b", "c", "d"])
    annotation = Annotation.of(solution, HUMAN, [1, 0, None, -1])
    assert annotation.values(4) == (1, 0, None, -1)
    assert annotation.first_error == 3
    assert [label.step for label in annotation.labels] == [0, 1, 3]
    assert annotation.labels[1].step_hash == step_hash("b")


def test_annotations_survive_json_and_keep_their_id():
    label = StepLabel(2, None, step_hash("x"), (0.25, 0.0, 0.75), count=8, stderr=0.15, sources=("a1",))
    annotation = Annotation(
        "s", Rater("rollout", "mc", "v1"), (label,), time="2026-01-02T03:04:05Z", flags=("not_sure",), lead_time=1.5
    )
    again = annotation_from_json(annotation_to_json(annotation))
    assert again == annotation
    assert again.id == annotation.id


def test_a_simulated_rater_is_another_rater_than_a_human_of_the_same_name():
    assert Rater("simulated", "ann") != Rater("human", "ann")


@pytest.mark.parametrize("value", [2, True, 0.5, "1"])
def test_a_value_that_is_no_label_is_refused(value):
    with pytest.raises(InputError, match="is not -1, 0, 1 or null"):
        StepLabel(0, value, "h")


def test_shares_must_be_a_distribution():
    with pytest.raises(InputError, match="summing to 1"):
        StepLabel(0, None, "h", (0.5, 0.0, 0.6))


def test_another_number_of_labels_than_steps_is_refused():
    with pytest.raises(InputError, match="1 labels for 2 steps"):
        Annotation.of(SOLUTION, HUMAN, [1])


def test_step_indices_must_increase():
    with pytest.raises(InputError, match="not increasing"):
        Annotation("s", HUMAN, (StepLabel(1, 1, "h"), StepLabel(1, 0, "h")))


def test_an_unknown_rater_kind_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"Did you mean 'human'\? Known: construction, human"):
        Rater("humen", "ann")
