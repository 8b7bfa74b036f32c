import pytest

from prm_kit.report.rl_compare import compare_rows, render_compare
from rl.comparison import Ran, at, claims, comparison, curve, figure


def run(accuracies, sampled=10, alarms=()):
    """A run with an evaluation before each update and after the last: its lines and its summary."""
    lines = []
    for update, accuracy in enumerate(accuracies):
        lines.append({"part": "held_out", "update": update, "sampled": accuracy, "greedy": accuracy + 0.1})
        lines.append({"part": "train", "update": update, "sampled": sampled})
    lines.pop()
    told = {
        when: {"sampled": [x], "greedy": [x + 0.1]}
        for when, x in zip(("before", "after"), accuracies[::2], strict=True)
    }
    return lines, {"held_out": told, "alarms": list(alarms)}


def ran(dense, *runs):
    return Ran(dense, *zip(*runs, strict=True))


ALARM = {"name": "entropy rises", "update": 1}
RUNS = {
    "grpo": ran(False, run([0.4, 0.45, 0.5]), run([0.4, 0.46, 0.52])),
    "dapo": ran(True, run([0.4, 0.5, 0.6], sampled=12), run([0.4, 0.5, 0.6], sampled=12)),
    "gfpo": ran(True, run([0.4, 0.3, 0.2], alarms=[ALARM]), run([0.4, 0.45, 0.4])),
}


def test_a_curve_counts_the_rollouts_before_each_evaluation():
    lines, _ = run([0.4, 0.5, 0.6], sampled=7)
    assert [(one["rollouts"], one["sampled"]) for one in curve(lines)] == [(0, 0.4), (7, 0.5), (14, 0.6)]
    # halfway between 7 and 14 rollouts; beyond the end it stays
    assert at(curve(lines), 10.5) == pytest.approx(0.55)
    assert (at(curve(lines), 0), at(curve(lines), 99)) == (0.4, 0.6)


def test_an_interval_over_seeds_is_that_of_a_t_distribution():
    found = figure([0.5, 0.6, 0.7])
    # deviation 0.1, standard error 0.1 / sqrt(3) = 0.05774, times 4.303
    assert (found["mean"], found["standard_error"]) == pytest.approx((0.6, 0.05774), abs=1e-5)
    assert (found["low"], found["high"]) == pytest.approx((0.3516, 0.8484), abs=1e-4)
    assert figure([0.5])["low"] is None


def test_algorithms_are_read_off_where_all_have_as_many_rollouts():
    data = comparison(RUNS)
    assert data["budget"] == 20
    # dapo has 24 at its end: at 20 it is two thirds of the way from 12 to 24
    assert data["algorithms"]["dapo"]["equal"]["mean"] == pytest.approx(0.5 + 0.1 * 8 / 12)
    gfpo = data["algorithms"]["gfpo"]
    assert (gfpo["worst"], gfpo["fall"]) == pytest.approx((0.2, 0.2))  # its first run ended 0.2 below its start
    # deviations over the two seeds 0.15 / sqrt(2) and 0.2 / sqrt(2), the first evaluation not counted
    assert gfpo["spread"] == pytest.approx((0.15 + 0.2) / 2 / 2**0.5)
    assert gfpo["alarms"] == [[ALARM], []]


def test_each_claim_has_a_verdict_and_its_figures():
    found = {one["claim"]: one for one in comparison(RUNS)["claims"]}
    # minus dapo 0.5667 twice: -0.3667 and -0.1667; of two seeds a t of 12.7: not beyond noise
    assert found["gfpo is best on reasoning"]["verdict"] == "undecided"
    assert found["vapo is steady"] == {"claim": "vapo is steady", "verdict": "not run", "figures": ""}
    assert found["dapo is fast but unstable"]["verdict"] == "does not hold"  # its seeds are alike
    dense = found["dense rewards beat outcomes alone"]
    # seeds: median of (0.5667, 0.2) and (0.5667, 0.4), minus 0.5 and 0.52: -0.1167 and -0.0367
    assert dense["verdict"] == "undecided"
    assert "difference -0.077" in dense["figures"]


def test_what_noise_explains_is_undecided():
    def reached(values, spread):
        return {"dense": True, "equal": figure(values), "early": figure(values), "spread": spread}

    def verdict(own, other, claim, name="srpo"):
        return next(one["verdict"] for one in claims({name: own, "other": other}) if one["claim"] == claim)

    other = reached([0.50, 0.52, 0.51], 0.02)
    for values, word in (
        ([0.60, 0.62, 0.61], "holds"),
        ([0.6, 0.45, 0.55], "undecided"),
        ([0.45, 0.6, 0.4], "undecided"),  # the mean is lower, by less than the seeds differ
        ([0.60], "undecided"),
        ([0.4], "undecided"),  # one seed says nothing either way
        ([0.4, 0.4, 0.4], "does not hold"),
    ):
        beside = reached(other["equal"]["seeds"][: len(values)], 0.02)
        assert verdict(reached(values, 0.02), beside, "gfpo is best on reasoning", "gfpo") == word
    for spread, word in ((0.009, "holds"), (0.015, "undecided"), (0.03, "undecided"), (0.05, "does not hold")):
        assert verdict(reached([0.5] * 3, spread), other, "srpo is the most stable") == word


def test_the_page_shows_every_algorithm_the_best_first():
    data = {**comparison(RUNS), "about": {"task": "<b>sums</b>"}}
    table = compare_rows(data)
    assert [row.name for row in table.rows] == ["dapo", "grpo", "gfpo"]
    assert table.rows[2].cells[-1].text == "1 of 2"
    page = render_compare(data)
    assert "&lt;b&gt;sums&lt;/b&gt;" in page
    assert "<script" not in page
    assert page.count("<svg") == 4
    one_seed = comparison({"grpo": ran(False, run([0.4, 0.45, 0.5]))})
    assert "1 seeds" not in render_compare({**one_seed, "about": {}})
