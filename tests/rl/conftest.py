import pytest
import torch

from rl.batch import Batch


def build(rewards, lengths=None, groups=None, steps=None, step_lengths=None, pad=0, seed=0, **fields):
    """A batch from plain lists. `steps`: step rewards per row; `step_lengths`: tokens of each of them, default 2."""
    rows = len(rewards)
    if steps is not None:
        step_lengths = step_lengths or [[2] * len(row) for row in steps]
        lengths = [sum(row) for row in step_lengths]
    lengths = lengths or [3] * rows
    width = max(lengths) + pad
    mask = torch.tensor([[t < n for t in range(width)] for n in lengths])
    generator = torch.Generator().manual_seed(seed)
    batch = {
        "group_B": torch.tensor(groups or [0] * rows),
        "mask_BT": mask,
        "reward_B": torch.tensor(rewards, dtype=torch.float32),
        "max_tokens": 64,
        "values_BT": torch.rand(rows, width, generator=generator),
    }
    if steps is not None:
        most = max(map(len, steps))
        batch["step_rewards_BS"] = torch.tensor(
            [[*row, *[float("nan")] * (most - len(row))] for row in steps], dtype=torch.float32
        )
        batch["step_BT"] = torch.tensor(
            [([k for k, n in enumerate(row) for _ in range(n)] + [0] * width)[:width] for row in step_lengths]
        )
    return Batch(**{**batch, **fields})


@pytest.fixture(scope="session")
def make_batch():
    return build


@pytest.fixture(scope="session")
def random_batch():
    """Groups that are not neighbours, rows of different lengths, holes, steps, and everything that a part may need."""

    def random(seed=0, groups=3, size=4, width=9, reference=True):
        generator = torch.Generator().manual_seed(seed)

        def uniform(*shape):
            return torch.rand(*shape, generator=generator)

        rows = groups * size
        lengths = torch.randint(3, width + 1, (rows,), generator=generator)
        mask = torch.arange(width)[None] < lengths[:, None]
        mask &= uniform(rows, width) > 0.15
        mask[:, 0] = True
        step_BT = (uniform(rows, width) > 0.6).long().cumsum(1)
        step_BT -= step_BT[:, :1]
        steps = int(step_BT.max()) + 1
        count = torch.where(mask, step_BT, 0).amax(1) + 1
        rewards_BS = torch.where(torch.arange(steps)[None] < count[:, None], uniform(rows, steps) * 2 - 1, torch.nan)
        group_B = torch.arange(rows) % groups * 7 + 5
        is_reference_B = torch.zeros(rows, dtype=torch.bool)
        if reference:
            is_reference_B[-groups:] = True
        return Batch(
            group_B=group_B,
            mask_BT=mask,
            reward_B=uniform(rows),
            max_tokens=32,
            correct_B=(uniform(rows) > 0.5).float(),
            step_BT=step_BT,
            step_rewards_BS=rewards_BS,
            truncated_B=uniform(rows) > 0.8,
            is_reference_B=is_reference_B,
            old_BT=-uniform(rows, width),
            reference_BT=-uniform(rows, width),
            rollout_BT=-uniform(rows, width),
            values_BT=uniform(rows, width),
        )

    return random
