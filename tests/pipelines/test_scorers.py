import pytest
import torch

from pipelines.scorers import aggregation_of, scorer_of
from prm_kit.errors import UsageError
from prm_kit.model import Prm
from prm_kit.prm_scorer import PrmScorer
from prm_kit.serve.remote import RemoteScorer


def test_a_folder_is_loaded_and_an_address_is_asked(tmp_path, backbone, monkeypatch):
    monkeypatch.setenv("PRM_KIT_TOKEN", "letmein")
    Prm.from_backbone(backbone).save(tmp_path / "prm")
    local = scorer_of(tmp_path / "prm", "mine")
    assert isinstance(local, PrmScorer)
    assert (local.name, aggregation_of(local)) == ("mine", "min")
    assert local.prm.device == torch.device("cuda" if torch.cuda.is_available() else "cpu", local.prm.device.index)
    remote = scorer_of("http://127.0.0.1:1234", "theirs")
    assert isinstance(remote, RemoteScorer)
    assert remote.name == "theirs"
    with pytest.raises(UsageError, match="the server knows its PRM"):
        scorer_of("http://127.0.0.1:1234", family="trl")
    with pytest.raises(UsageError, match="precision"):
        scorer_of("http://127.0.0.1:1234", precision="bfloat16")


def test_the_precision_is_that_of_the_trunk(tmp_path, backbone):
    Prm.from_backbone(backbone).save(tmp_path / "prm")
    for precision in ("float32", "bfloat16"):
        assert scorer_of(tmp_path / "prm", precision=precision).prm.model.model.dtype == getattr(torch, precision)


def test_the_aggregation_is_the_cards_else_the_smallest(backbone):
    prm = Prm.from_backbone(backbone)
    prm.card = prm.card.model_copy(update={"aggregation": "product"})
    assert aggregation_of(PrmScorer(prm)) == "product"
