import dataclasses
from functools import partial

import pytest

from prm_kit.errors import UsageError
from rl import advantages, credit, loss_reduction, pairs, surrogates
from rl.algorithms import COMPOUNDS, PARTS, Algorithm, Pairs, with_parts
from rl.parts import described, name_of
from rl.presets import ALGORITHMS, CONTESTED, algorithm
from rl.rewards import RewardWeights
from rl.scenarios import SCENARIOS, measured

NAMED = {
    "grpo",
    "dapo",
    "vapo",
    "srpo",
    "gfpo",
    "gfpo-anchored",
    "gfpo-gated",
    "dapo-dynamic",
    "vapo-gae",
    "srpo-resample",
    "gfpo-filter",
    "ppo",
    "dr-grpo",
    "rloo",
    "reinforce++",
    "reinforce++-baseline",
    "remax",
    "gspo",
    "gmpo",
    "cispo",
    "sapo",
    "prime",
    "pure",
}


def test_every_named_algorithm_is_there_under_its_own_name():
    assert set(ALGORITHMS) >= NAMED
    assert all(preset.name == name for name, preset in ALGORITHMS.items())
    assert set(CONTESTED) <= set(ALGORITHMS)
    for contested in ("dapo", "vapo", "srpo", "gfpo"):
        assert CONTESTED[contested].startswith(f"{contested} = the handbook's")


def test_an_algorithm_holds_functions_and_is_frozen():
    grpo = ALGORITHMS["grpo"]
    assert grpo.estimator is advantages.group_zscore
    with pytest.raises(dataclasses.FrozenInstanceError):
        grpo.estimator = advantages.group_mean
    for preset in ALGORITHMS.values():
        for field in PARTS:
            part = getattr(preset, field)
            assert part is None or callable(part)
            assert name_of(part) in {"", *PARTS[field]}, f"{preset.name}: {field} {name_of(part)} has no name"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_can_be_made_again_from_what_is_printed_of_it(name):
    preset = ALGORITHMS[name]
    words = {}
    for field in PARTS:
        part = getattr(preset, field)
        numbers = part.keywords if isinstance(part, partial) else {}
        words[field] = None if part is None else {"name": name_of(part), **numbers}
    again = with_parts(preset, words)
    assert again.parts() == preset.parts()


def test_parts_are_replaced_by_name_by_number_and_by_function():
    def mine(credit_BT, counted_BT, batch):
        return credit_BT

    changed = algorithm(
        "grpo",
        {
            "estimator": "leave_one_out",
            "surrogate": {"name": "ppo_clip", "high": 0.28, "dual": 3.0},
            "divergence": None,
            "weights": {"process": 0.3},
            "credit": {"name": "min_form", "temperature": 0.1},
            "process_estimator": mine,
            "pairs": {"builder": "variance_aware", "loss": "gfpo_anchored", "weight": 0.1},
            "group_size": 4,
        },
    )
    assert changed.parts()["surrogate"] == "ppo_clip(high=0.28, dual=3)"
    assert changed.parts()["pairs"] == "variance_aware, gfpo_anchored, weight 0.1"
    assert (changed.weights.final, changed.weights.process, changed.group_size) == (1, 0.3, 4)
    assert changed.process_estimator is mine
    assert algorithm("grpo", {"divergence": {"weight": 0.01}}).parts()["divergence"] == "k3, weight 0.01"
    assert described(ALGORITHMS["gfpo-anchored"].pairs.builder) == "prefix_sharing(eps=0.05)"


