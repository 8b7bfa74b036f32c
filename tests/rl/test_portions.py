from hypothesis import given
from hypothesis import strategies as st

from prm_kit.batching import micro_batches
from prm_kit.distributed import World
from rl.pairs import Pair
from rl.portions import pair_batches, portions


def pair(better, worse):
    return Pair(better=better, worse=worse, fork=0, gap=1.0, weight=1.0)


def test_pairs_are_cut_where_the_next_one_would_not_fit():
    # rollouts of 4 tokens: two pairs that share one are 3 x 4 = 12; with the longer one it is 5 x 6 = 30
    lengths = [4, 4, 4, 4, 6]
    asked = [pair(0, 1), pair(0, 2), pair(3, 4)]
    assert pair_batches(asked, lengths, 12) == [asked[:2], asked[2:]]
    assert pair_batches(asked, lengths, 30) == [asked]
    assert pair_batches(asked, lengths, 1) == [[one] for one in asked]
    assert pair_batches([], lengths, 12) == []


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 4), st.integers(10, 200))
def test_the_processes_share_everything_and_pass_equally_often(tokens, size, budget):
    def cut(mine):
        return micro_batches(mine, tokens, budget)

    found = [portions(range(len(tokens)), tokens, World(rank, size), cut) for rank in range(size)]
    assert len({len(one) for one in found}) == 1
    assert sorted(member for one in found for part in one for member in part) == list(range(len(tokens)))
    assert all(
        len(part) * max(tokens[i] for i in part) <= max(budget, max(tokens)) for o in found for part in o if part
    )
