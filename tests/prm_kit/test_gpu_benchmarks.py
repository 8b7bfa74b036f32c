"""The benchmarks that want a CUDA device run to their end on the CPU, tiny, and say so where there is none."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    def load(name):
        monkeypatch.syspath_prepend(str(FOLDER))
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in ("packing", "scoring"):
        sys.modules.pop(name, None)


def test_scoring_with_the_prefix_computed_once_gives_the_same_scores(benchmark, capsys):
    benchmark("gpu_runs").main(["scoring", "--toy"])
    said = capsys.readouterr().out
    assert "prefix once is" in said


def test_training_runs_are_measured_and_what_needs_a_device_is_refused_with_the_reason(benchmark, capsys, monkeypatch):
    runs = benchmark("gpu_runs")
    monkeypatch.setattr(runs, "RUNS", {name: runs.RUNS[name] for name in ("plain", "QLoRA")})
    runs.main(["runs", "--toy"])
    said = capsys.readouterr().out
    assert "tokens/s" in said
    assert "QLoRA              refused: lora.four_bit: it needs CUDA" in said


@pytest.mark.slow
def test_processes_are_started_as_torchrun_starts_them(benchmark, capsys):
    benchmark("gpu_runs").main(["processes", "--toy"])
    assert "2 processes" in capsys.readouterr().out


def test_utilisation_is_measured_for_padded_sorted_packed_and_shared_sequences(benchmark, capsys):
    benchmark("gpu_training").main(["--toy"])
    said = capsys.readouterr().out
    for arm in ("padded", "sorted", "packed", "separate", "shared"):
        assert f"toy     {arm}" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("name", ["gpu_runs", "gpu_training"])
def test_without_a_device_they_say_so_and_end_with_2(benchmark, capsys, name):
    with pytest.raises(SystemExit) as ended:
        benchmark(name).main([])
    assert ended.value.code == 2
    assert "this measures a CUDA device, and there is none here" in capsys.readouterr().err
