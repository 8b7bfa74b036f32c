import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.serve import check_host, for_device, token_counter
from prm_kit.endpoint import Key
from prm_kit.errors import UsageError
from prm_kit.model import Prm
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Solution
from prm_kit.released.universal import PrefixEncoder
from prm_kit.segments import SegmentReading
from prm_kit.serve.golden import write_golden
from prm_kit.serve.settings import ServeSettings


@pytest.fixture
def checkpoint(backbone, tmp_path):
    Prm.from_backbone(backbone).save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_beyond_this_machine_a_token_is_required():
    for host in ("127.0.0.1", "localhost", "::1"):
        check_host(host, None)
    check_host("0.0.0.0", Key("secret"))
    with pytest.raises(UsageError, match="give a token"):
        check_host("0.0.0.0", None)


def test_batches_are_larger_on_a_gpu_unless_a_size_was_asked_for(checkpoint):
    scorer = PrmScorer(Prm.load(checkpoint))
    assert for_device(ServeSettings(), scorer).batch_tokens == 2_048

    class OnGpu:
        class prm:  # noqa: N801
            class device:  # noqa: N801
                type = "cuda"

    assert for_device(ServeSettings(), OnGpu()).batch_tokens == 16_384
    assert for_device(ServeSettings(batch_tokens=7), OnGpu()).batch_tokens == 7


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["serve", "x", "queue_item=3"], "queue_items"),
        (["serve", "x", "max_items=300", "queue_items=3"], "queue_items 3 is less than max_items 300"),
        (["serve", "x", "--aggregation", "men"], "mean"),
        (["serve", "x", "--host", "0.0.0.0"], "give a token"),
        (["serve", "x", "--token-file", "nowhere"], "nowhere"),
        (["serve-check", "http://127.0.0.1:9", "--golden", "nowhere"], "nowhere"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_loaded(words, reason, monkeypatch):
    monkeypatch.delenv("PRM_KIT_TOKEN", raising=False)
    done = CliRunner().invoke(app, words)
    assert done.exit_code in (1, 2)
    assert reason in done.output


def test_a_checkpoint_is_exported_and_a_server_that_is_not_there_fails_the_check(checkpoint, tmp_path):
    done = CliRunner().invoke(
        app, ["convert", str(checkpoint), "--target", "sglang", "--out", str(tmp_path / "out"), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["golden"] == 16
    assert write_golden(Prm.load(checkpoint), checkpoint) == 16
    checked = CliRunner().invoke(app, ["serve-check", "http://127.0.0.1:9", "--golden", str(checkpoint)])
    assert checked.exit_code == 1
    assert "0 of 16 within 0.02" in checked.output


def test_a_solution_that_is_read_as_several_sequences_counts_as_its_longest(backbone):
    prm = Prm.from_backbone(backbone)
    prm.encoder = PrefixEncoder(prm.tokenizer, SegmentReading(mark="<|prm_step|>"))
    solutions = [Solution.from_steps("1 +", ["2", "3 4"]), Solution.from_steps("1 +", ["2"])]
    # problem, steps with a blank line behind each (one unknown word), mark
    lengths = [len(one.ids) for one in prm.encoder.encode(solutions)]
    assert token_counter(PrmScorer(prm))(solutions) == [max(lengths[:2]), lengths[2]]
