import pytest

from prm_kit.errors import InputError


def completion(text, rating, flagged=None):
    return {"text": text, "rating": rating, "flagged": flagged}


def step(*completions, chosen=None, human=None):
    return {"completions": list(completions) or None, "human_completion": human, "chosen_completion": chosen}


def row(*steps, **values):
    return {
        "labeler": "ann",
        "timestamp": "2023-01-22T04:34:27.052924",
        "generation": None,
        "is_quality_control_question": False,
        "is_initial_screening_question": False,
        "question": {"problem": "What is 2+3?", "ground_truth_answer": "5"},
        "label": {"steps": list(steps), "total_time": 1500, "finish_reason": "solution"},
        **values,
    }


TREE = row(
    step(completion("a", 1), completion("a2", -1), chosen=0),
    step(completion("b0", -1), completion("b", 0), completion("b2", None), chosen=1),
    step(completion("c1", -1), completion("c2", 0)),
)


def paths(reading):
    return [item.solution.steps for item in reading.items]


def test_the_rows_are_the_chosen_path_and_one_branch_per_alternative(read):
    """P8-3: exactly these, no product of alternatives and every branch through the chosen steps."""
    assert paths(read("prm800k", TREE)) == [
        ("a", "b"),
        ("a2",),
        ("a", "b0"),
        ("a", "b2"),
        ("a", "b", "c1"),
        ("a", "b", "c2"),
    ]


def test_alternatives_of_one_step_are_never_consecutive_steps(read):
    """P8-4."""
    assert all(not {"c1", "c2"} <= set(path) and not {"a", "a2"} <= set(path) for path in paths(read("prm800k", TREE)))


def test_neutral_and_null_stay_what_they_are(read, values):
    """P8-1, P8-2: 0 is not positive, not negative, and null is neither."""
    reading = read("prm800k", TREE)
    assert [values(item) for item in reading.items] == [
        (1, 0),
        (-1,),
        (None, -1),
        (None, None),
        (None, None, -1),
        (None, None, 0),
    ]
    assert reading.seen == {"1": 1, "0": 2, "-1": 3, "None": 1}


def test_labels_are_values_and_never_class_numbers(read, values):
    """P8-5: -1 stays -1; making classes 0, 1, 2 of the values is the training's business."""
    reading = read("prm800k", TREE)
    assert {value for item in reading.items for value in values(item)} == {-1, 0, 1, None}


def test_a_last_step_without_a_choice_gives_alternatives_and_no_empty_step(read):
    """P8-6."""
    reading = read("prm800k", row(step(completion("a", 1), chosen=0), step(completion("b", -1))))
    assert paths(reading) == [("a",), ("a", "b")]
    assert paths(read("prm800k", row(step(completion("a", 1), chosen=0), step()))) == [("a",)]


def test_a_branch_names_its_trunk_and_where_it_leaves_it(read):
    trunk, *branches = read("prm800k", TREE).items
    assert {branch.solution.meta["parent"] for branch in branches} == {trunk.solution.id}
    assert [branch.solution.meta["branch_step"] for branch in branches] == [0, 1, 1, 2, 2]


def test_a_first_step_without_a_choice_gives_branches_of_no_trunk(read, write):
    reading = read("prm800k", row(step(completion("a", -1), completion("b", 0))))
    assert paths(reading) == [("a",), ("b",)]
    assert all("parent" not in item.solution.meta for item in reading.items)
    assert read("prm800k", write("prm800k", reading.items)).items == reading.items


def test_a_step_written_by_the_labeller_has_no_label_and_says_so(read, values):
    human = {"text": "mine", "rating": None, "source": "human", "flagged": False}
    reading = read("prm800k", row(step(completion("x", -1), human=human), step(completion("y", 1), chosen=0)))
    trunk, branch = reading.items
    assert trunk.solution.steps == ("mine", "y")
    assert values(trunk) == (None, 1)
    assert trunk.annotations[0].meta["human_written_steps"] == [0]
    assert branch.solution.steps == ("x",)


def test_labeller_time_gold_flags_and_the_rest_of_the_row_are_kept(read):
    value = row(
        step(completion("a", 1, flagged=True), chosen=0),
        generation=-1,
        is_quality_control_question=True,
        is_initial_screening_question=True,
    )
    value["question"] |= {"pre_generated_steps": ["p"], "pre_generated_verifier_score": 0.5}
    value["label"]["finish_reason"] = "bad_problem"
    ((solution, (annotation,)),) = read("prm800k", value).items
    assert (annotation.rater.kind, annotation.rater.name) == ("human", "ann")
    assert annotation.time == "2023-01-22T04:34:27.052924+00:00"
    assert annotation.flags == ("quality_control", "screening", "bad_problem")
    assert annotation.lead_time == 1.5  # 1500 ms
    assert annotation.meta["flagged_steps"] == [0]
    assert annotation.meta["finish_reason"] == "bad_problem"
    assert annotation.meta["generation"] == -1
    assert solution.meta["subset"] == "phase2"
    assert solution.meta["pre_generated_steps"] == ["p"]
    assert solution.reference_answer == "5"


def test_the_time_spent_on_a_row_is_counted_once(read):
    assert [item.annotations[0].lead_time for item in read("prm800k", TREE).items] == [1.5] + [None] * 5


def test_an_alternative_given_twice_is_kept_once_unless_its_ratings_differ(read):
    same = read("prm800k", row(step(completion("a", 1), completion("b", 0), completion("b", 0), chosen=0)))
    assert paths(same) == [("a",), ("b",)]
    assert sum(same.notes.values()) == 1
    other = read("prm800k", row(step(completion("a", 1), completion("b", 0), completion("b", -1), chosen=0)))
    assert [[done.labels[0].value for done in item.annotations] for item in other.items] == [[1], [0, -1]]


def test_the_final_answer_stands_after_its_mark(read):
    ((solution, _),) = read("prm800k", row(step(completion("So 5.\n\n# Answer\n\n5", 1), chosen=0))).items
    assert solution.final_answer == "5"


def test_a_tree_written_and_read_is_the_same_tree(read, write):
    reading = read("prm800k", TREE)
    assert read("prm800k", write("prm800k", reading.items)).items == reading.items


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (row(step(completion("a", 1), chosen=3)), "chosen_completion: 3"),
        (row(step(completion("a", 2), chosen=0)), "rating"),
        (row(step(completion(" ", 1), chosen=0)), "the chosen step is empty"),
        (row(step(completion("a", 1)), step(completion("b", 1), chosen=0)), "nothing was chosen"),
        (row(step()), "no completion"),
        (row(step(completion("a\x00", 1), chosen=0)), "NUL"),
        (row(step(completion("a", 1), chosen=0), timestamp="soon"), "timestamp"),
    ],
)
def test_a_row_that_breaks_the_schema_is_refused_with_the_field(read, value, reason):
    with pytest.raises(InputError, match=reason):
        read("prm800k", value)


def test_two_trunks_are_no_tree(read, write):
    one = read("prm800k", row(step(completion("a", 1), chosen=0))).items
    two = read("prm800k", row(step(completion("b", 1), chosen=0))).items
    with pytest.raises(InputError, match="two trunks"):
        write("prm800k", one + two)
