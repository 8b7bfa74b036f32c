import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from rl.presets import ALGORITHMS
from rl.scenarios import BEFORE, MEASURED, SCENARIOS


def run(*arguments):
    return CliRunner().invoke(app, ["rl", *arguments])


def test_algorithms_prints_every_preset_and_what_contested_names_mean():
    printed = run("algorithms").stdout
    for word in ("reinforce++-baseline", "gfpo-anchored", "leave_one_out + 0.5 x", "gfpo = the handbook's"):
        assert word in printed


def test_algorithms_as_json_holds_presets_parts_and_compatibility():
    found = json.loads(run("algorithms", "--json").stdout)
    assert found["algorithms"]["grpo"]["parts"]["surrogate"] == "ppo_clip"
    assert found["parts"]["surrogate"]["ppo_clip"]["numbers"] == {"low": 0.2, "high": 0.2, "dual": None}
    assert found["compatibility"]["cells"]["prime"]["group_mean"] == "l"
    assert all(part["what"] for kind in found["parts"].values() for part in kind.values())


def test_the_compatibility_table_prints_closed_forms_and_reasons():
    printed = run("algorithms", "--compatibility").stdout
    assert "gae_steps x gae_tokens: gae_steps has bootstrapped from the critic already" in printed
    assert "z equals the estimator of z = (r - mean) / (std + eps)" in printed


def test_parts_lists_every_kind():
    printed = run("algorithms", "--parts").stdout
    assert "divergence.estimate" in printed
    assert "  clipped_value_loss (limit=0.2)" in printed


def test_show_takes_overrides_and_says_what_a_run_needs():
    printed = run("show", "gfpo").stdout
    assert "Microsoft's filter (2508.09726) is gfpo-filter" in printed
    found = json.loads(run("show", "grpo", "surrogate.name=ppo_clip", "surrogate.high=0.28", "--json").stdout)
    assert found["parts"]["surrogate"] == "ppo_clip(high=0.28)"
    assert found["needs"] == ["reference policy"]


def test_weights_that_turn_right_and_wrong_around_are_told():
    assert "a tidy wrong answer can beat" in run("show", "dapo", "weights.process=0.9").stdout
    assert "a tidy wrong answer can beat" not in run("show", "dapo").stdout


def test_recommend_prints_the_scenarios():
    printed = run("recommend").stdout
    assert "dapo -> gfpo-anchored" in printed
    assert "vapo 0.591 +- 0.013" in printed
    assert "No sequence of stages was measured" in printed
    found = json.loads(run("recommend", "--json").stdout)
    assert found["scenarios"][3]["measured"] == {"vapo": {"mean": 0.591, "standard_error": 0.013}}
    assert found["measured_by"].startswith("prm-kit rl compare arithmetic")


def test_what_was_measured_is_what_the_results_say():
    results = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    for name, (mean, error) in MEASURED.items():
        assert re.search(rf"\| `{name}` \|[^|]*\| {mean:.3f} \+- {error:.3f} \|", results), name
    assert f"Before: sampled {BEFORE}" in results
    assert {name for scenario in SCENARIOS for name in scenario.stages} - {"sft"} <= set(ALGORITHMS)


@pytest.mark.parametrize("arguments", [("show", "gppo"), ("show", "grpo", "surrogat=cispo"), ("show", "grpo", "x")])
def test_what_does_not_exist_ends_with_two(arguments):
    assert run(*arguments).exit_code == 2


def test_torchrun_starts_nothing_but_training(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = run("show", "grpo")
    assert refused.exit_code == 2
    assert "only rl train" in refused.output
