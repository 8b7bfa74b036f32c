import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from prm_kit.cuda_extras import check_four_bit, to_four_bit, use_liger
from prm_kit.distributed import World
from prm_kit.errors import UsageError
from prm_kit.model import Prm
from prm_kit.train import train
from prm_kit.train_settings import LoraSettings, TrainSettings

CUDA = torch.device("cuda")


def test_four_bits_are_refused_with_the_reason(backbone, tmp_path, monkeypatch):
    asked = TrainSettings(backbone=backbone, lora=LoraSettings(four_bit=True), device="cpu")
    with pytest.raises(UsageError, match="four_bit: it needs CUDA"):
        train(asked, [], [], tmp_path)
    monkeypatch.setattr("prm_kit.cuda_extras.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'prm-kit\[four-bit\]'"):
        check_four_bit(World(), CUDA)
    monkeypatch.setattr("prm_kit.cuda_extras.importlib.util.find_spec", lambda name: object())
    with pytest.raises(UsageError, match="several processes"):
        check_four_bit(World(0, 2), CUDA)
    check_four_bit(World(), CUDA)


class Packed(nn.Linear):
    """Stands in for bitsandbytes' layer: the same arguments, nothing packed."""

    def __init__(self, in_features, out_features, bias, compute_dtype, quant_type):
        super().__init__(in_features, out_features, bias)


def test_all_linear_layers_of_the_trunk_are_packed_and_the_head_is_not(backbone):
    prm = Prm.from_backbone(backbone)
    ids_BT, read_N = torch.tensor([[3, 4, 5]]), torch.tensor([0])
    with torch.no_grad():
        before = prm.read_logits(ids_BT, None, read_N, read_N + 2)
        to_four_bit(
            prm.model, prm.trunk, Packed, lambda data, requires_grad, quant_type: nn.Parameter(data, requires_grad)
        )
        torch.testing.assert_close(prm.read_logits(ids_BT, None, read_N, read_N + 2), before)
    kinds = {type(layer) for layer in prm.trunk.modules() if isinstance(layer, nn.Linear)}
    assert kinds == {Packed}
    assert type(prm.head) is nn.Linear
    assert prm.model.is_loaded_in_4bit


def test_liger_is_used_on_cuda_where_it_is_installed_and_changes_this_model_only(backbone, monkeypatch):
    prm = Prm.from_backbone(backbone)
    family = sys.modules[type(prm.model).__module__]
    norm = family.Qwen2RMSNorm

    def patch(model, **options):
        family.Qwen2RMSNorm = "for all"
        model.patched = options

    fake = ModuleType("liger_kernel.transformers.monkey_patch")
    fake.MODEL_TYPE_TO_APPLY_LIGER_FN = {"qwen2": patch}
    fake._apply_liger_kernel_to_instance = patch
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr("prm_kit.cuda_extras.importlib.util.find_spec", lambda name: object())
    assert not use_liger("off", prm.model, CUDA)
    assert not use_liger("auto", prm.model, torch.device("cpu"))
    assert not use_liger("auto", SimpleNamespace(config=SimpleNamespace(model_type="other")), CUDA)
    assert use_liger("auto", prm.model, CUDA)
    assert family.Qwen2RMSNorm is norm
    assert prm.model.patched == {"rope": False, "cross_entropy": False, "fused_linear_cross_entropy": False}
