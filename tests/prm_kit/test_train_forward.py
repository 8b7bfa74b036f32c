import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.examples import Example
from prm_kit.train_forward import distinct_tokens
from prm_kit.train_plan import units_of

ids = st.lists(st.sampled_from([0, 1, 255, 256, 70_000]), min_size=1, max_size=6)


def example(numbers, prompt_length=1) -> Example:
    one = np.zeros(1, dtype=np.int32)
    return Example("x", np.array(numbers, dtype=np.int32), one, np.ones((1, 3), dtype=np.float32), prompt_length)


@given(st.lists(ids, min_size=1, max_size=12))
def test_a_prefix_that_several_share_counts_once(sequences):
    # every distinct non-empty prefix is one token that must be computed
    prefixes = {tuple(numbers[:end]) for numbers in sequences for end in range(1, len(numbers) + 1)}
    assert distinct_tokens([example(numbers) for numbers in sequences]) == len(prefixes)


@given(st.lists(ids, min_size=1, max_size=12), st.integers(1, 30))
def test_units_hold_every_example_once_and_one_prompt_each(sequences, batch_tokens):
    examples = [example(numbers) for numbers in sequences]
    units, lengths = units_of(examples, True, batch_tokens)
    assert sorted(index for unit in units for index in unit) == list(range(len(examples)))
    for unit, length in zip(units, lengths, strict=True):
        assert len({sequences[index][0] for index in unit}) == 1
        assert length == distinct_tokens([examples[index] for index in unit])
        assert length <= batch_tokens or len(unit) == 1


def test_without_sharing_every_example_is_a_unit():
    assert units_of([example([1, 2]), example([1, 2, 3])], False, 10) == ([[0], [1]], [2, 3])
