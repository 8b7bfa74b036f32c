import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from prm_kit.engines.engine import Rollout
from prm_kit.errors import UsageError
from prm_kit.records import Problem, Solution
from rl.policy_model import Rows, ValueModel, log_probabilities, log_probabilities_and_entropies
from rl.rollouts import Sampled
from rl.shared_prompts import Folded, batches_of_like, shared_prompt_attention, shares_prompts

CPU = torch.device("cpu")
SHAPE = {
    "vocab_size": 9,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
}


def policy(config_class, model_class, **options):
    torch.manual_seed(0)
    return model_class(config_class(**SHAPE, **options)).eval()


POLICIES = {
    "llama": policy(LlamaConfig, LlamaForCausalLM),
    "qwen2": policy(Qwen2Config, Qwen2ForCausalLM, tie_word_embeddings=True),
    "qwen3": policy(Qwen3Config, Qwen3ForCausalLM),
    "mistral with a window": policy(MistralConfig, MistralForCausalLM, sliding_window=3),
    "qwen2 with a window in one layer": policy(
        Qwen2Config, Qwen2ForCausalLM, sliding_window=3, use_sliding_window=True, max_window_layers=1
    ),
}


def rollout(prompt, ids):
    text = Solution("p", "x", ((0, 1),))
    return Sampled(0, Problem("p", None), tuple(prompt), Rollout(tuple(ids), (0.0,) * len(ids), "length"), text, ())


# two groups, rollouts out of order, one rollout twice, one that begins like another
GROUPS = [
    rollout([1, 2, 3, 4, 5], [6, 7, 8]),
    rollout([2, 2, 3], [4]),
    rollout([1, 2, 3, 4, 5], [6, 1]),
    rollout([1, 2, 3, 4, 5], [6, 7, 8]),
    rollout([2, 2, 3], [4, 5, 6, 7]),
    rollout([1, 2, 3, 4, 5], [0]),
]


def found(model, rollouts, share, function=log_probabilities):
    """What the function says, and the gradient of a weighted sum of it."""
    width = max(len(one.rollout.ids) for one in rollouts)
    with shared_prompt_attention([model.config]):
        said = function(model, Rows(rollouts, width, CPU, share=share))
    said = torch.stack(said) if isinstance(said, tuple) else said
    weights = torch.arange(said.numel()).reshape(said.shape) % 5 - 2.0
    gradients = torch.autograd.grad((said * weights).sum(), list(model.parameters()), allow_unused=True)
    return said, [one for one in gradients if one is not None]


@pytest.mark.parametrize("name", POLICIES)
def test_log_probabilities_entropies_and_gradients_are_those_of_separate_rows(name):
    model = POLICIES[name]
    shared, shared_gradients = found(model, GROUPS, True, log_probabilities_and_entropies)
    width = 4
    with torch.no_grad():  # each rollout alone, with the attention that the model came with
        alone = torch.cat([log_probabilities(model, Rows([one], width, CPU)) for one in GROUPS])
    assert torch.allclose(shared[0], alone, atol=1e-5)
    plain, gradients = found(model, GROUPS, False, log_probabilities_and_entropies)
    assert torch.allclose(shared, plain, atol=1e-5)
    for a, b in zip(shared_gradients, gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=5), st.lists(st.integers(0, 2), min_size=1)),
        min_size=1,
        max_size=6,
    )
)
def test_any_rollouts_fold_into_their_distinct_prefixes(some):
    sequences = [[*prompt, *ids[:6]] for prompt, ids in some]
    folded = Folded.of(sequences, CPU)
    assert len(folded.ids_T) == len({tuple(one[:end]) for one in sequences for end in range(1, len(one) + 1)})
    longest = folded.column_BL.shape[1]
    for row, sequence in enumerate(sequences):
        columns = folded.column_BL[row, : len(sequence)]
        assert folded.ids_T[columns].tolist() == sequence
        assert folded.position_T[columns].tolist() == list(range(len(sequence)))
    # what is unfolded and folded again is what it was
    row_1HTD = torch.arange(2.0 * len(folded.ids_T)).reshape(1, 1, -1, 2)
    assert folded.unfolded(row_1HTD).shape == (len(sequences), 1, longest, 2)
    assert torch.equal(folded.folded(folded.unfolded(row_1HTD)).transpose(1, 2), row_1HTD)


def test_a_prompt_goes_through_the_layers_once():
    model = POLICIES["llama"]
    seen = []
    hook = model.model.layers[0].mlp.register_forward_hook(lambda module, inputs, out: seen.append(out.shape[:2]))
    found(model, GROUPS, True)
    found(model, GROUPS, False)
    hook.remove()
    # 1 2 3 4 5 with 6 7 8, 1 and 0, and 2 2 3 with 4 5 6 7: 5 + 3 + 1 + 1 + 3 + 4; else six rows of eight
    assert seen == [(1, 17), (6, 8)]


def test_a_value_model_says_the_same_with_shared_prompts():
    value = ValueModel(POLICIES["qwen2"])
    torch.nn.init.normal_(value.head.weight)
    plain = value(Rows(GROUPS, 4, CPU))
    with shared_prompt_attention([value.trunk.config]):
        assert torch.allclose(value(Rows(GROUPS, 4, CPU, share=True)), plain, atol=1e-5)


def test_what_shares_nothing_is_not_folded():
    model = POLICIES["llama"]
    apart = [rollout([1, 2, 3], [4, 5]), rollout([2, 1, 3], [4, 5])]
    seen = []
    hook = model.model.layers[0].mlp.register_forward_hook(lambda module, inputs, out: seen.append(out.shape[:2]))
    found(model, apart, True)
    hook.remove()
    assert seen == [(2, 5)]


def test_without_its_attention_a_folded_row_is_refused():
    model = POLICIES["llama"]
    with pytest.raises(AssertionError, match="shared_prompt_attention"):
        log_probabilities(model, Rows(GROUPS, 4, CPU, share=True))
    assert model.config._attn_implementation != "prm_kit_shared_prompts"


def test_families_whose_attention_is_not_known_share_only_when_never_asked():
    other = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2, n_positions=16))
    assert not shares_prompts(None, other, CPU)
    with pytest.raises(UsageError, match="not known for gpt2 models, only llama, mistral"):
        shares_prompts(True, other, CPU)
    known = POLICIES["llama"]
    assert shares_prompts(None, known, CPU)
    assert not shares_prompts(None, known, torch.device("cuda"))
    assert shares_prompts(True, known, torch.device("cuda"))
    assert not shares_prompts(False, known, CPU)


def test_batches_keep_like_rollouts_together_within_the_budget():
    sequences = [(1, 2, 3, 4), (5, 6), (1, 2, 9), (5, 7, 8), (1, 2, 3)]
    # in order: 1 2 3 | 1 2 3 4 | 1 2 9 | 5 6 | 5 7 8; three rows of four are twelve tokens
    assert batches_of_like(range(5), sequences, 12) == [[4, 0, 2], [1, 3]]
    assert batches_of_like([0, 1], sequences, 3) == [[0], [1]]
    assert batches_of_like([], sequences, 3) == []
