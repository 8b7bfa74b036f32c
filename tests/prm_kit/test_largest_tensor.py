"""No tensor of tokens x vocabulary, and no output of the head beyond the steps that are read."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen2Config, Qwen2ForCausalLM

from prm_kit.backbone import load_tokenizer
from prm_kit.examples import Example
from prm_kit.model import Prm
from prm_kit.objectives import Objective
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Solution
from prm_kit.train_forward import Forward

VOCABULARY, WIDTH = 4000, 16


class Largest(TorchDispatchMode):
    """The most numbers that any operation's result had, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        result = operation(*arguments, **(options or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.numbers = max(self.numbers, leaf.numel())
        return result


@pytest.fixture
def prm(backbone):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return Prm.from_backbone(Qwen2ForCausalLM(config), load_tokenizer(backbone))


def rows_of_the_head(prm):
    found = []
    prm.head.register_forward_hook(lambda module, given, output: found.append(tuple(output.shape)))
    return found


@pytest.mark.parametrize("share", [False, True])
def test_training_makes_no_tensor_of_tokens_by_vocabulary(prm, share):
    positions = np.array([20, 59], dtype=np.int32)
    batch = [
        Example(str(i), np.arange(i, i + 60, dtype=np.int32), positions, np.eye(3, dtype=np.float32)[[0, 2]])
        for i in range(4)
    ]
    read, forward = rows_of_the_head(prm), Forward(prm, "float32", 1000, share)
    prm.model.train()
    with Largest() as largest, forward.attention():
        (Objective().loss(*forward.logits(batch)) / 8).backward()
    assert read == [(8, 3)]  # four solutions of two steps
    # the gradient of the embeddings, vocabulary x width, is the largest; 240 tokens x 4,000 would be 15 times that
    assert largest.numbers == VOCABULARY * WIDTH


def test_scoring_makes_no_tensor_of_tokens_by_vocabulary(prm):
    read, scorer = rows_of_the_head(prm), PrmScorer(prm)
    solutions = [Solution.from_steps("1 + 2 ?", ["so 3 = 1 + 2 " * 4, f"so {i}"], "\n") for i in range(4)]
    with Largest() as largest:
        scorer.score(solutions)
    assert sum(rows for rows, _ in read) == 8
    assert largest.numbers < 30 * VOCABULARY
