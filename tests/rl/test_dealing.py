from hypothesis import given
from hypothesis import strategies as st

from prm_kit.distributed import World
from rl.dealing import dealt, shares


def test_seven_groups_are_two_two_and_three():
    assert shares(7, 3) == [range(2), range(2, 4), range(4, 7)]
    assert shares(1, 2) == [range(0), range(1)]


@given(st.integers(0, 200), st.integers(1, 9))
def test_shares_put_together_are_everything_in_order_and_differ_by_one_at_most(items, processes):
    found = shares(items, processes)
    assert [place for one in found for place in one] == list(range(items))
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_one_process_does_it_all():
    assert dealt(World(), 3, list) == [[0, 1, 2]]


class Two(World):
    """The second of two processes; what the first one hands in is `first`."""

    first = ([["a"]], None)

    def gather(self, value):
        return [self.first, value]


def test_two_processes_know_what_both_did():
    assert dealt(Two(1, 2), 2, lambda mine: [f"b{place}" for place in mine]) == [["a"], ["b1"]]


def test_what_one_process_could_not_do_fails_in_all_of_them():
    import pytest

    from prm_kit.errors import PrmKitError

    class Failed(Two):
        first = ([], PrmKitError("process 0: KeyError: 'x'"))

    with pytest.raises(PrmKitError, match="process 0: KeyError"):
        dealt(Failed(1, 2), 2, list)

    def fails(mine):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):  # its own error as it was
        dealt(Two(1, 2), 2, fails)
