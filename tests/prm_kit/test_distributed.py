import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.distributed import World, deal, world_of_torchrun
from prm_kit.errors import UsageError
from prm_kit.train_start import chosen_device


def test_the_longest_are_dealt_first_each_to_the_hand_with_least():
    # 9 to hand 0, 7 to 1, 4 to 1 (7 < 9), 4 to 0 (9 < 11), 1 to 1 (11 < 13): 13 and 12 tokens
    assert deal([4, 9, 4, 1, 7], 2) == [[1, 2], [0, 3, 4]]


@given(st.lists(st.integers(1, 50), max_size=12), st.integers(1, 5))
def test_every_unit_is_in_one_hand_and_no_hand_holds_more_than_another_by_more_than_a_unit(tokens, hands):
    found = deal(tokens, hands)
    assert sorted(index for hand in found for index in hand) == list(range(len(tokens)))
    held = [sum(tokens[index] for index in hand) for hand in found]
    assert max(held) - min(held) <= max(tokens, default=0)


def test_one_process_is_the_whole_world():
    with world_of_torchrun() as world:
        assert world == World(0, 1)
        assert world.is_first
        assert world.sum([0.1, 2]) == [0.1, 2.0]
        assert world.gather("a") == ["a"]
        assert world.agree(None) is None


def test_a_directory_of_one_process_is_whole_or_not_there(tmp_path):
    with World().whole_directory(tmp_path / "a") as part:
        (part / "file").touch()
    assert (tmp_path / "a/file").exists()
    with pytest.raises(OSError, match="disk full"), World().whole_directory(tmp_path / "b"):
        raise OSError("disk full")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_every_process_takes_a_cuda_device_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "1")
    assert chosen_device("auto", World(1, 2)) == torch.device("cuda:1")
    with pytest.raises(UsageError, match="say cuda and start as many"):
        chosen_device("cuda:0", World(1, 2))
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="there are 2 here"):
        chosen_device("auto", World(2, 3))


def test_a_cuda_device_of_a_number_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert chosen_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="device: cuda:2: there are 2 CUDA devices"):
        chosen_device("cuda:2")
