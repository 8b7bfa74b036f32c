import pytest

from rl.division import division
from rl.train_settings import RlSettings


def settings(**changes):
    return RlSettings(policy="any", **changes)


CASES = [
    ({"problems": 8}, 1, "8 groups of 4 are 32 rollouts an update"),
    (
        {"problems": 7, "minibatches": 3},
        1,
        "7 groups of 4 are 28 rollouts an update; 3 optimiser steps learn from 3, 2 and 2 groups; "
        "every group counts alike, so that a step of fewer groups is a smaller one",
    ),
    (
        {"problems": 6, "minibatches": 2, "passes": 2},
        4,
        "6 groups of 4 are 24 rollouts an update; 4 processes sample 2, 2, 1 and 1 groups; "
        "2 optimiser steps learn from 3 groups each, 2 times over",
    ),
    (
        {"problems": 9},
        8,
        "9 groups of 4 are 36 rollouts an update; 8 processes sample 2 groups (1 of them) and 1 (7 of them)",
    ),
]


@pytest.mark.parametrize(("changes", "processes", "said"), CASES)
def test_what_does_not_divide_is_said_in_numbers(changes, processes, said):
    assert division(settings(**changes), 4, processes) == said
