import pytest

from prm_kit.errors import InputError
from prm_kit.formats.format import Item
from prm_kit.records import Annotation, Rater, Solution, StepLabel, step_hash


def test_everything_comes_back(read, write):
    solution = Solution.from_steps("p", ["a", "b\r\n"], " | ", is_correct=True, meta={"k": [1]}, generator="g")
    human = Annotation.of(
        solution, Rater("human", "ann", "v"), [0, None], time="2026-01-01T00:00:00+00:00", flags=("x",)
    )
    soft = StepLabel(1, None, step_hash("b\r\n"), shares=(0.25, 0.25, 0.5), count=4, stderr=0.25, comment="c")
    votes = Annotation(solution.id, Rater("rollout", "mc"), (soft,), lead_time=2.5, meta={"n": 4})
    items = [Item(solution, (human, votes))]
    assert read("prm-kit", write("prm-kit", items)).items == items


def test_an_annotation_of_another_solution_is_refused(read, write):
    one, two = Solution.from_steps("p", ["a"]), Solution.from_steps("p", ["b"])
    row = write("prm-kit", [Item(one, (Annotation.of(one, Rater("human", "x"), [1]),))])
    row["annotations"][0]["solution_id"] = two.id
    with pytest.raises(InputError, match="belongs to solution"):
        read("prm-kit", row)


def test_a_changed_text_is_refused(read, write):
    solution = Solution.from_steps("p", ["a"])
    row = write("prm-kit", [Item(solution, ())])
    row["solution"]["completion"] = "b"
    with pytest.raises(InputError, match="does not fit its content"):
        read("prm-kit", row)