@pytest.mark.parametrize(
    ("name", "parts", "said"),
    [
        ("grppo", {}, "unknown algorithm 'grppo'. Did you mean 'grpo'"),
        ("grpo", {"estimater": "critic"}, "no part 'estimater'. Did you mean 'estimator'"),
        ("grpo", {"estimator": "leave_on_out"}, "unknown estimator 'leave_on_out'. Did you mean 'leave_one_out'"),
        (
            "grpo",
            {"surrogate": {"name": "ppo_clip", "hihg": 1}},
            "surrogate ppo_clip: no number 'hihg'; did you mean 'high'",
        ),
        ("grpo", {"surrogate": 3}, "surrogate: 3 is neither a name nor"),
        ("grpo", {"pairs": {"builder": "ranked"}}, "pairs: give loss too"),
        ("grpo", {"group_size": "many"}, "group_size: 'many' is no whole number"),
        ("grpo", {"group_size": 0}, "group_size: 0: a problem has one rollout at least"),
        ("grpo", {"wrong": float("nan")}, "wrong: nan is no number"),
        ("grpo", {"surrogate": {"name": "ppo_clip", "low": "x"}}, "surrogate ppo_clip: low: 'x' is no number"),
        ("grpo", {"divergence": {"weight": "x"}}, "divergence.weight: 'x' is no number"),
        ("prime", {"online_prm": {"learn_first": 1}}, "online_prm.learn_first: 1 is no true or false"),
        ("grpo", {"weights": {"proces": 1}}, "weights: proces: unknown key; did you mean 'process'"),
        ("grpo", {"weights": {"process": -1}}, "weights: process: Input should be greater than or equal to 0"),
        ("grpo", {"weights": 3}, "weights: 3 is no mapping of final, process, format"),
        ("rloo-min", {"process_estimator": None}, "credit and process_estimator belong together"),
        ("rloo-min", {"credit": "progress", "process_estimator": "gae_tokens"}, "nothing to bootstrap"),
        ("grpo", {"credit": "min_form"}, "credited with weight 0; set weights.process"),
        ("gspo", {"reduction": "token_mean"}, "gspo is reduced with sequence_mean"),
        ("gmpo", {"credit": "mean", "weights": {"process": 1}}, "one advantage per completion, and mean gives"),
        ("grpo", {"estimator": "gae_tokens"}, "gae_tokens need a critic"),
        ("grpo", {"estimator": None}, "an estimator and a surrogate belong together"),
        ("gfpo", {"pairs": None}, "nothing would be learnt"),
        ("gfpo", {"credit": "mean", "process_estimator": "group_mean"}, "the pair route has no advantages"),
    ],
)
def test_what_does_not_exist_or_go_together_is_refused(name, parts, said):
    with pytest.raises(UsageError) as refusal:
        algorithm(name, parts)
    assert said in str(refusal.value)


def test_a_credit_rule_brings_the_estimator_along_and_takes_it_away():
    dense = algorithm("grpo", {"credit": "min_form", "weights": {"process": 0.5}})
    assert dense.process_estimator is advantages.group_zscore
    assert algorithm("pure", {"credit": None}).process_estimator is None
    assert algorithm("pure", {"credit": "mean"}).process_estimator is advantages.leave_one_out_constant


def test_step_credit_takes_the_process_part_out_of_the_composed_reward():
    assert ALGORITHMS["dapo"].composed_weights.process == 0.5
    assert ALGORITHMS["rloo-min"].weights.process == 0.5
    assert ALGORITHMS["rloo-min"].composed_weights.process == 0


def test_needs_say_what_a_loop_must_have():
    assert ALGORITHMS["cispo"].needs == frozenset()
    assert ALGORITHMS["ppo"].needs == {"critic", "reference policy"}
    assert ALGORITHMS["remax"].needs == {"greedy rollout"}
    assert ALGORITHMS["srpo"].needs == {"reference rollout", "step rewards"}
    assert ALGORITHMS["rloo"].on_policy_only
    assert not ALGORITHMS["grpo"].on_policy_only


def test_dapo_with_the_variance_aware_pairs_of_the_handbook():
    both = algorithm("dapo", {"pairs": {"builder": "variance_aware", "loss": "gfpo", "weight": 0.1}})
    assert both.surrogate is surrogates.reinforce
    assert both.pairs.builder is pairs.variance_aware


def test_an_algorithm_of_ones_own_functions():
    mine = Algorithm(
        "mine", "", "", estimator=advantages.critic_steps, surrogate=surrogates.cispo, credit=credit.gae_steps,
        process_estimator=advantages.critic_steps, critic=ALGORITHMS["ppo"].critic,
        reduction=loss_reduction.prompt_mean, weights=RewardWeights(),
    )  # fmt: skip
    assert mine.needs == {"critic", "step rewards"}
    assert Pairs in {compound for compound, _ in COMPOUNDS.values()}


def test_scenarios_name_algorithms_that_exist():
    assert {stage for scenario in SCENARIOS for stage in scenario.stages} <= {"sft", *ALGORITHMS}
    assert all(measured(scenario) for scenario in SCENARIOS)
