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
    ],
)
def test_what_contradicts_or_does_nothing_is_refused(changes, reason):
    with pytest.raises(UsageError, match=reason):
        validated(TrainSettings, {"backbone": "x", **changes}, "test")


def test_settings_load_no_torch():
    code = "import sys, prm_kit.train_settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
