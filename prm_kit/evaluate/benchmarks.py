"""The public benchmarks that an evaluation knows by name: where they lie, how they are read, how large they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prm_kit.errors import InputError, unknown_name
from prm_kit.evaluate.prmbench import class_of
from prm_kit.records import Labelled, Solution


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: As it is asked for.
        title: As it is written.
        hub: Its data sets on the hub.
        part_of: The part that a solution belongs to; None: it is none of the benchmark's.
        sizes: Solutions of each part, published.
        options: Reader options by format.
    """

    name: str
    title: str
    hub: tuple[str, ...]
    part_of: Callable[[Solution], str | None]
    sizes: Mapping[str, int]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def benchmark_named(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        UsageError: There is none; the message lists the names.
    """
    if name not in BENCHMARKS:
        raise unknown_name("benchmark", name, BENCHMARKS)
    return BENCHMARKS[name]


def coverage(benchmark: Benchmark, labelled: Sequence[Labelled]) -> str:
    """How much of a benchmark is there, in words: figures of a part are no figures of the whole.

    Raises:
        InputError: Nothing of it.
    """
    parts = {item.solution.id: benchmark.part_of(item.solution) for item in labelled}
    found = Counter(part for part in parts.values() if part in benchmark.sizes)
    if not found:
        raise InputError(f"no solution of {benchmark.title} is in the data: none of {', '.join(benchmark.sizes)}")
    listed = ", ".join(f"{part} {found[part]:,} of {size:,}" for part, size in benchmark.sizes.items())
    return f"{benchmark.title}, {sum(found.values()):,} of {sum(benchmark.sizes.values()):,} solutions: {listed}"


def _subset(solution: Solution) -> str | None:
    subset = solution.meta.get("subset")
    return subset if isinstance(subset, str) else None


BENCHMARKS: dict[str, Benchmark] = {
    "processbench": Benchmark(
        name="processbench",
        title="ProcessBench",
        hub=tuple(f"hf://Qwen/ProcessBench:{part}" for part in ("gsm8k", "math", "olympiadbench", "omnimath")),
        part_of=_subset,
        sizes={"gsm8k": 400, "math": 1000, "olympiadbench": 1000, "omnimath": 1000},
    ),
    "prmbench": Benchmark(
        name="prmbench",
        title="PRMBench",
        hub=("hf://hitsmy/PRMBench_Preview",),
        part_of=class_of,
        sizes={
            "redundency": 758, "circular": 758, "counterfactual": 757, "step_contradiction": 758,
            "domain_inconsistency": 757, "confidence": 757, "missing_condition": 756, "deception": 750,
            "multi_solutions": 165,
        },
        options={"prmbench": {"originals": True}},
    ),
}  # fmt: skip
