import gzip
import json

import polars as pl
import pytest

from prm_kit.errors import InputError, UsageError
from prm_kit.tasks.problem_file import ProblemFileTask
from prm_kit.tasks.registry import TASKS, open_task
from prm_kit.tasks.task import SPLITS

ROWS = [
    {"question": f"What is {i} plus one?", "answer": f"{i} + 1 = <<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}"}
    for i in range(60)
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def task(tmp_path):
    task = ProblemFileTask(write(tmp_path / "gsm.jsonl", ROWS))
    yield task
    task.close()


def test_worked_text_gives_the_answer_and_a_demonstration_without_calculator_marks(task):
    problem = next(p for split in SPLITS for p in task.problems(split, None, 0) if "What is 41 " in p.text)
    assert problem.reference_answer == "42"
    demonstration = next(d for s in SPLITS for d in task.demonstrations(s, None, 0) if d.problem == problem.text)
    assert demonstration.completion == "41 + 1 = 42\n#### 42"


def test_every_row_is_in_one_split_and_a_repeated_problem_is_one_problem(tmp_path):
    task = ProblemFileTask(write(tmp_path / "twice.jsonl", ROWS + ROWS[:5]))
    texts = [p.text for split in SPLITS for p in task.problems(split, None, 0)]
    assert sorted(texts) == sorted(row["question"] for row in ROWS)


def test_drawing_is_seeded_and_asks_for_no_more_than_there_are(task):
    assert task.problems("train", 10, 1) == task.problems("train", 10, 1) != task.problems("train", 10, 2)
    with pytest.raises(UsageError, match="train: 61 problems were asked for"):
        task.problems("train", 61, 0)


def test_answers_are_compared_by_meaning(task):
    problem = task.problems("train", 1, 0)[0]
    value = problem.reference_answer
    assert task.verify(problem, f"So the answer is {value}.00.") is True
    assert task.verify(problem, f"#### {int(value) + 1}") is False
    assert task.verify(problem, "I do not know") is False


def test_the_same_rows_are_read_from_gzip_and_parquet(tmp_path, task):
    with gzip.open(tmp_path / "gsm.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write((tmp_path / "gsm.jsonl").read_text(encoding="utf-8"))
    pl.DataFrame(ROWS).write_parquet(tmp_path / "gsm.parquet")
    expected = [(p.text, p.reference_answer) for p in task.problems("train", None, 0)]
    for name in ("gsm.jsonl.gz", "gsm.parquet"):
        problems = ProblemFileTask(tmp_path / name).problems("train", None, 0)
        assert [(p.text, p.reference_answer) for p in problems] == expected


def test_a_plain_problem_with_a_reference_answer_has_nothing_to_imitate(tmp_path):
    task = ProblemFileTask(write(tmp_path / "p.jsonl", [{"problem": "2 + 2?", "reference_answer": "4"}]))
    split = next(split for split in SPLITS if task.problems(split, None, 0))
    assert task.problems(split, None, 0)[0].reference_answer == "4"
    with pytest.raises(UsageError, match=r"p\.jsonl:1: no worked solution"):
        task.demonstrations(split, None, 0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", ":2: not JSON"),
        ("[]", ":2: a list"),
        ('{"question": "x"}', ":2: no answer"),
        ('{"answer": "1"}', ":2: no problem"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line(tmp_path, line, reason):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=reason):
        ProblemFileTask(path).problems("train", None, 0)


def test_a_missing_file_and_another_ending_are_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        open_task(f"file:{tmp_path}/none.jsonl")
    with pytest.raises(UsageError, match="ends in"):
        ProblemFileTask(tmp_path / "problems.csv")


def test_the_one_door_knows_its_tasks():
    assert set(TASKS) == {"arithmetic", "file", "reasoning-gym"}
    assert open_task("arithmetic").name == "arithmetic"
    with pytest.raises(UsageError, match="Did you mean 'arithmetic'"):
        open_task("arithmetics")
    with pytest.raises(UsageError, match="write file:PATH"):
        open_task("file")
    with pytest.raises(UsageError, match="write arithmetic"):
        open_task("arithmetic:7")
