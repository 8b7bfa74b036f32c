"""Coverage, precision and recall of the rule labeller against step labels, and its speed.

    python benchmarks/rules.py STEPS.jsonl.gz [...] [--last] [--show=-1|0|1]

A line is `{"problem", "steps", "labels", "is_correct"?}`; labels are -1, 0, 1 or null. `--last` judges only the last
step of each record (for branches, whose prefixes repeat).
"""

import argparse
import gzip
import json
import random
import time
from collections import Counter
from pathlib import Path

from labeling.rules import RuleLabeler, rule_report
from prm_kit.records import Annotation, Rater, Solution


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--show", type=int, choices=(-1, 0, 1), help="print steps of this value that the labels deny")
    parser.add_argument("--json", action="store_true", help="print the whole report")
    parser.add_argument("--rule", help="with --show: only this rule")
    parser.add_argument("--limit", type=int, default=40, help="how many to print")
    parser.add_argument("--last", action="store_true", help="compare the last step of each record only")
    parser.add_argument("--agreeing", action="store_true", help="with --show: print those the labels confirm")
    arguments = parser.parse_args()
    for path in arguments.files:
        measure(path, arguments)


def measure(path: Path, arguments: argparse.Namespace) -> None:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = [json.loads(line) for line in text.splitlines()]
    solutions, references, outcomes, seen = [], [], [], set()
    for row in rows:
        if not all(step.strip() for step in row["steps"]):
            continue
        solution = Solution.from_steps(row["problem"], row["steps"], "\n")
        if solution.id in seen:
            continue
        seen.add(solution.id)
        values = list(row["labels"])
        if arguments.last:
            values[:-1] = [None] * (len(values) - 1)
        solutions.append(solution)
        references.append(Annotation.of(solution, Rater("human", "reference"), values))
        outcomes.append(row.get("is_correct"))
    start = time.process_time()
    annotations = list(RuleLabeler().label(solutions))
    seconds = time.process_time() - start
    report = rule_report(annotations, references)
    if arguments.json:
        print(json.dumps(report))
    else:
        print_table(path.name, report, len(rows) - len(solutions))
    print("  with a step called wrong:", by_outcome(annotations, outcomes))
    print(f"  {len(solutions) / seconds:.0f} solutions, {report['steps'] / seconds:.0f} steps per CPU-second")
    if arguments.show is not None:
        show(solutions, annotations, references, arguments)


def print_table(name: str, report: dict, left_out: int) -> None:
    print(f"{name}: {report['solutions']} solutions ({left_out} rows blank or double), {report['steps']} steps, "
          f"coverage {report['coverage']:.1%}, flags {report['flags']}")  # fmt: skip
    print(f"  {'rule':12}{'label':>6}{'steps':>8}{'judged':>8}{'agree':>8}{'precision':>11}")
    for rule, rows in report["rules"].items():
        for value, row in rows.items():
            precision = row.get("precision")
            shown = "" if precision is None else f"{precision:11.3f}"
            print(f"  {rule:12}{value:>6}{row['steps']:8}{row.get('compared', ''):>8}{row.get('agree', ''):>8}{shown}")
    print(
        "  reference",
        report["reference"],
        "recall",
        {key: value if value is None else round(value, 3) for key, value in report["recall"].items()},
    )


def by_outcome(annotations: list[Annotation], outcomes: list[bool | None]) -> dict[str, str]:
    wrong, total = Counter(), Counter()
    for annotation, outcome in zip(annotations, outcomes, strict=True):
        total[str(outcome)] += 1
        wrong[str(outcome)] += annotation.first_error is not None
    return {f"final answer correct: {key}": f"{wrong[key]} of {total[key]}" for key in sorted(total)}


def show(solutions, annotations, references, arguments) -> None:
    rows = []
    for solution, annotation, reference in zip(solutions, annotations, references, strict=True):
        truth = {label.step: label.value for label in reference.labels}
        for label in annotation.labels:
            if label.value != arguments.show or label.step not in truth:
                continue
            if arguments.rule and arguments.rule not in label.comment:
                continue
            if (truth[label.step] == label.value) == arguments.agreeing:
                rows.append((solution.problem, solution.steps, label, truth[label.step]))
    random.Random(0).shuffle(rows)
    print(len(rows), "such steps")
    for problem, steps, label, value in rows[: arguments.limit]:
        print("-" * 100)
        print("problem:", problem[:300].replace("\n", " "))
        if label.step:
            print("before: ", steps[label.step - 1][:200].replace("\n", " "))
        print("step:   ", steps[label.step][:600])
        if label.step + 1 < len(steps):
            print("after:  ", steps[label.step + 1][:120].replace("\n", " "))
        print("rule:   ", label.value, label.comment, "| label:", value)


if __name__ == "__main__":
    main()
