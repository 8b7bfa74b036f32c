"""The one recipe of reinforcement learning serves every preset."""

import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from prm_kit.model import Prm
from prm_kit.policy import Policy
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from rl.presets import ALGORITHMS

SMALL = [
    "settings.updates=2", "settings.problems=2", "settings.max_new_tokens=8", "settings.split=newline",
    "settings.warmup=0", "settings.learning_rate=0.01", "settings.device=cpu", "train_on=6",
    "held_out=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(path / "policy")
    Prm.from_backbone(path / "policy").save(path / "prm")
    return path


def run(models, out, recipe, *words):
    asked = [f"policy={models / 'policy'}", f"prm={models / 'prm'}", *SMALL, *words]
    return CliRunner().invoke(app, ["run", str(recipe), *asked, "--out", str(out), "--json"])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_preset_goes_through_the_one_recipe(name, models, tmp_path):
    preset = ALGORITHMS[name]
    more = ["settings.parts={critic: {warm_up: 1}}"] if preset.critic is not None and preset.critic.warm_up else []
    group = f"settings.group_size={1 if preset.group_size == 1 else 3}"
    result = run(models, tmp_path, "rl", f"algorithm={name}", group, *more)
    assert result.exit_code == 0, result.output
    (stage,) = json.loads(result.stdout)["rl"]["stages"].values()
    assert (stage["algorithm"], stage["updates"]) == (name, 2)
    assert (tmp_path / "stages" / "1-rl" / "run" / "checkpoint" / "policy.json").is_file()
