import json

import pytest


def rows(start, number):
    """Step-list rows: sums with right, wrong and repeated lines, each of a problem of its own."""
    for i in range(start, start + number):
        a, b, wrong = i % 9, i % 8, i % 3 == 0
        steps = [f"{a} + {b} = {a + b}", f"{a + b} + 1 = {a + b + 1 + wrong}", f"so {a + b} + 1 = {a + b + 1 + wrong}"]
        labels = [1, -1, None] if wrong else [1, 1, 0]
        yield {
            "id": f"row-{i}",
            "source": "sums",
            "license": "CC0",
            "problem": f"{a} + {b} + 1 ? {i}",
            "steps": steps,
            "labels": labels,
            "first_error": 1 if wrong else None,
            "final_answer": str(a + b + 1 + wrong),
            "reference_answer": str(a + b + 1),
            "is_correct": not wrong,
            "meta": {"subset": "odd" if i % 2 else "even", "human": True},
        }


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder with train.jsonl and test.jsonl."""
    folder = tmp_path_factory.mktemp("data")
    for name, start, number in (("train", 0, 60), ("test", 100, 24)):
        lines = [json.dumps(row) + "\n" for row in rows(start, number)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return folder
