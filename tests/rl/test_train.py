import json
import shutil
from collections import Counter

import pytest
import torch

from prm_kit.errors import PrmKitError, UsageError
from prm_kit.policy import Policy
from prm_kit.score import StepScores
from prm_kit.tasks.arithmetic import ArithmeticTask
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer
from rl.learning import Learner
from rl.presets import ALGORITHMS
from rl.train import train
from rl.train_settings import RlSettings

TASK = ArithmeticTask()
PROBLEMS = TASK.problems("train", 12, 0)
HELD_OUT = TASK.problems("dev", 4, 0)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy")
    Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer()).save(path)
    return str(path)


class LikesShortSteps:
    """A scorer: the shorter a step, the better; it abstains from steps without a digit."""

    name = "short"

    def score(self, solutions):
        return [StepScores(tuple(self._one(step) for step in one.steps)) for one in solutions]

    def _one(self, step):
        right = 1 / (1 + len(step) / 20)
        return (1 - right, 0.0, right) if any(c.isdigit() for c in step) else None


def settings(policy, algorithm="dapo", **changes):
    asked = {
        "updates": 2,
        "problems": 3,
        "group_size": 4,
        "minibatches": 2,
        "max_new_tokens": 60,
        "split": "newline",
        "learning_rate": 1e-2,
        "parts": {"weights": {"process": 0.0, "format": 0.0}},
        "device": "cpu",
    }
    if getattr(ALGORITHMS.get(algorithm), "on_policy_only", False):
        asked["minibatches"] = 1
    return RlSettings(policy=policy, algorithm=algorithm, **{**asked, **changes})


def sevens(rollouts):
    """A reward of one's own: the share of tokens that are the digit 7."""
    return [one.solution.completion.count("7") / len(one.rollout.ids) for one in rollouts]


def verdict(problem, completion):
    """Right and wrong in the same group: the untrained policy never solves a sum."""
    return len(completion) % 2 == 0


def run(asked, out, **fields):
    return train(asked, PROBLEMS, fields.pop("verify", verdict), out, **fields)


def lines(out, part="train"):
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["part"] == part]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_preset_goes_through_the_one_loop(name, policy, tmp_path):
    changes = {"parts": {}, "group_size": 1 if ALGORITHMS[name].group_size == 1 else 8}
    if name == "gfpo-anchored":  # an untrained policy's texts have little more than their first token in common
        changes["parts"] = {"pairs": {"builder": {"name": "prefix_sharing", "share": 0.0}}}
    critic = ALGORITHMS[name].critic
    if critic is not None and critic.warm_up > 0:
        changes["parts"] = {"critic": {"warm_up": 0}}
    asked = settings(policy, name, most_rounds=3, updates=1, problems=8, **changes)
    summary = run(asked, tmp_path / "run", scorer=LikesShortSteps())
    assert summary["updates"] == 1
    assert (tmp_path / "run" / "checkpoint" / "policy.json").exists()
    before, after = (Policy.load(path).model.state_dict() for path in (policy, tmp_path / "run" / "checkpoint"))
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_while_the_value_model_warms_up_the_policy_waits(policy, tmp_path):
    run(settings(policy, "vapo-gae", parts={"critic": {"warm_up": 1}}), tmp_path / "run")
    first, second = lines(tmp_path / "run")
    assert first["gradient_norm"] == 0 < first["gradient_norm_value"]
    assert second["gradient_norm"] > 0


def test_what_the_reference_says_does_not_hang_on_what_it_is_compared_with(policy, tmp_path):
    # policy and reference are alike at the start: with the same random numbers every advantage would be 0 for ever
    asked = settings(policy, "srpo", group_size=1, updates=1)
    last = run(asked, tmp_path / "run", rewards={"sevens": (1.0, sevens)})["last"]
    assert last["advantage_size"] > 0
    assert last["no_signal"] < 1


def test_activations_that_are_computed_twice_change_no_result(policy, tmp_path, monkeypatch):
    block = type(Policy.load(policy).model.model.layers[0].mlp)
    forward, calls = block.forward, Counter()
    for name in ("once", "twice"):

        def counts(self, *args, name=name):
            calls[name] += 1
            return forward(self, *args)

        monkeypatch.setattr(block, "forward", counts)
        run(settings(policy, "vapo", gradient_checkpointing=name == "twice"), tmp_path / name)
    assert calls["twice"] > calls["once"]
    for a, b in zip(lines(tmp_path / "once"), lines(tmp_path / "twice"), strict=True):
        assert (a["loss"], a["gradient_norm"]) == pytest.approx((b["loss"], b["gradient_norm"]), rel=1e-3)


def test_prompts_that_are_shared_change_no_result(policy, tmp_path):
    for name, share in (("apart", False), ("shared", True)):
        run(settings(policy, "ppo", share_prompts=share, micro_batch_tokens=500), tmp_path / name)
    for a, b in zip(lines(tmp_path / "apart"), lines(tmp_path / "shared"), strict=True):
        keys = ("loss", "loss_value", "gradient_norm", "gradient_norm_value")
        assert [a[key] for key in keys] == pytest.approx([b[key] for key in keys], rel=1e-3, abs=1e-6)
    written = [Policy.load(tmp_path / name / "checkpoint").model.state_dict() for name in ("apart", "shared")]
    for key, one in written[0].items():
        assert torch.allclose(one, written[1][key], atol=2e-3)  # AdamW makes a whole step of a gradient's last bits


