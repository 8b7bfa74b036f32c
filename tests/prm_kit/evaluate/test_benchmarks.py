import pytest

from prm_kit.errors import InputError, UsageError
from prm_kit.evaluate.benchmarks import BENCHMARKS, benchmark_named, coverage
from prm_kit.evaluate.prmbench import CLASSES
from prm_kit.records import Annotation, Labelled, Rater, Solution


def item(i, **meta):
    solution = Solution.from_steps(f"p{i}", ["a"], meta=meta)
    return Labelled(solution, Annotation.of(solution, Rater("human", "a"), [1]))


def test_the_published_sizes_are_those_of_the_papers():
    assert sum(BENCHMARKS["processbench"].sizes.values()) == 3400
    assert sum(BENCHMARKS["prmbench"].sizes.values()) == 6216
    assert set(BENCHMARKS["prmbench"].sizes) == set(CLASSES)


def test_what_is_missing_of_a_benchmark_is_said():
    rows = [item(0, subset="gsm8k"), item(1, subset="math"), item(1, subset="math")]
    assert coverage(BENCHMARKS["processbench"], rows) == (
        "ProcessBench, 2 of 3,400 solutions: gsm8k 1 of 400, math 1 of 1,000, olympiadbench 0 of 1,000, "
        "omnimath 0 of 1,000"
    )


def test_other_data_and_other_names_are_refused():
    with pytest.raises(InputError, match="no solution of PRMBench is in the data"):
        coverage(BENCHMARKS["prmbench"], [item(0, subset="gsm8k")])
    with pytest.raises(UsageError, match=r"unknown benchmark 'processbnech'\. Did you mean 'processbench'"):
        benchmark_named("processbnech")
