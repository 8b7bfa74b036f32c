import json

import numpy as np
import pytest

from prm_kit.errors import InputError, UsageError
from prm_kit.evaluate import DevSplit, evaluate
from prm_kit.evaluate.baselines import HARD_NAMES
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
    assert len(per_scorer) == 11
    for section in per_scorer:
        told = [name for name in names if name not in HARD_NAMES or section != "calibration_after"]
        assert list(found[section]) == told, section
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


def ranks(items):
    """An unbounded scorer that knows the labels."""
    found = []
    for item in items:
        values = tuple(7.0 * (label or 0) - 3.0 for label in item.annotation.values(len(item.solution.spans)))
        found.append(StepScores((None,) * len(values), values))
    return found


def test_an_unbounded_scorer_ranks_and_finds_first_errors_with_a_chosen_threshold_and_is_refused_the_rest_by_name():
    found = run(scores={"pqm": ranks(ROWS)}, dev=DevSplit("held out", DEV, {"pqm": ranks(DEV)}), baselines=[])
    assert found["steps"]["pqm"]["auroc_wrong"]["value"] == 1.0
    assert found["steps"]["pqm"]["macro_f1"]["value"] is found["steps"]["pqm"]["classes"]["-1"]["f1"]["value"] is None
    assert found["first_error"]["pqm"]["f1_mean"]["value"] == 1.0
    assert found["by_position"]["pqm"][0]["mean_value"]["1"]["value"] == 4.0
    assert found["histogram"]["pqm"]["edges"][0] == -10.0
    assert "pqm" not in found["calibration"]
    assert "random" in found["calibration"]
    assert any("the scores of pqm are unbounded, no probabilities: calibration" in text for text in found["warnings"])
    json_text(found)


def test_an_unbounded_scorer_without_a_split_has_no_first_error_figures():
    found = run(scores={"pqm": ranks(ROWS)}, dev=None, baselines=[])
    assert found["first_error"]["pqm"]["f1_mean"]["value"] is None
    assert found["first_error"]["pqm"]["threshold"]["value"] is None
    assert found["first_error"]["random"]["f1_mean"]["value"] is not None
    assert any("so is every threshold" in text for text in found["warnings"])


def test_unbounded_scores_are_refused_where_a_probability_is_asked_for():
    with pytest.raises(UsageError, match="scorer 'pqm' is unbounded, so its steps have no 'p_ok'"):
        run(scores={"pqm": ranks(ROWS)}, dev=None, baselines=[], rule="p_ok")
    with pytest.raises(InputError, match="scorer 'mixed': some scores are probabilities and others unbounded"):
        run(scores={"mixed": [*ranks(ROWS[:1]), *knows(ROWS[1:])]}, dev=None, baselines=[])


def test_calibration_is_told_before_and_after_a_temperature_of_the_development_split(found):
    after = found["calibration_after"]["orm"]
    assert after["temperature"]["chosen_on"] == "held out"
    assert after["temperature"]["nll"] <= after["temperature"]["nll_before"]
    assert after["answered"] == found["calibration"]["orm"]["answered"]
    assert "all correct" not in found["calibration_after"]
    assert run(dev=None)["calibration_after"] == {}


def test_solutions_without_labels_are_picked_from():
    problem = ROWS[0].solution.problem
    more = [Solution.from_steps(problem, [f"other {i}"], is_correct=i == 0, final_answer=str(i)) for i in range(3)]
    rows = [*ROWS, *(Labelled(one, Annotation(one.id, Rater("import", "final-answer"), ())) for one in more)]
    found = evaluate(rows, {"prm": knows(rows)}, name="rows", resamples=10)["best_of_n"]
    assert found["problems"][-1] == 1
    assert found["candidates"] == 4
    outcomes = evaluate(rows[-3:], {"prm": knows(rows[-3:])}, name="outcomes", resamples=10)
    assert outcomes["best_of_n"]["candidates"] == 3
    assert any("no step is judged" in note for note in outcomes["notes"])
    assert run()["best_of_n"] is None
