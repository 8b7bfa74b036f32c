import gzip
import json

import polars as pl
import pytest
from datasets import Dataset, DatasetDict

from prm_kit.errors import InputError, UsageError
from prm_kit.tasks.problem_file import ProblemFileTask, with_held_out
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
    assert len(task.notes) == 1
    assert ProblemFileTask(write(tmp_path / "once.jsonl", ROWS)).notes == []


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


@pytest.mark.parametrize("answer", ["4", "#### 4"])
def test_a_plain_problem_with_a_reference_answer_has_nothing_to_imitate(tmp_path, answer):
    task = ProblemFileTask(write(tmp_path / "p.jsonl", [{"problem": "2 + 2?", "reference_answer": answer}]))
    split = next(split for split in SPLITS if task.problems(split, None, 0))
    assert task.problems(split, None, 0)[0].reference_answer == "4"
    with pytest.raises(UsageError, match=r"p\.jsonl:1: no worked solution"):
        task.demonstrations(split, None, 0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", ":2: not JSON"),
        ("[]", ":2: list is not an object"),
        ('{"question": "x"}', ":2: no answer"),
        ('{"answer": "1"}', ":2: no problem"),
        ('{"question": "x", "answer": "1 + 1\\n#### "}', ":2: answer has nothing after its last ####"),
        ('{"question": "x", "answer": "\\ud800"}', ":2: answer holds a lone surrogate"),
        ('{"question": "x", "answer": "1", "solution": "\\u0000"}', ":2: solution holds a NUL character"),
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


def test_columns_are_named_after_the_source(tmp_path):
    path = write(tmp_path / "p.jsonl", [{"prompt": f"{i}?", "label": i, "how": f"It is {i}."} for i in range(40)])
    task = open_task(f"file:{path}#problem=prompt,answer=label,solution=how")
    problem = task.problems("train", 1, 0)[0]
    assert task.demonstrations("train", 1, 0)[0].completion == f"It is {problem.reference_answer}."
    with pytest.raises(InputError, match=r"p\.jsonl:1: no answer \(a text under lable\); it has prompt, label, how"):
        open_task(f"file:{path}#problem=prompt,answer=lable").problems("train", 1, 0)
    with pytest.raises(UsageError, match="Did you mean 'problem'"):
        open_task(f"file:{path}#probelm=prompt")
    with pytest.raises(UsageError, match=r"write answer=\.\.\. once"):
        open_task(f"file:{path}#answer=label,answer=how")


def test_what_is_held_out_elsewhere_is_not_trained_on_and_counted(tmp_path):
    path = write(tmp_path / "train.jsonl", [*ROWS, ROWS[7]])
    other = [{"question": f"WHAT is  {i} plus one?", "answer": str(i + 1)} for i in (3, 5, 100)]
    task = open_task(f"file:{with_held_out(str(path), str(write(tmp_path / 'other.jsonl', other)))}")
    texts = [problem.text for problem in task.problems("train", None, 0)]
    assert texts == [row["question"] for i, row in enumerate(ROWS) if i not in (3, 5)]
    assert [problem.reference_answer for problem in task.problems("dev", None, 0)] == ["4", "6", "101"]
    assert task.notes == [
        "train.jsonl: 1 rows repeat a problem and were left out, the first: row 61",
        "train.jsonl: 2 of 60 problems are held out too and are not trained on, the first: row 4",
    ]
    with pytest.raises(UsageError, match="no others"):
        task.problems("test", None, 0)
    with pytest.raises(UsageError, match="no such file"):
        open_task(f"file:{with_held_out(str(path), 'none.jsonl')}")
    assert with_held_out("a.jsonl#answer=b", "hf://c/d:test") == "a.jsonl#answer=b,held_out=hf://c/d:test"


def test_a_data_set_is_read_like_a_file(tmp_path):
    found = Dataset.from_list(ROWS)
    DatasetDict({"train": found, "test": found.select(range(4))}).save_to_disk(tmp_path / "gsm")
    task = open_task(f"file:hf://{tmp_path}/gsm:train#held_out=hf://{tmp_path}/gsm:test")
    assert [problem.reference_answer for problem in task.problems("dev", None, 0)] == ["1", "2", "3", "4"]
    assert len(task.problems("train", None, 0)) == 56
    assert task.notes == [
        f"hf://{tmp_path}/gsm:train: 4 of 60 problems are held out too and are not trained on, the first: row 1"
    ]


def test_the_one_door_knows_its_tasks():
    assert set(TASKS) == {"arithmetic", "file", "reasoning-gym"}
    assert open_task("arithmetic").name == "arithmetic"
    with pytest.raises(UsageError, match="Did you mean 'arithmetic'"):
        open_task("arithmetics")
    with pytest.raises(UsageError, match="write file:PATH"):
        open_task("file")
    with pytest.raises(UsageError, match="write arithmetic"):
        open_task("arithmetic:7")
