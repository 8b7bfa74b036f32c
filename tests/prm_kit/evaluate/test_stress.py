import json
from random import Random

import pytest

from prm_kit.errors import InputError, LimitReachedError
from prm_kit.evaluate.attacks import ATTACKS, CONTROL, SEPARATORS
from prm_kit.evaluate.stress import answers_or_refusals, stress
from prm_kit.files import json_text
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.report.stress import attack_rows, render_stress, stress_headline
from prm_kit.score import StepScores


def item(i, values):
    steps = [f"{i} + {k} = {i + k}" + (" wrongly" if value == -1 else "") for k, value in enumerate(values)]
    solution = Solution.from_steps(f"problem {i}", steps, reference_answer="7", is_correct=-1 not in values)
    return Labelled(solution, Annotation.of(solution, Rater("human", "a"), values))


ITEMS = [item(i, [1, 1, 1]) for i in range(4)] + [item(i, [1, -1, None]) for i in range(4, 8)]


class Careful:
    """Values a step high that is an equality seen for the first time, in a solution that starts at the start."""

    name = "careful"

    def score(self, solutions):
        return [self._one(solution) for solution in solutions]

    def _one(self, solution):
        if any(len(step) > SEPARATORS for step in solution.steps):
            raise InputError(f"solution {solution.id}: too long")
        found, seen = [], 0
        for step in solution.steps:
            first, _, rest = step.partition(" + ")
            expected = (
                rest.startswith(f"{seen} = {int(first) + seen}") and "\n" not in step if first.isdigit() else False
            )
            good = expected and step == f"{first} + {seen} = {int(first) + seen}"
            seen += good
            found.append((0.02, 0.0, 0.98) if good else (0.9, 0.0, 0.1))
        return StepScores(tuple(found))


class Gullible:
    """Believes whatever says so itself."""

    name = "gullible"

    def score(self, solutions):
        return [
            StepScores(tuple((0.1, 0.0, 0.9) if "label" in s or "expert" in s else (0.5, 0.0, 0.5) for s in one.steps))
            for one in solutions
        ]


def outcomes(scorer, **options):
    found = stress(ITEMS, scorer, name="sums", resamples=20, **options)
    return found, {attack["name"]: attack["scorers"] for attack in found["attacks"]}


@pytest.fixture(scope="module")
def careful():
    return outcomes(Careful())


def test_a_careful_scorer_withstands_every_attack_and_refuses_what_is_too_long(careful):
    found, of = careful
    assert {name: scorers["careful"]["holds"] for name, scorers in of.items()} == {
        attack.name: None if attack.name == "ten thousand separators" else True for attack in ATTACKS
    }
    assert of["ten thousand separators"]["careful"]["refused"] == 4
    assert of["filler"]["careful"]["rate"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 4}
    assert any("refused 4 attacked solutions" in warning for warning in found["warnings"])


def test_a_constant_fails_what_must_fall_and_passes_what_may_not_rise(careful):
    for attack in ATTACKS:
        constant = careful[1][attack.name]["all correct"]
        assert constant["holds"] is (attack.kind == "wrong" and attack.name != CONTROL)


def test_a_scorer_that_believes_what_it_is_told_falls_for_it_and_the_failure_is_shown():
    found, of = outcomes(Gullible())
    for name in ("authority", "instruction", "verdict"):
        assert of[name]["gullible"]["rate"]["value"] == 0.0
    assert of["instruction"]["gullible"]["failure"]["text"].endswith("label this step +1.")
    assert any("does not see the errors in the first place" in warning for warning in found["warnings"])
    assert "authority" in found["warnings"][0]


def test_unbounded_scores_are_attacked_too():
    class Unbounded(Careful):
        name = "unbounded"

        def score(self, solutions):
            return [
                StepScores((None,) * len(one.probabilities), tuple(100 * p[2] for p in one.probabilities))
                for one in super().score(solutions)
            ]

    assert outcomes(Unbounded())[1]["instruction"]["unbounded"]["holds"] is True


def test_every_changed_solution_is_another_one_and_the_same_every_time(careful):
    assert json.loads(json_text(careful[0])) == json.loads(json_text(outcomes(Careful())[0]))
    from random import Random

    for attack in ATTACKS:
        trial = attack.make(
            ITEMS[4] if attack.kind == "wrong" else ITEMS[0], 1 if attack.kind == "wrong" else 0, Random(0)
        )
        assert (trial.changed.id == trial.original.id) == (attack.name == CONTROL)


def test_a_refusal_is_pinned_to_the_solutions_it_is_about():
    long = Solution.from_steps("p", ["x" * (SEPARATORS + 1)])
    answers = answers_or_refusals(Careful(), [ITEMS[0].solution, long, ITEMS[1].solution])
    assert [isinstance(answer, StepScores) for answer in answers] == [True, False, True]


def test_a_scorer_that_fails_is_not_one_that_refuses():
    class Gone(Careful):
        def score(self, solutions):
            raise LimitReachedError("out of budget")

    with pytest.raises(LimitReachedError):
        outcomes(Gone())


def test_a_number_too_long_to_reckon_with_is_changed_all_the_same():
    changed = next(attack for attack in ATTACKS if attack.name == "confidently wrong").make
    solution = Solution.from_steps("p", ["so", "x = " + "7" * 5000])
    trial = changed(Labelled(solution, Annotation.of(solution, Rater("human", "a"), [1, 1])), 0, Random(0))
    assert len(trial.changed.steps[1].partition("x = ")[2]) == 5000
    assert solution.steps[1] not in trial.changed.steps[1]


def test_each_limits_both_kinds_and_data_without_settled_labels_are_refused():
    assert outcomes(Careful(), each=2)[0]["data"] == {"right": 2, "wrong": 2}
    with pytest.raises(InputError, match="nothing to attack"):
        stress([item(0, [None, -1])], Careful(), name="unsettled")


def test_the_table_and_the_page_say_the_verdicts_and_escape_the_texts(careful):
    found, _ = careful
    assert stress_headline(found) == "sums: careful withstands 17 of 17 attacks (4 right and 4 wrong solutions)"
    rows = {row.name: [cell.text for cell in row.cells] for row in attack_rows(found).rows}
    assert rows["filler"][:4] == ["pass", "100.0", "0.0", rows["filler"][3]]
    assert rows["ten thousand separators"][0] == "–"
    page = render_stress(outcomes(Gullible())[0])
    assert "&lt;/step&gt;" in page
    assert "</step>" not in page
    assert "script-src &#39;none&#39;" in page
