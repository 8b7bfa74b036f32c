import math
from functools import partial

import pytest
import torch

from rl.drift import Drift
from rl.surrogates import gspo, ppo_clip

MASK = torch.tensor([[True, True, False], [True, False, False]])
OLD = torch.zeros(2, 3)
# ratios 1.5, 1.1 and 0.7; what stands outside of the mask is never looked at
NEW = torch.tensor([[math.log(1.5), math.log(1.1), math.nan], [math.log(0.7), 99.0, -99.0]])


def test_figures_by_hand():
    drift = Drift()
    drift.add(ppo_clip, NEW, OLD, MASK, OLD)
    found = drift.figures()
    assert found["clip_share"] == pytest.approx(2 / 3)  # 1.5 and 0.7 lie outside of 0.8 to 1.2
    k3 = [r - 1 - math.log(r) for r in (1.5, 1.1, 0.7)]
    assert found["kl_update"] == pytest.approx(sum(k3) / 3, rel=1e-5)
    differences = [math.log(1.5), math.log(1.1), -math.log(0.7)]
    assert found["mismatch"] == pytest.approx(sum(differences) / 3, rel=1e-5)
    assert found["mismatch_most"] == pytest.approx(math.log(1.5), rel=1e-5)


def test_the_clip_range_is_the_surrogates_own_and_that_of_sequences_one_of_sequences():
    wide, sequences, pairs = Drift(), Drift(), Drift()
    wide.add(partial(ppo_clip, low=0.2, high=0.6), NEW, OLD, MASK, None)
    assert wide.clipped == 1  # 0.7
    assert "mismatch" not in wide.figures()  # only the first step of an update tells
    # geometric means: sqrt(1.65) = 1.28 and 0.7, both outside of 1 -+ 0.0004: all tokens
    sequences.add(gspo, NEW, OLD, MASK, None)
    assert sequences.clipped == 3
    pairs.add(None, NEW, OLD, MASK, None)
    assert pairs.clipped == 2


def test_parts_add_up_to_the_whole():
    whole, parts = Drift(), [Drift(), Drift()]
    whole.add(ppo_clip, NEW, OLD, MASK, OLD)
    for row, part in enumerate(parts):
        part.add(ppo_clip, NEW[row : row + 1], OLD[row : row + 1], MASK[row : row + 1], OLD[row : row + 1])
    assert Drift.joined(parts).figures() == pytest.approx(whole.figures())
    assert Drift.joined([Drift(), Drift()]).figures() == {}
