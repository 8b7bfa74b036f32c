import pytest
import torch
from transformers import DynamicCache, GPT2Config, MistralConfig, Qwen2Config
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from prm_kit.engines.growing_cache import GrowingLayer, growing_cache


def states(rows, tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, 2, tokens, 4, generator=generator) for _ in range(2))


@pytest.mark.parametrize("longest", [6, 300])
def test_it_holds_what_transformers_layer_holds(longest):
    ours, theirs = GrowingLayer(longest), DynamicLayer()
    # prefill of two, five rows of them, tokens one by one, rows that leave in place, rows in another order
    script = [("add", 2, 3), ("keep", [0, 0, 1, 1, 1]), ("add", 5, 1), ("keep", [0, 4, 2]), ("add", 3, 1)]
    script += [("keep", [2, 0]), ("add", 2, 1), ("keep", [0]), ("add", 1, 150 if longest > 6 else 1)]
    for number, (what, *how) in enumerate(script):
        for layer in (ours, theirs):
            if what == "add":
                layer.update(*states(*how, seed=number))
            else:
                layer.batch_select_indices(torch.tensor(how[0]))
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)


def test_tokens_are_written_into_room_that_is_there_and_rows_leave_without_a_copy_of_the_others():
    layer = GrowingLayer(100)
    layer.update(*states(4, 3, 0))
    place = layer.keys.data_ptr()
    for _ in range(97):
        layer.update(*states(4, 1, 1))
    assert layer.keys.data_ptr() == place
    layer.batch_select_indices(torch.tensor([0, 3, 2]))
    assert layer.keys.data_ptr() == place
    assert layer.keys.shape == (3, 2, 100, 4)


def test_layers_of_other_kinds_stay_as_they_are():
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "num_hidden_layers": 2}
    mixed = growing_cache(Qwen2Config(**window), 9)
    assert [type(layer) for layer in mixed.layers] == [GrowingLayer, DynamicSlidingWindowLayer]
    assert {type(layer) for layer in growing_cache(MistralConfig(sliding_window=4), 9).layers} == {
        DynamicSlidingWindowLayer
    }
    assert {type(layer) for layer in growing_cache(GPT2Config(), 9).layers} == {GrowingLayer}
    assert isinstance(mixed, DynamicCache)