def test_tensorboard_gets_what_metrics_get(policy, tmp_path):
    pytest.importorskip("tensorboard")
    run(settings(policy, tensorboard=True), tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_problems_that_everybody_solves_are_left_out_even_where_their_groups_do_not_train(policy, tmp_path):
    easy, seen = {problem.text for problem in PROBLEMS[:3]}, []

    def looks(rollouts):
        seen.append({one.problem.text for one in rollouts})
        return [0.0] * len(rollouts)

    asked = settings(
        policy, "dapo-dynamic", parts={"problem_filter": "not_solved"}, updates=3, group_size=2, most_rounds=1,
        max_new_tokens=240,
    )  # fmt: skip
    train(asked, PROBLEMS[:6], lambda one, _: one.text in easy, tmp_path / "run", rewards={"looks": (1.0, looks)})
    # groups of which all are right, or none: nothing trains, and the next epoch is that of the unsolved problems
    assert len(seen[0] | seen[1]) == 6
    assert seen[2] == {problem.text for problem in PROBLEMS[3:6]}


def test_what_is_rewarded_becomes_more_frequent(policy, tmp_path):
    asked = settings(policy, "dr-grpo", parts={"weights": {"final": 0.0}}, updates=12, problems=6, group_size=8)
    run(asked, tmp_path / "run", rewards={"sevens": (1.0, sevens)})
    rewards = [line["sevens"] for line in lines(tmp_path / "run")]
    assert sum(rewards[-3:]) > 3 * sum(rewards[:3])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(policy, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(settings(policy, seed=seed), tmp_path / name)
    texts = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("name", ["srpo-resample", "gfpo-anchored", "ppo", "pure"])
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(name, policy, tmp_path, monkeypatch):
    asked = settings(
        policy, name, parts={}, updates=5, checkpoint_every=2, eval_every=2, problems=5, max_new_tokens=30,
        eval_samples=1,
    )  # fmt: skip
    fields = {"scorer": LikesShortSteps(), "held_out": HELD_OUT}
    whole = run(asked, tmp_path / "whole", **fields)
    learn, calls = Learner.learn, []

    def dies(self, material, number):
        calls.append(number)
        if len(calls) == 4:
            raise RuntimeError("killed")
        return learn(self, material, number)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "learn", dies)
        with pytest.raises(RuntimeError, match="killed"):
            run(asked, tmp_path / "cut", **fields)
    assert calls == [0, 1, 2, 3]  # saved after two: the third is done again
    summary = run(asked, tmp_path / "cut", **fields)
    assert summary.pop("resumed")
    assert not whole.pop("resumed")
    assert summary == whole
    for file in ("metrics.jsonl", "rollouts.jsonl", "checkpoint/model.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert run(asked, tmp_path / "cut", **fields) == {**summary, "resumed": True}  # done: nothing is done again


@pytest.mark.parametrize("name", ["grpo", "gfpo-anchored", "vapo", "gfpo-gated"])
def test_micro_batches_change_no_result(name, policy, tmp_path):
    # gfpo-gated: a rollout stands in many pairs, so it passes more than once, and with a second pass it has moved
    gated = {"parts": {}, "passes": 2, "learning_rate": 1e-3, "group_size": 8} if name == "gfpo-gated" else {}
    for tokens in (60, 100_000):
        asked = settings(policy, name, micro_batch_tokens=tokens, minibatches=1, **gated)
        run(asked, tmp_path / str(tokens), scorer=LikesShortSteps() if gated else None)
    one, other = (lines(tmp_path / str(tokens)) for tokens in (60, 100_000))
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"part", "alarms"}:
            assert a[key] == pytest.approx(b[key], rel=2e-3, abs=2e-5), key


def test_sampled_log_probabilities_are_those_that_the_trainer_computes(policy, tmp_path):
    # so the ratio of the first step is 1, and recomputing changes nothing but rounding
    kept = run(settings(policy, "grpo", parts={}, minibatches=1), tmp_path / "kept")["last"]
    anew = run(settings(policy, "grpo", parts={}, minibatches=1, recompute_old=True), tmp_path / "anew")["last"]
    assert kept["loss"] == pytest.approx(anew["loss"], abs=1e-5)
    assert kept["entropy"] == pytest.approx(anew["entropy"], abs=1e-4)


def test_a_reward_that_fails_is_counted_and_its_rollout_left_out(policy, tmp_path):
    def fails_on_odd(rollouts):
        return [None if len(one.solution.completion) % 2 else 1.0 for one in rollouts]

    summary = run(settings(policy, "dr-grpo"), tmp_path / "run", rewards={"mine": (1.0, fails_on_odd)})
    last = summary["last"]
    assert last["failed"] == last["failed_mine"] > 0
    assert last["accuracy"] == 1.0  # by `verdict`, only those of even length are left
    # where nobody can judge, only what was cut off has a verdict
    last = run(settings(policy), tmp_path / "none", verify=lambda problem, completion: None)["last"]
    assert last["failed_final"] == last["failed"] > 0
    assert last["accuracy"] == 0.0
    nothing = {"mine": (1.0, lambda rollouts: [None] * len(rollouts))}
    assert run(settings(policy), tmp_path / "nothing", rewards=nothing)["last"] == {}
    assert [line["skipped"] for line in lines(tmp_path / "nothing")] == [1, 1]
    assert json.loads((tmp_path / "nothing" / "summary.json").read_text())["skipped"] == 2


def test_dynamic_sampling_goes_on_until_the_batch_is_full_or_it_has_tried_enough(policy, tmp_path):
    def never(problem, completion):
        return False

    run(settings(policy, "dapo-dynamic", parts={}, updates=1), tmp_path / "mixed")
    run(settings(policy, "dapo-dynamic", parts={}, updates=1, most_rounds=2), tmp_path / "never", verify=never)
    assert json.loads((tmp_path / "never" / "summary.json").read_text())["rollouts"] == 24
    skipped = lines(tmp_path / "never")[0]
    assert (skipped["skipped"], skipped["filtered"]) == (1, 6)  # two rounds of three groups
    assert lines(tmp_path / "mixed")[0]["sampled"] >= 12


def test_the_process_reward_reaches_the_tokens_of_its_steps_only(policy, tmp_path):
    seen = {}

    class Watched(LikesShortSteps):
        def score(self, solutions):
            seen.update({one.completion: one for one in solutions})
            return super().score(solutions)

    parts = {"weights": {"final": 0.0, "format": 0.0, "process": 1.0}, "credit": "difference",
             "process_estimator": "uncentred"}  # fmt: skip
    run(settings(policy, "dr-grpo", parts=parts, updates=1), tmp_path / "run", scorer=Watched())
    line = lines(tmp_path / "run")[0]
    assert line["process_share"] == pytest.approx(1.0)
    assert 0 < line["process"] < 1
    assert seen


def test_what_cannot_be_trained_is_refused(policy, tmp_path):
    with pytest.raises(UsageError, match="wants step rewards: name a PRM"):
        run(settings(policy, "pure", parts={}), tmp_path / "a")
    with pytest.raises(UsageError, match="trained on and held out"):
        run(settings(policy), tmp_path / "b", held_out=PROBLEMS[:1])
    with pytest.raises(UsageError, match="context of"):
        run(settings(policy, max_new_tokens=100_000), tmp_path / "c")
    with pytest.raises(UsageError, match="grpo"):
        run(settings(policy, "grppo"), tmp_path / "d")
    run(settings(policy), tmp_path / "e")
    with pytest.raises(UsageError, match="learning_rate"):
        run(settings(policy, learning_rate=1e-3), tmp_path / "e")


def test_settings_with_which_the_policy_would_not_learn_are_refused(policy, tmp_path):
    with pytest.raises(UsageError, match="value model for the first 50"):
        run(settings(policy, "vapo-gae", updates=50), tmp_path / "a")
    with pytest.raises(UsageError, match="one optimiser step"):
        run(settings(policy, "dapo", passes=2), tmp_path / "b")
    with pytest.raises(UsageError, match="accuracy"):
        run(settings(policy), tmp_path / "c", rewards={"accuracy": (1.0, sevens)})
    with pytest.raises(UsageError, match="format_checks"):
        run(settings(policy, parts={"weights": {"process": 0.0}}, format_checks=()), tmp_path / "d")


def test_a_run_that_was_refused_can_be_asked_for_again_rightly(policy, tmp_path):
    with pytest.raises(UsageError, match="context of"):
        run(settings(policy, max_new_tokens=100_000), tmp_path / "run")
    run(settings(policy), tmp_path / "run")
    with pytest.raises(UsageError, match=r"rewards\.sevens"):
        run(settings(policy), tmp_path / "run", rewards={"sevens": (1.0, sevens)})


def test_a_reward_that_is_not_finite_stops_the_run_and_keeps_the_example(policy, tmp_path):
    with pytest.raises(PrmKitError, match="update 0: reward mine is not finite for 1 of 12"):
        run(settings(policy), tmp_path / "run", rewards={"mine": (1.0, lambda found: [float("nan")] + [0.0] * 11)})
    assert len(json.loads((tmp_path / "run" / "nonfinite.json").read_text())["rollouts"]) == 1


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_example(policy, tmp_path):
    broken = settings(policy, learning_rate=1e30, updates=6)
    with pytest.raises(PrmKitError, match="update"):
        run(broken, tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert kept["rollouts"][0]["problem"].startswith("Start with")


def test_a_policy_trained_anew_in_its_own_folder_is_another_run(policy, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(policy, start)
    run(settings(str(start), updates=1), tmp_path / "out")
    Policy.of(arithmetic_policy(1, hidden=16, layers=1), arithmetic_tokenizer()).save(start)
    with pytest.raises(UsageError, match="models"):
        run(settings(str(start), updates=1), tmp_path / "out")
