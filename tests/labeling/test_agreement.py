import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from labeling.agreement import overall_agreement, pair_agreement
from labeling.coefficients import cohen_kappa, coincidences, fleiss_kappa, fleiss_parts, krippendorff_alpha
from prm_kit.errors import UsageError
from prm_kit.evaluate.bootstrap import Bootstrap

# Four observers, twelve units, five values; the data that introduces alpha (Krippendorff 2011), with the published
# nominal 0.743 and ordinal 0.815.
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
# Fleiss 1971: ten subjects, fourteen raters, five categories; kappa 0.210.
FLEISS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def counts_of(rows, values):
    return np.array([[sum(row[u] == v for row in rows) for v in values] for u in range(len(rows[0]))])


def alpha(counts, metric="ordinal"):
    return krippendorff_alpha(coincidences(counts).sum(axis=0)[None], metric)[0]


def test_alpha_of_the_published_example():
    counts = counts_of(PUBLISHED, range(1, 6))
    assert alpha(counts, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert alpha(counts, "ordinal") == pytest.approx(0.815, abs=5e-4)


def test_fleiss_kappa_of_the_published_example():
    assert fleiss_kappa(fleiss_parts(FLEISS).sum(axis=0)[None])[0] == pytest.approx(0.210, abs=5e-4)


def test_alpha_by_hand():
    # Two raters: (-1, -1), (0, 1), (1, 1). Coincidences: o(-1,-1) = 2, o(0,1) = o(1,0) = 1, o(1,1) = 2; n = 6, margins
    # 2, 1, 3. Nominal: observed 2, expected (2 * 1 + 2 * 3 + 1 * 3) * 2 = 22; alpha = 1 - 5 * 2 / 22.
    # Ordinal: half margins from below: 1, 2.5, 4.5; squared differences 2.25, 12.25, 4; observed 2 * 4 = 8,
    # expected 2 * (2 * 1 * 2.25 + 2 * 3 * 12.25 + 1 * 3 * 4) = 180; alpha = 1 - 5 * 8 / 180.
    counts = [[2, 0, 0], [0, 1, 1], [0, 0, 2]]
    assert alpha(counts, "nominal") == pytest.approx(1 - 10 / 22)
    assert alpha(counts, "ordinal") == pytest.approx(1 - 40 / 180)


def slow_alpha(units, metric):
    """Pair by pair, from the definition: 1 - mean difference within units / mean difference of any two values."""
    units = [unit for unit in units if len(unit) >= 2]
    every = [v for unit in units for v in unit]
    n_of = {v: every.count(v) for v in range(3)}

    def difference(a, b):
        if metric == "nominal":
            return float(a != b)
        low, high = sorted((a, b))
        return (sum(n_of[g] for g in range(low, high + 1)) - (n_of[a] + n_of[b]) / 2) ** 2

    observed = sum(
        difference(a, b) / (len(unit) - 1) for unit in units for a, b in itertools.permutations(unit, 2)
    ) / len(every)
    expected = sum(difference(a, b) for a, b in itertools.permutations(every, 2)) / (len(every) * (len(every) - 1))
    return 1 - observed / expected if expected else None


units_strategy = st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=8)


@given(units_strategy, st.sampled_from(["ordinal", "nominal"]))
@settings(deadline=None)
def test_alpha_is_what_the_definition_gives_pair_by_pair(units, metric):
    counts = np.array([[unit.count(v) for v in range(3)] for unit in units])
    found = alpha(counts, metric)
    if not any(len(unit) >= 2 for unit in units) or slow_alpha(units, metric) is None:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(slow_alpha(units, metric))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=30))
def test_cohens_kappa_is_scikit_learns(pairs):
    a, b = zip(*pairs, strict=True)
    cross = np.zeros((1, 3, 3))
    np.add.at(cross[0], (a, b), 1)
    found = cohen_kappa(cross)[0]
    if len({*a, *b}) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(cohen_kappa_score(a, b), nan_ok=True)


def test_an_unknown_metric_is_refused():
    with pytest.raises(UsageError, match="ordinal"):
        krippendorff_alpha(np.ones((1, 3, 3)), "ordinary")


def test_raters_who_agree_have_alpha_one_and_steps_judged_once_do_not_count(table_of):
    table = table_of({"a": [[1, -1, 0], [1, 1]], "b": [[1, -1, None], [1, None]]})
    found = overall_agreement(table, Bootstrap(table.n_problems, 20))
    assert (found["units"], found["labels"], found["values"]) == (3, 6, {"-1": 2, "0": 0, "1": 4})
    assert found["alpha"]["value"] == found["fleiss"]["value"] == found["percent"]["value"] == 1.0


def test_a_pair_by_hand(table_of):
    # Common steps: (1, 1), (-1, 1), (1, 1), (1, 0). First errors: p0 a names 1, b none (judged all three); p1: a names
    # none, b none; both settle p0 and p1 only.
    table = table_of({"a": [[1, -1, None], [1], [1, None]], "b": [[1, 1, 1], [1], [0, None]]})
    [pair] = pair_agreement(table, Bootstrap(table.n_problems, 20))
    assert pair["confusion"] == [[0, 0, 1], [0, 0, 0], [0, 1, 2]]
    assert (pair["steps"], pair["percent"]["value"]) == (4, 0.5)
    # Cohen: observed 2/4; expected 1/4 * 0 + 0 * 1/4 + 3/4 * 3/4 = 9/16.
    assert pair["kappa"]["value"] == pytest.approx((1 / 2 - 9 / 16) / (7 / 16))
    first = pair["first_error"]
    assert (first["solutions"], first["only_a"], first["only_b"], first["both"]) == (2, 1, 0, 0)
    assert (first["agreement"]["value"], first["distance"]["value"]) == (0.5, None)


def test_the_distance_is_in_steps_between_the_errors_that_both_name(table_of):
    table = table_of({"a": [[-1, 1, 1], [1, -1, 1]], "b": [[1, 1, -1], [1, -1, 1]]})
    [pair] = pair_agreement(table, Bootstrap(table.n_problems, 20))
    assert pair["first_error"]["distance"]["value"] == 1.0
    assert pair["first_error"]["agreement"]["value"] == 0.5


def test_raters_with_nothing_in_common_are_no_pair(table_of):
    table = table_of({"a": [[1], [None]], "b": [[None], [1]]})
    assert pair_agreement(table, Bootstrap(table.n_problems, 20)) == []


def test_many_pairs_in_blocks_are_the_pairs_one_by_one(table_of, monkeypatch):
    rng = np.random.default_rng(0)
    table = table_of({name: rng.integers(-1, 2, size=(12, 3)).tolist() for name in "abcd"})
    whole = pair_agreement(table, Bootstrap(table.n_problems, 30))
    monkeypatch.setattr("labeling.agreement._COLUMNS", 1)
    assert pair_agreement(table, Bootstrap(table.n_problems, 30)) == whole
    assert len(whole) == 6
    assert all(pair["alpha"]["low"] <= pair["alpha"]["value"] <= pair["alpha"]["high"] for pair in whole)
