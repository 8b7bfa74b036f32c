import json

import torch
from transformers import AutoConfig, Qwen2ForCausalLM
from typer.testing import CliRunner

from pipelines.cli import app
from prm_kit.backbone import load_tokenizer
from prm_kit.causal import causal_from_backbone


def test_the_scores_before_and_after_are_printed_and_equal(tmp_path, backbone):
    torch.manual_seed(0)
    Qwen2ForCausalLM(AutoConfig.from_pretrained(backbone)).save_pretrained(tmp_path / "lm")
    load_tokenizer(backbone).save_pretrained(tmp_path / "lm")
    causal_from_backbone(tmp_path / "lm", verdict_tokens=("so", "+")).save(tmp_path / "prm")
    asked = ["convert", str(tmp_path / "prm"), "--out", str(tmp_path / "out")]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "own (binary): values differ by 0 at most" in shown.output
    found = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert found["difference"] == 0.0
    assert [len(row["before"]) for row in found["scores"]] == [2, 3, 2]
    refused = CliRunner().invoke(app, ["convert", str(tmp_path / "lm"), "--out", str(tmp_path / "other")])
    assert refused.exit_code == 2
    assert "rlhflow" in refused.stderr


def test_an_export_refuses_what_is_for_published_prms_alone(tmp_path):
    words = ["convert", "x", "--target", "vllm", "--family", "trl", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "--family and --reference are not for it" in done.output
