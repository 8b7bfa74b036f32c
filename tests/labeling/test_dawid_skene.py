import numpy as np
import pytest

from labeling.dawid_skene import dawid_skene
from prm_kit.errors import InputError

# Twelve units, four raters, three classes.
UNIT = "0 0 0 0 1 1 1 2 2 2 2 3 3 3 3 4 4 4 5 5 5 6 6 6 7 7 7 7 8 8 8 9 9 9 10 10 10 11 11 11 11"
RATER = "0 1 2 3 0 2 3 0 1 2 3 0 1 2 3 0 2 3 0 2 3 0 1 3 0 1 2 3 0 2 3 1 2 3 0 1 2 0 1 2 3"
CLASS = "2 2 2 2 1 1 1 2 2 2 0 2 2 2 1 1 2 1 2 2 2 2 2 1 0 0 0 2 0 0 0 0 0 1 0 0 0 2 0 2 0"
# What crowd-kit 1.4.2 gives after five iterations, DawidSkene(n_iter=5, tol=-1e9), in the order of classes 0, 1, 2.
CROWD_KIT = {3: [0.0, 0.059854, 0.940146], 4: [0.0, 0.998878, 0.001122], 6: [0.0, 0.110148, 0.889852]}


def numbers(text):
    return np.array(text.split(), dtype=np.int64)


def test_five_iterations_give_what_crowd_kit_gives():
    found = dawid_skene(numbers(UNIT), numbers(RATER), numbers(CLASS), iterations=5, tolerance=-1e9)
    for unit, expected in CROWD_KIT.items():
        assert found.posterior[unit] == pytest.approx(expected, abs=1e-6)
    assert (found.iterations, found.converged) == (5, False)


def test_one_iteration_by_hand():
    # Units 0 and 1, raters 0 and 1; unit 0: (0, 0), unit 1: (1, 0). Shares: unit 0 (1, 0), unit 1 (1/2, 1/2); prior
    # (3/4, 1/4). P(rater 0 says 0 | 0) = 1 / (1 + 1/2) = 2/3, says 1 | 0: 1/3, says 1 | 1: 1 (a floor for 0).
    # Rater 1 always says 0. Unit 1: 3/4 * 1/3 * 1 against 1/4 * 1 * 1: even. Unit 0: class 1 is ruled out.
    found = dawid_skene(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([0, 0, 1, 0]), 2, iterations=1)
    assert found.posterior[1] == pytest.approx([0.5, 0.5], abs=1e-6)
    assert found.posterior[0] == pytest.approx([1.0, 0.0], abs=1e-6)
    assert found.prior == pytest.approx([0.75, 0.25])


def test_known_error_rates_are_found_again_and_beat_the_majority():
    rng = np.random.default_rng(0)
    truth = rng.choice(3, size=4000, p=[0.3, 0.2, 0.5])
    accuracy = [0.95, 0.6, 0.55, 0.55]
    said = np.stack([np.where(rng.random(4000) < a, truth, rng.integers(0, 3, 4000)) for a in accuracy], axis=1)
    unit, rater = np.repeat(np.arange(4000), 4), np.tile(np.arange(4), 4000)
    found = dawid_skene(unit, rater, said.ravel())
    for r, a in enumerate(accuracy):
        assert np.diagonal(found.confusion[r]) == pytest.approx(np.full(3, a + (1 - a) / 3), abs=0.05)
    votes = np.stack([(said == k).sum(axis=1) for k in range(3)], axis=1)
    assert (found.posterior.argmax(axis=1) == truth).mean() > (votes.argmax(axis=1) == truth).mean() + 0.05
    assert found.converged


def test_the_order_of_labels_changes_nothing():
    order = np.random.default_rng(0).permutation(len(numbers(UNIT)))
    columns = numbers(UNIT), numbers(RATER), numbers(CLASS)
    a, b = dawid_skene(*columns), dawid_skene(*(column[order] for column in columns))
    assert a.posterior == pytest.approx(b.posterior, abs=1e-9)


def test_no_label_is_refused():
    nothing = np.zeros(0, dtype=np.int64)
    with pytest.raises(InputError, match="at least one label"):
        dawid_skene(nothing, nothing, nothing)
