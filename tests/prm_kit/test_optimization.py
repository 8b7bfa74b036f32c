from typing import Any

import pytest
import torch
from torch import nn

from prm_kit.errors import UsageError
from prm_kit.optimization import adamw, choose_trained, learning_rate_share, stage_of


def shares(updates=10, **changes):
    asked = {"warmup": 0.2, "schedule": "linear", "final": 0.0, **changes}
    return [learning_rate_share(update, updates, **asked) for update in range(updates)]


def test_the_learning_rate_rises_and_falls_in_equal_steps():
    assert shares() == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_other_ways_down():
    assert shares(schedule="constant") == [0.5] + [1.0] * 9
    assert shares(schedule="cosine")[6] == pytest.approx(0.5)  # half of the eight updates down are done
    assert min(shares(final=0.5)[2:]) > 0.5
    assert shares(warmup=0)[0] == 1.0
    assert shares(warmup=1)[-1] == 1.0


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("updates", [1, 2, 7])
def test_no_update_is_wasted_on_a_rate_of_nothing(schedule, updates):
    assert all(0 < share <= 1 for share in shares(updates, schedule=schedule, warmup=0.05))


class Tiny(nn.Module):
    """A model as transformers lays them out: embeddings, layers and a norm in the trunk, the head beside it."""

    base_model_prefix = "body"

    def __init__(self) -> None:
        super().__init__()
        layers = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4)])
        self.body = nn.ModuleDict({"embeddings": nn.Embedding(2, 4), "layers": layers, "norm": nn.LayerNorm(4)})
        self.score = nn.Linear(4, 3)


def tiny() -> tuple[Any, nn.Linear]:
    model = Tiny()
    return model, model.score


def test_vectors_have_no_weight_decay_and_the_head_has_its_own_rate():
    model, head = tiny()
    choose_trained(model, head, train_layers=None, lora=None)
    optimizer = adamw(model, head, learning_rate=1.0, head_learning_rate=5.0, weight_decay=0.1, beta2=0.95)
    found = {
        (group["peak"], group["weight_decay"]): sum(p.numel() for p in group["params"])
        for group in optimizer.param_groups
    }
    # embeddings 8, layers 16 + 16, a bias and the norm 4 + 4 + 4, head 12; the head's bias stays 0
    assert found == {(1.0, 0.1): 40, (1.0, 0.0): 12, (5.0, 0.1): 12}


def test_a_frozen_backbone_leaves_the_head_to_train():
    model, head = tiny()
    choose_trained(model, head, train_layers=0, lora=None)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["score.weight"]


def test_upper_layers_train_with_the_norm_above_them():
    model, head = tiny()
    choose_trained(model, head, train_layers=1, lora=None)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == [f"body.{n}" for n in ("layers.1.weight", "layers.1.bias", "norm.weight", "norm.bias")] + [
        "score.weight"
    ]


def test_more_layers_than_there_are_cannot_train():
    with pytest.raises(UsageError, match="the backbone has 2 layers"):
        choose_trained(*tiny(), train_layers=3, lora=None)


def test_the_optimiser_moves_what_has_a_gradient():
    model, head = tiny()
    choose_trained(model, head, train_layers=None, lora=None)
    optimizer = adamw(model, head, learning_rate=0.1, head_learning_rate=0.1, weight_decay=0.0, beta2=0.95)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"]
    before = head.weight.detach().clone()
    head(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    # the first step of Adam is the learning rate against the sign of the gradient
    torch.testing.assert_close(head.weight.detach(), before - 0.1, atol=1e-5, rtol=0)


def test_two_stages_are_counted_apart():
    assert [stage_of(update, 5, 2) for update in range(5)] == [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    assert [stage_of(update, 2, 0) for update in range(2)] == [(0, 2), (1, 2)]


def test_a_head_that_is_not_new_is_trained_only_where_all_weights_are():
    for train_layers, trained in ((None, True), (1, False)):
        model: Any = Tiny()
        choose_trained(model, model.score, train_layers=train_layers, lora=None, fresh_head=False)
        assert model.score.weight.requires_grad == trained
