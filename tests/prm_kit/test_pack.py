import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

from prm_kit.pack import prefix_groups, prefix_tree, prefix_tree_attention

SHAPE = {
    "vocab_size": 8,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
}


def trunk(config_class: type, model_class: type, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return model_class(config_class(**SHAPE, **options)).eval()


TRUNKS = {
    "llama": trunk(LlamaConfig, LlamaModel),
    "qwen2": trunk(Qwen2Config, Qwen2Model),
    "qwen3": trunk(Qwen3Config, Qwen3Model),
    "mistral with a window": trunk(MistralConfig, MistralModel, sliding_window=3),
    "qwen2 with a window in one layer": trunk(
        Qwen2Config, Qwen2Model, sliding_window=3, use_sliding_window=True, max_window_layers=1
    ),
}
sequences = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=7)


def tree_hidden(model: torch.nn.Module, some: list[list[int]]) -> list[torch.Tensor]:
    tree = prefix_tree(some)
    with torch.no_grad(), prefix_tree_attention(model):
        row_TD = model(
            input_ids=tree.ids[None], position_ids=tree.position_ids[None], use_cache=False, prefix_tree=tree
        ).last_hidden_state[0]
    return [row_TD[columns] for columns in tree.columns]


def test_a_row_holds_every_distinct_prefix_once():
    # sorted: 1 2 3 | 1 2 5 6 | 4: columns 0 1 2, then 5 6 in 3 4 after the prefix 0 1, then 4 in 5
    tree = prefix_tree([[1, 2, 3], [1, 2, 5, 6], [4]])
    assert tree.ids.tolist() == [1, 2, 3, 5, 6, 4]
    assert tree.position_ids.tolist() == [0, 1, 2, 2, 3, 0]
    assert tree.columns == [[0, 1, 2], [0, 1, 3, 4], [5]]
    assert [(tail.start, tail.end) for tail in tree.tails] == [(0, 3), (3, 5), (5, 6)]


def test_a_query_sees_its_own_path_and_nothing_later():
    tree = prefix_tree([[1, 2, 3], [1, 2, 5, 6]])
    inf = float("-inf")
    # the tail 5 6 at positions 2 3 looks along the path 1 2 5 6
    assert tree.mask(1, None, torch.zeros(1)).tolist() == [[0, 0, 0, inf], [0, 0, 0, 0]]
    # with a window of 2 it sees itself and the one before
    assert tree.mask(1, 2, torch.zeros(1)).tolist() == [[inf, 0, 0, inf], [inf, inf, 0, 0]]


@settings(max_examples=60, deadline=None)
@given(some=sequences, budget=st.integers(1, 30))
def test_groups_hold_every_sequence_once_within_the_budget(some, budget):
    groups = list(prefix_groups(some, budget))
    assert sorted(index for group in groups for index in group) == list(range(len(some)))
    for group in groups:
        members = [some[index] for index in group]
        distinct = {tuple(ids[: end + 1]) for ids in members for end in range(len(ids))}
        tree = prefix_tree(members)
        assert len(tree.ids) == len(distinct)
        assert len(distinct) <= budget or len({tuple(ids) for ids in members[1:]} - {tuple(members[0])}) == 0
        for ids, columns in zip(members, tree.columns, strict=True):
            assert tree.ids[columns].tolist() == ids
            assert tree.position_ids[columns].tolist() == list(range(len(ids)))


@pytest.mark.parametrize("name", TRUNKS)
@settings(max_examples=15, deadline=None)
@given(some=sequences)
def test_hidden_states_equal_those_of_the_separate_sequences(name, some):
    model = TRUNKS[name]
    for ids, hidden_TD in zip(some, tree_hidden(model, some), strict=True):
        with torch.no_grad():
            alone_TD = model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]
        torch.testing.assert_close(hidden_TD, alone_TD, atol=1e-5, rtol=1e-5)


def test_gradients_equal_those_of_the_separate_sequences():
    model = TRUNKS["llama"]
    some = [[1, 2, 3], [1, 2, 0, 1], [1, 2, 0, 2]]
    weight = model.layers[0].mlp.up_proj.weight
    tree = prefix_tree(some)
    with prefix_tree_attention(model):
        row_TD = model(
            input_ids=tree.ids[None], position_ids=tree.position_ids[None], use_cache=False, prefix_tree=tree
        ).last_hidden_state[0]
    loss = sum(row_TD[columns[-1]].sum() for columns in tree.columns)
    alone = sum(model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1].sum() for ids in some)
    torch.testing.assert_close(
        torch.autograd.grad(loss, weight)[0], torch.autograd.grad(alone, weight)[0], atol=1e-5, rtol=1e-4
    )


def test_the_attention_is_put_back_also_after_an_error():
    model = TRUNKS["llama"]
    before = model.config._attn_implementation
    with pytest.raises(ValueError, match="prefix_tree"), prefix_tree_attention(model):
        model(input_ids=torch.tensor([[1, 2]]))
    assert model.config._attn_implementation == before
