import json

import numpy as np
import pytest

from prm_kit.errors import InputError, UsageError
from prm_kit.evaluate import DevSplit, evaluate
from prm_kit.files import json_text
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.score import StepScores


def labelled(values, problem, subset="one", **fields):
    steps = [f"{problem} step {i}" for i in range(len(values))]
    solution = Solution.from_steps(problem, steps, meta={"subset": subset}, **fields)
    return Labelled(solution, Annotation.of(solution, Rater("human", "a"), values))


def data(prefix, n=12):
    return [
        labelled([1, -1, None], f"{prefix}{i}", ("one", "two")[i % 2], is_correct=i % 3 == 0)
        if i % 4 < 2
        else labelled([1, 1, 0], f"{prefix}{i}", ("one", "two")[i % 2], is_correct=True)
        for i in range(n)
    ]


def knows(items, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for item in items:
        labels = [0 if label is None else label for label in item.annotation.values(len(item.solution.spans))]
        up = np.clip([0.5 + 0.4 * label + noise * rng.normal() for label in labels], 0, 1)
        found.append(StepScores(tuple((1 - float(x), 0.0, float(x)) for x in up)))
    return found


ROWS, DEV, TRAIN = data("e"), data("d"), data("t")


def run(**changes):
    options = {
        "name": "rows",
        "dev": DevSplit("held out", DEV, {"prm": knows(DEV), "orm": knows(DEV, 0.5)}),
        "train": TRAIN,
        "baselines": ["orm"],
        "resamples": 40,
        "shown": 2,
    }
    scores = {"prm": knows(ROWS), "orm": knows(ROWS, 0.5)}
    return evaluate(ROWS, changes.pop("scores", scores), **(options | changes))


@pytest.fixture(scope="module")
def found():
    return run(about={"model": "none"})


def test_every_table_has_one_row_per_scorer_with_the_baselines_beside(found):
    names = [scorer["name"] for scorer in found["scorers"]]
    assert names == [
        "prm", "orm", "all correct", "random", "class prior", "length and position", "guesser (knows the answer)",
    ]  # fmt: skip
    assert [scorer["role"] for scorer in found["scorers"]] == ["model"] + ["baseline"] * 6
    per_scorer = {key for key, part in found.items() if isinstance(part, dict) and "prm" in part}
    assert len(per_scorer) == 9
    for section in per_scorer:
        assert list(found[section]) == names, section
    assert list(found["differences"]) == names[1:]


def test_the_result_is_plain_data_and_the_same_every_time(found):
    assert json.loads(json_text(found)) == json.loads(json_text(run(about={"model": "none"})))
    assert found["about"] == {"model": "none"}


def test_a_scorer_that_knows_the_labels_is_perfect_and_the_threshold_is_from_the_named_split(found):
    found = found["first_error"]["prm"]
    assert found["f1_mean"]["value"] == found["all"]["f1"]["value"] == 1.0
    assert found["threshold"]["chosen_on"] == "held out"
    assert list(found["subsets"]) == ["one", "two"]
    assert found["right_answer_wrong_process"]["exact"]["n"] == sum(
        item.solution.is_correct is True and item.annotation.first_error is not None for item in ROWS
    )


def test_the_evaluated_rows_do_not_move_the_threshold():
    other = [labelled([-1], "x", is_correct=False), labelled([1], "y", is_correct=True)]
    dev = DevSplit("held out", DEV, {"prm": knows(DEV)})
    thresholds = [
        evaluate(rows, {"prm": knows(rows)}, name="rows", dev=dev, resamples=10)["first_error"]["prm"]["threshold"]
        for rows in (ROWS, other)
    ]
    assert thresholds[0] == thresholds[1]


def test_a_development_split_that_shares_a_solution_is_refused():
    shared = [*DEV, ROWS[0]]
    with pytest.raises(InputError, match="1 solutions are both evaluated and in the development split 'held out'"):
        run(dev=DevSplit("held out", shared, {"prm": knows(shared), "orm": knows(shared)}))


def test_without_a_split_the_threshold_is_fixed_and_the_reader_is_told():
    found = run(dev=None)
    assert found["first_error"]["prm"]["threshold"] == {
        "value": 0.0, "rule": "value", "chosen_on": None, "f1": None, "n": None,
    }  # fmt: skip
    assert any("thresholds are fixed" in warning for warning in found["warnings"])


def test_problems_shared_with_the_training_data_are_told():
    found = run(train=[*TRAIN, ROWS[0]])
    assert found["data"]["shared_problems"]["train"] == 1
    assert any("1 of 12 evaluated problems are also in the train" in warning for warning in found["warnings"])


def test_a_model_that_says_the_same_of_every_step_is_told_so_and_beats_nothing():
    constant = [StepScores(((0.2, 0.2, 0.6),) * 3) for _ in ROWS]
    found = run(scores={"flat": constant}, dev=DevSplit("held out", DEV, {"flat": constant[: len(DEV)]}), baselines=[])
    assert any("flat says the same of every step" in warning for warning in found["warnings"])
    assert any("flat is not shown to beat" in warning and "guesser" in warning for warning in found["warnings"])


def test_abstentions_are_told_and_not_filled_in():
    silent = [StepScores((None,) * 3) for _ in ROWS]
    found = run(scores={"silent": silent}, dev=None, baselines=[])
    assert any("abstains on" in warning for warning in found["warnings"])
    assert found["steps"]["silent"]["answered"] == 0
    assert found["first_error"]["silent"]["all"]["correct_accuracy"]["value"] == 1.0


def test_rows_without_any_error_give_undefined_f1_and_no_crash():
    rows = [labelled([1, 1], f"r{i}") for i in range(3)]
    found = evaluate(rows, {"prm": knows(rows)}, name="clean", resamples=10)
    assert found["first_error"]["prm"]["f1_mean"]["value"] is None
    assert found["first_error"]["prm"]["all"]["correct_accuracy"]["value"] == 1.0
    assert found["steps"]["prm"]["auroc_wrong"]["value"] is None
    json_text(found)


def test_shown_solutions_have_a_reason_their_labels_and_every_scorers_values(found):
    found = found["solutions"]
    assert {why for solution in found for why in solution["why"]} == {
        "disagreement", "right answer, wrong process", "random",
    }  # fmt: skip
    for solution in found:
        assert len(solution["steps"]) == len(solution["labels"]) == len(solution["scorers"]["random"]["values"])
    right = next(solution for solution in found if "right answer, wrong process" in solution["why"])
    assert right["is_correct"] is True
    assert right["first_error"] == right["scorers"]["prm"]["first_error"] == 1


def test_the_most_contradicted_solution_comes_first():
    scores = knows(ROWS)
    scores[5] = StepScores(((1.0, 0.0, 0.0),) * 3)
    found = run(scores={"prm": scores}, dev=None, baselines=[])
    assert found["solutions"][0]["id"] == ROWS[5].solution.id
    assert found["solutions"][0]["scorers"]["prm"]["disagreement"] == 2.0


def test_subsets_may_come_from_a_function():
    found = run(subset_of=lambda item: f"{len(item.solution.spans)} steps")
    assert found["data"]["subsets"] == {"3 steps": 12}


def test_the_leading_difference_is_paired_and_zero_against_itself():
    scores = {"prm": knows(ROWS, 0.3), "twin": knows(ROWS, 0.3)}
    dev = DevSplit("held out", DEV, {"prm": knows(DEV, 0.3), "twin": knows(DEV, 0.3)})
    found = run(scores=scores, dev=dev, baselines=[])["differences"]["twin"]
    for figure in found.values():
        assert (figure["value"], figure["low"], figure["high"]) == (0.0, 0.0, 0.0)


def test_wrong_use_is_refused_by_name():
    with pytest.raises(UsageError, match="at least one scorer"):
        run(scores={}, baselines=[])
    with pytest.raises(UsageError, match=r"unknown scorer 'omr'\. Did you mean 'orm'"):
        run(baselines=["omr"])
    with pytest.raises(UsageError, match=r"unknown rule 'values'\. Did you mean 'value'"):
        run(rule="values")
    with pytest.raises(UsageError, match="name of a built-in baseline"):
        run(scores={"random": knows(ROWS)}, dev=None, baselines=[])
    with pytest.raises(InputError, match="lacks the scores of orm"):
        run(dev=DevSplit("held out", DEV, {"prm": knows(DEV)}))
    with pytest.raises(InputError, match="scorer 'prm': 11 answers for 12 solutions"):
        run(scores={"prm": knows(ROWS)[:-1]}, dev=None, baselines=[])
    with pytest.raises(InputError, match="not a probability distribution"):
        run(scores={"prm": [StepScores(((float("nan"), 0.0, 1.0),) * 3)] * 12}, dev=None, baselines=[])
    rows = [labelled([None], "p")]
    with pytest.raises(InputError, match="no step is judged"):
        evaluate(rows, {"prm": knows(rows)}, name="empty")
