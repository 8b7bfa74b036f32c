import random

from hypothesis import given
from hypothesis import strategies as st

from prm_kit.batching import cut_evenly, epoch_updates, micro_batches, updates_per_epoch

lengths_of = st.lists(st.integers(1, 400), min_size=1, max_size=60)


def padded_share(batches, lengths):
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return 1 - sum(lengths[i] for batch in batches for i in batch) / padded


@given(lengths_of, st.integers(1, 2000), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_every_example_is_in_exactly_one_update_of_an_epoch(lengths, tokens, pool, seed, epoch):
    updates = epoch_updates(lengths, tokens, pool, seed, epoch)
    assert len(updates) == updates_per_epoch(lengths, tokens)
    assert all(updates)
    assert sorted(index for update in updates for index in update) == list(range(len(lengths)))
    assert updates == epoch_updates(lengths, tokens, pool, seed, epoch)


@given(lengths_of, st.integers(1, 2000))
def test_micro_batches_keep_to_the_budget_and_lose_nothing(lengths, budget):
    batches = micro_batches(range(len(lengths)), lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
        assert max(lengths[i] for i in batch) == lengths[batch[0]]


def test_micro_batches_by_hand():
    # 9 | 5 5 (10 of 12) | 4 3 2 (12 of 12) | 1
    assert micro_batches(range(7), [5, 4, 9, 5, 3, 2, 1], 12) == [[2], [0, 3], [1, 4, 5], [6]]


def test_runs_are_cut_in_proportion_to_their_shares():
    assert cut_evenly([0, 1, 2, 3], [4, 4, 4, 4], [1, 1]) == [[0, 1], [2, 3]]
    assert cut_evenly([0, 1, 2, 3], [6, 2, 2, 2], [1, 1]) == [[0], [1, 2, 3]]
    assert cut_evenly([0, 1, 2], [1, 1, 100], [2, 1]) == [[0, 1], [2]]
    assert cut_evenly([0, 1, 2], [100, 1, 1], [1, 1, 1]) == [[0], [1], [2]]


def test_updates_have_about_the_tokens_asked_for_and_little_padding():
    source = random.Random(0)
    lengths = [min(600, 20 + int(source.expovariate(1 / 120))) for _ in range(2000)]
    for pool, most in ((1, 1.0), (16, 0.10)):
        updates = epoch_updates(lengths, 1100, pool, 0, 0)
        tokens = [sum(lengths[i] for i in update) for update in updates]
        assert max(tokens) < 1100 + 600
        assert padded_share(updates, lengths) < most
    assert padded_share(epoch_updates(lengths, 1100, 1, 0, 0), lengths) > 0.4


def test_each_epoch_has_its_own_order_and_lengths_are_mixed_over_time():
    lengths = list(range(1, 201))
    first, second = (epoch_updates(lengths, 500, 4, 0, epoch) for epoch in (0, 1))
    assert first != second
    longest = [max(lengths[i] for i in update) for update in first]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)
