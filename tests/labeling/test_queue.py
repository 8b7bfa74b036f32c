import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.label_table import label_table
from labeling.queue import (
    Candidate,
    Queued,
    convincing_wrong,
    disagreements,
    draw,
    plan_queue,
    read_scores,
    scores_of_raters,
    uncertainty,
    write_queue,
)
from prm_kit.errors import InputError, UsageError
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, Solution, StepLabel, step_hash
from prm_kit.view import View

SURE_RIGHT, SURE_WRONG, OPEN = (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (1 / 3, 1 / 3, 1 / 3)


def test_uncertainty_is_the_mean_entropy_until_the_first_step_predicted_wrong():
    # Entropies 0, 1 and 0; the open step after the wrong one does not count.
    assert uncertainty(Candidate("a", members=[[SURE_RIGHT, OPEN, SURE_WRONG, OPEN]])) == pytest.approx(1 / 3)
    assert uncertainty(Candidate("a", members=[[None, OPEN]])) == pytest.approx(1.0)
    assert uncertainty(Candidate("a")) is None
    assert uncertainty(Candidate("a", members=[[None]])) is None


def test_an_ensemble_that_disagrees_is_uncertain_though_each_member_is_sure():
    # The mean is (1/2, 0, 1/2): entropy ln 2, over ln 3.
    found = uncertainty(Candidate("a", members=[[SURE_RIGHT], [SURE_WRONG]]))
    assert found == pytest.approx(math.log(2) / math.log(3))


def test_convincing_is_a_wrong_final_answer_whose_worst_step_looks_right():
    steps = [[(0.1, 0.0, 0.9), (0.3, 0.0, 0.7)]]
    assert convincing_wrong(Candidate("a", is_correct=False, members=steps)) == pytest.approx(0.7)
    assert convincing_wrong(Candidate("a", is_correct=True, members=steps)) is None
    assert convincing_wrong(Candidate("a", is_correct=None, members=steps)) is None
    assert convincing_wrong(Candidate("a", is_correct=False)) is None


def test_disagreement_is_the_mean_distance_of_two_labels(table_of):
    # Solution 0: step 0 (1, 1, -1): two pairs of three differ by the whole; step 1 (1, 0): half; step 2: one label.
    table = table_of({"a": [[1, 1, 1], [1]], "b": [[1, 0, None], [1]], "c": [[-1, None, None], None]})
    ids = dict(table.solutions.select("solution", "id").iter_rows())
    assert disagreements(table) == pytest.approx({ids[0]: (2 / 3 + 1 / 2) / 2, ids[1]: 0.0})


def candidates(n, labelled=()):
    return [
        Candidate(f"s{i}", i in labelled, i % 2 == 0, [[(i / (2 * n), 0.0, 1 - i / (2 * n))]], disagreement=1 / (i + 1))
        for i in range(n)
    ]


def reasons(plan):
    return [row.reason for row in plan.queue]


def test_the_random_share_is_drawn_from_everything_and_marked():
    plan = plan_queue(candidates(100), ["uncertainty"], 20, random_share=0.25)
    assert reasons(plan).count("random") == 5
    first = sorted((f"s{i}" for i in range(100)), key=lambda id_: draw(id_, 0))[:5]
    assert {row.solution_id for row in plan.queue if row.reason == "random"} == set(first)
    assert plan.cutoff == max(draw(id_, 0) for id_ in first)


def test_the_active_part_is_the_highest_scores_in_order():
    plan = plan_queue(candidates(50), ["uncertainty"], 10, random_share=0.0)
    assert [row.solution_id for row in plan.queue] == [f"s{i}" for i in range(49, 39, -1)]
    assert [row.score for row in plan.queue] == sorted((row.score for row in plan.queue), reverse=True)


def test_several_orders_take_turns_and_a_solution_stands_once():
    plan = plan_queue(candidates(20), ["uncertainty", "disagreement"], 6, random_share=0.0)
    assert [row.solution_id for row in plan.queue] == ["s19", "s0", "s18", "s1", "s17", "s2"]
    everything = plan_queue(candidates(5), ["uncertainty", "disagreement"], 99, random_share=0.4)
    assert sorted(row.solution_id for row in everything.queue) == [f"s{i}" for i in range(5)]


def test_what_people_have_labelled_is_not_queued_and_the_sample_still_knows_it():
    first = sorted((f"s{i}" for i in range(40)), key=lambda id_: draw(id_, 0))
    labelled = {int(id_[1:]) for id_ in first[:3]}
    plan = plan_queue(candidates(40, labelled), ["uncertainty"], 8, random_share=0.5)
    assert {row.solution_id for row in plan.queue if row.reason == "random"} == set(first[3:7])
    assert plan.sampled_before == 3
    assert not {row.solution_id for row in plan.queue} & set(first[:3])


def test_gold_questions_come_at_their_rate_once_each_and_for_no_other_reason():
    plan = plan_queue(candidates(100), ["uncertainty"], 40, gold=["s99", "s98", "s97", "s96"], gold_rate=0.05)
    assert [row.solution_id for row in plan.queue if row.reason == "gold"] == ["s99", "s98"]
    assert len(plan.queue) == 40
    assert not {"s96", "s97"} & {row.solution_id for row in plan.queue}
    short = plan_queue(candidates(10), ["uncertainty"], 1000, gold=[f"g{i}" for i in range(500)], gold_rate=0.1)
    assert reasons(short).count("gold") == 1  # one in ten of what is there, not of what was asked for


def test_whoever_stops_half_way_has_had_about_half_of_each():
    plan = plan_queue(candidates(400), ["uncertainty"], 200, 0.2, [f"g{i}" for i in range(50)], 0.1)
    half = reasons(plan)[:100]
    assert abs(half.count("random") - reasons(plan).count("random") / 2) <= 1.5
    assert abs(half.count("gold") - reasons(plan).count("gold") / 2) <= 1.5


@given(st.integers(1, 40), st.integers(1, 60), st.floats(0, 1), st.integers(0, 5), st.floats(0, 0.9), st.integers(0, 3))
def test_a_queue_never_repeats_never_grows_over_the_limit_and_is_the_same_again(n, limit, share, gold, rate, seed):
    arguments = (
        candidates(n, {0}),
        ["disagreement", "uncertainty"],
        limit,
        share,
        [f"g{i}" for i in range(gold)],
        rate,
    )
    plan = plan_queue(*arguments, seed)
    ids = [row.solution_id for row in plan.queue]
    assert len(ids) == len(set(ids)) <= limit
    assert "s0" not in ids
    assert plan_queue(*arguments, seed) == plan
    shuffled = (arguments[0][::-1], *arguments[1:])
    assert plan_queue(*shuffled, seed) == plan


def test_unknown_orders_and_impossible_shares_are_refused():
    with pytest.raises(UsageError, match="Did you mean 'uncertainty'"):
        plan_queue([], ["uncertain"], 1)
    with pytest.raises(UsageError, match="random share"):
        plan_queue([], ["uncertainty"], 1, random_share=1.5)
    with pytest.raises(UsageError, match="name at least one order"):
        plan_queue([], [], 1)


def test_a_queue_file_has_one_ranked_line_each(tmp_path):
    assert write_queue(tmp_path / "q.jsonl", [Queued("a", "random", 0.5), Queued("b", "gold", 0.0)]) == 2
    assert [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()] == [
        {"solution_id": "a", "rank": 0, "reason": "random", "score": 0.5},
        {"solution_id": "b", "rank": 1, "reason": "gold", "score": 0.0},
    ]


def test_scores_are_read_and_a_line_that_is_none_is_refused(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text('{"solution_id": "a", "probabilities": [[0.2, 0.3, 0.5], null]}\n')
    assert read_scores(path) == {"a": ((0.2, 0.3, 0.5), None)}
    path.write_text('{"solution_id": "a", "probabilities": [[0.2, 0.3, 0.6]]}\n')
    with pytest.raises(InputError, match=r"scores.jsonl:1: .*distribution"):
        read_scores(path)


def test_shares_of_raters_are_an_ensemble(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    about = Solution.from_steps("p", ["x", "y"])
    for name, share in (("one", 0.5), ("two", 0.0)):
        label = StepLabel(1, None, step_hash("y"), shares=(share, 0.0, 1 - share))
        ledger.append([Annotation(about.id, Rater("prm", name), (label,))], [about])
    members = scores_of_raters(label_table(View(ledger=ledger)))
    assert members == [{about.id: (None, (0.5, 0.0, 0.5))}, {about.id: (None, (0.0, 0.0, 1.0))}]
