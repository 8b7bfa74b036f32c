import pytest

from prm_kit.errors import UsageError
from prm_kit.settings import load_settings, validated
from rl.preconditions import check_learns
from rl.presets import ALGORITHMS, algorithm
from rl.stages import Schedule, sft_settings, stage_settings
from rl.train_settings import RlSettings

TEXT = """\
task: arithmetic
policy: base
algorithm: dapo
sft: {epochs: 3}
settings:
  updates: 40
  seed: 5
  precision: float32
  parts: {weights: {process: 0.1}, surrogate: ppo_clip}
  stop: {accuracy: 0.5}
stages:
  warm-up: {updates: 10, parts: {surrogate: reinforce}}
  steady: {algorithm: srpo, reference: first, stop: {patience: 2}, seed: 1}
"""


@pytest.fixture
def schedule(tmp_path):
    (tmp_path / "recipe.yaml").write_text(TEXT)
    return load_settings(Schedule, tmp_path / "recipe.yaml")


def test_a_stage_has_what_all_have_unless_it_says_otherwise(schedule):
    warm_up = stage_settings(schedule, "warm-up", "1-sft/checkpoint", "1-sft/checkpoint")
    assert (warm_up.algorithm, warm_up.updates, warm_up.policy) == ("dapo", 10, "1-sft/checkpoint")
    # of parts and stop single keys are replaced
    assert warm_up.parts == {"weights": {"process": 0.1}, "surrogate": "reinforce"}
    steady = stage_settings(schedule, "steady", "2-warm-up/checkpoint", "1-sft/checkpoint")
    assert (steady.algorithm, steady.updates, steady.reference) == ("srpo", 40, "1-sft/checkpoint")
    assert (steady.stop.accuracy, steady.stop.patience) == (0.5, 2)
    assert schedule.folders == ["1-sft", "2-warm-up", "3-steady"]


def test_of_all_else_a_stage_says_the_whole():
    said = {"task": "t", "policy": "p", "settings": {"branching": {"roots": 2, "branches": 3, "at": "value"}}}
    said["stages"] = {"a": {}, "b": {"branching": {"roots": 4, "branches": 1}}}
    schedule = validated(Schedule, said, "recipe")
    found = [stage_settings(schedule, name, "", "").branching for name in "ab"]
    assert [(one.roots, one.branches, one.at) for one in found] == [(2, 3, "value"), (4, 1, "random")]


def test_stages_have_seeds_of_their_own(schedule):
    assert [stage_settings(schedule, name, "", "").seed for name in ("warm-up", "steady")] == [5, 1]
    again = validated(Schedule, {"task": "t", "policy": "p", "stages": {"a": {}, "b": {}}}, "recipe")
    assert [stage_settings(again, name, "", "").seed for name in "ab"] == [0, 1]


def test_the_supervised_stage_shares_device_precision_and_seed_only(schedule):
    asked = sft_settings(schedule)
    assert (asked.policy, asked.epochs, asked.precision, asked.seed) == ("base", 3, "float32", 5)
    with pytest.raises(UsageError, match="no supervised stage"):
        sft_settings(schedule.model_copy(update={"sft": None}))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("patience", "patienc", r"recipe.yaml:13: stages.steady.stop.patienc: unknown key; did you mean 'patience'"),
        ("updates: 40", "update: 40", r"recipe.yaml:6: settings.update: unknown key; did you mean 'updates'"),
        ("epochs", "epoch", r"recipe.yaml:4: sft.epoch: unknown key; did you mean 'epochs'"),
        ("{updates: 10", "{policy: x, updates: 10", r"recipe.yaml:12: stages.warm-up.policy: .*goes on with"),
        ("  updates: 40", "  algorithm: grpo", r"recipe.yaml:5: settings: .*algorithm stands beside settings"),
        ("warm-up:", "../up:", r"recipe.yaml:12: stages.../up"),
    ],
)
def test_a_wrong_key_is_refused_with_its_line_and_the_nearest(tmp_path, before, after, message):
    (tmp_path / "recipe.yaml").write_text(TEXT.replace(before, after))
    with pytest.raises(UsageError, match=message):
        load_settings(Schedule, tmp_path / "recipe.yaml")


def test_what_only_the_whole_of_a_stage_breaks_is_refused_for_the_whole():
    said = {"task": "t", "policy": "p", "settings": {"problems": 64}, "stages": {"a": {"minibatches": 40}}}
    assert stage_settings(validated(Schedule, said, "recipe"), "a", "p", "p").minibatches == 40
    said["settings"] = {"problems": 8}
    with pytest.raises(UsageError, match=r"stage a: .*40 of 8 problems"):
        stage_settings(validated(Schedule, said, "recipe"), "a", "p", "p")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("rloo", {"passes": 2}, "passes: 2: .*no importance ratio"),
        ("rloo", {"minibatches": 2}, "minibatches: 2: .*one optimiser step"),
        ("vapo-gae", {"updates": 50}, "value model for the first 50"),
        ("grpo", {"stop": {"accuracy": 0.5}}, "stop.accuracy: needs held-out problems and eval_every"),
        ("dr-grpo", {"stop": {"kl": 0.5}}, "stop.kl"),
        ("dr-grpo", {"reference": "x"}, "reference: .*no reference policy"),
        ("dr-grpo", {"reference_every": 3}, "reference_every: .*no reference policy"),
    ],
)
def test_what_an_algorithm_cannot_learn_with_is_refused(name, changes, message):
    with pytest.raises(UsageError, match=message):
        check_learns(RlSettings(policy="p", algorithm=name, **changes), algorithm(name), held_out=True)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_preset_learns_with_the_default_settings(name):
    check_learns(RlSettings(policy="p", algorithm=name), algorithm(name), held_out=False)
