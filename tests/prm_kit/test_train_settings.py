import subprocess
import sys

import pytest

from prm_kit.errors import UsageError
from prm_kit.settings import load_settings, validated
from prm_kit.train_settings import TrainSettings


def test_what_was_resolved_can_be_read_again():
    settings = TrainSettings(backbone="x")
    assert settings.epochs == 1
    assert TrainSettings.model_validate(settings.model_dump(mode="json")) == settings
    assert load_settings(TrainSettings, None, ["backbone=x", "updates=5", "class_weights=[1, 2, 3]"]).epochs is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"epochs": 1, "updates": 2}, "give one"),
        ({"train_layers": 2, "lora": {}}, "train_layers and lora contradict"),
        ({"train_layers": 0, "gradient_checkpointing": True}, "keeps no activations"),
        ({"train_layers": 0, "head_learning_rate": 1.0}, "set learning_rate"),
        ({"target": "outcome", "neutral_policy": "drop"}, "neutral_policy does nothing"),
        ({"target": "outcome", "mask_after_first_error": True}, "one step is read"),
        ({"schedule": "constant", "final_learning_rate": 0.1}, "does nothing with schedule constant"),
        ({"max_tokens": 100, "micro_batch_tokens": 50}, "would not fit"),
        ({"class_weights": [0, 0, 0]}, "all 0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rte": 1}, "did you mean 'learning_rate'"),
        ({"lora": {"rnk": 1}}, "did you mean 'rank'"),
        ({"device": "gpu"}, "device"),
        ({"seed": 2**63}, "seed"),
        ({"lora": {"targets": []}}, "lora.targets"),
    ],
)
def test_what_contradicts_or_does_nothing_is_refused(changes, reason):
    with pytest.raises(UsageError, match=reason):
        validated(TrainSettings, {"backbone": "x", **changes}, "test")


def test_settings_load_no_torch():
    code = "import sys, prm_kit.train_settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


SOFT = {"objective": "bce", "neutral_policy": "half"}
RANKS = {"objective": "pqm", "neutral_policy": "drop"}
LOG_RATIO = {"objective": "implicit", "target": "outcome"}


@pytest.mark.parametrize("asked", [SOFT, RANKS, LOG_RATIO, {"objective": "ensemble", "members": 2}])
def test_each_objective_has_settings_that_go_with_it(asked):
    assert TrainSettings(backbone="x", **asked).objective == asked["objective"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"objective": "binry"}, "objective"),
        ({"objective": "binary"}, "say with neutral_policy where label 0 goes"),
        ({"objective": "causal"}, "say with neutral_policy where label 0 goes"),
        ({"objective": "ordinal", "margin": 2}, "margin: objective ordinal has no such setting"),
        ({**RANKS, "members": 3, "beta": 1}, "members, beta: objective pqm has no such setting"),
        ({**RANKS, "neutral_policy": "half"}, "half is neither"),
        ({**RANKS, "too_long": "window"}, "needs whole solutions"),
        ({**RANKS, "class_weights": "balanced"}, "has no class_weights"),
        ({**RANKS, "metric": "macro_f1"}, "macro_f1 is not defined"),
        ({"objective": "pqm", "target": "outcome"}, "target outcome reads one"),
        ({**SOFT, "objective": "mse", "class_weights": [1, 1, 2]}, "has no class_weights"),
        ({"objective": "implicit"}, "set target: outcome"),
        ({**LOG_RATIO, "head_updates": 3}, "no new head"),
        ({**LOG_RATIO, "train_layers": 0}, "no new head"),
        ({**LOG_RATIO, "share_prefixes": True}, "after its own prefix"),
        ({**LOG_RATIO, "too_long": "window"}, "needs whole solutions"),
        ({"objective": "ensemble", "members": 1}, "members"),
        ({"updates": 5, "head_updates": 5}, "leaves no update for the rest"),
        ({"train_layers": 0, "head_updates": 5}, "the head alone is trained anyway"),
    ],
)
def test_what_an_objective_cannot_do_is_refused_with_the_reason(changes, reason):
    with pytest.raises(UsageError, match=reason):
        validated(TrainSettings, {"backbone": "x", **changes}, "test")
